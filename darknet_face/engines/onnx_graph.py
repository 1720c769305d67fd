"""The network as an ONNX model, written straight from the weights, without the package ``onnx``.

An ONNX model is a protobuf (source: ``onnx/onnx.proto`` of https://github.com/onnx/onnx). The
network is a chain of few kinds of nodes, with batch norm folded into the convolutions, so that
writing it takes less than a page. Models of one layout differ in nothing but the numbers of their
weights and the metadata at their end, so that :func:`check_model` can compare bytes.
"""

from __future__ import annotations

import struct
import typing

import numpy as np

import darknet19

IR_VERSION, OPSET = 7, 13  # what ONNX Runtime 1.10 and OpenCV 4 read too
FLOAT = 1  # of TensorProto.DataType
PROPERTIES = 14  # ModelProto's field of the metadata, the last one
# AttributeProto's numbers of the field and of the type, by the type of the value.
_ATTRIBUTES = {float: (2, 1), int: (3, 2), list: (8, 7)}

Convolution = typing.Tuple[np.ndarray, np.ndarray]
Shape = typing.Sequence[typing.Union[int, str]]
Parts = typing.List[typing.Any]  # of a protobuf: bytes, and memoryviews of the weights' numbers


def folded(weights: typing.Mapping[str, np.ndarray]) -> typing.Iterator[Convolution]:
    """Yield each convolution's kernel (OIHW) and bias, its batch norm folded in, float32.

    See :func:`darknet_face.engines.tensorflow_classifier.fold_batch_norm`.
    """
    for index in range(darknet19.NUM_CONVOLUTIONS):
        parts = {name.split("/")[1]: array for name, array in weights.items()
                 if name.startswith("conv_{}/".format(index))}
        kernel = parts["kernel"].transpose(3, 2, 0, 1)
        if "gamma" in parts:
            scale = parts["gamma"] / np.sqrt(
                parts["variance"].astype(np.float64) + darknet19.BATCH_NORM_EPSILON)
            kernel = kernel * scale.astype(np.float32)[:, None, None, None]
            parts["bias"] = parts["beta"] - parts["mean"] * scale
        yield kernel, parts["bias"].astype(np.float32)


def onnx_model(convolutions: typing.Iterable[Convolution], layout: str = "NHWC",
               outputs: typing.Sequence[str] = ("probabilities", "logits"),
               properties: typing.Mapping[str, str] | None = None) -> bytes:
    """The network as the content of an ``.onnx`` file.

    Parameters
    ----------
    convolutions
        As :func:`folded` yields them.
    layout : {"NHWC", "NCHW"}
        Of ``input``: float32, [batch, height, width, 3] or [batch, 3, height, width], RGB 0..1,
        height and width multiples of 32.
    outputs
        Of ``probabilities`` and ``logits``, float32, [batch, 2], FACE first, and ``class_map``,
        float32, [batch, 2, height / 32, width / 32].
    properties
        The model's metadata.
    """
    return b"".join(_model(convolutions, layout, outputs) + _message(
        *[(PROPERTIES, _message((1, key), (2, value))) for key, value in (
            properties or {}).items()]))


def check_model(content: bytes, shapes: typing.Iterable[tuple[int, ...]],
                layout: str) -> None:
    """Make sure that a file is a model of :func:`onnx_model`: only weights and metadata may differ.

    A model is a program: it could loop for ever, ask for any amount of memory, read other files, or
    end the process by a stride of 0.

    Parameters
    ----------
    content
    shapes
        Those of the kernels that are expected, OIHW.
    layout
        The one that is expected.

    Raises
    ------
    ValueError
        For any other content.
    """
    zeros = [(np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)) for shape in shapes]
    place = 0
    for part in _model(zeros, layout, ("probabilities", "logits")):
        end = place + len(part)
        if isinstance(part, bytes) and content[place:end] != part or end > len(content):
            raise ValueError("byte {:,} is another".format(place))
        place = end
    while place < len(content):  # nothing else may follow, since a reader would add it to the graph
        number, place = _read_varint(content, place)
        size, place = _read_varint(content, place)
        place += size
        if number != PROPERTIES << 3 | 2 or place > len(content):
            raise ValueError("after the network is something else than metadata")


def _model(convolutions: typing.Iterable[Convolution], layout: str,
           outputs: typing.Sequence[str]) -> Parts:
    """A ModelProto without metadata."""
    nodes: list[Parts] = []
    tensors: list[Parts] = []
    net = "input"

    def add(kind: str, output: str, *more_inputs: str, **attributes: typing.Any) -> None:
        nonlocal net
        nodes.append(_node(kind, (net,) + more_inputs, output, attributes))
        net = output

    if layout == "NHWC":
        add("Transpose", "input_nchw", perm=[0, 3, 1, 2])
    remaining = enumerate(convolutions)
    for layer in darknet19.LAYERS + (None,):
        if layer == darknet19.MAX_POOL:
            add("MaxPool", net + "/pooled", kernel_shape=[2, 2], strides=[2, 2])
            continue
        index, (kernel, bias) = next(remaining)
        name, size = "conv_{}".format(index), kernel.shape[-1]
        tensors += [_tensor(name + "/kernel", kernel), _tensor(name + "/bias", bias)]
        add("Conv", "class_map" if layer is None else name, name + "/kernel", name + "/bias",
            kernel_shape=[size, size], pads=[size // 2] * 4)
        if layer is not None:
            add("LeakyRelu", name + "/activation", alpha=darknet19.LEAKY_SLOPE)
    add("GlobalAveragePool", "mean")
    add("Flatten", "logits", axis=1)
    add("Softmax", "probabilities", axis=1)
    classes, sizes = len(bias), ("height", "width")
    shapes: dict[str, Shape] = {
        "input": ("batch", *sizes, 3) if layout == "NHWC" else ("batch", 3, *sizes),
        "class_map": ("batch", classes, "rows", "columns"),
        "logits": ("batch", classes), "probabilities": ("batch", classes)}
    graph = _message(
        *[(1, node) for node in nodes], (2, "Darknet-19"), *[(5, each) for each in tensors],
        (11, _value("input", shapes["input"])),
        *[(12, _value(name, shapes[name])) for name in outputs])
    return _message(
        (1, IR_VERSION), (2, "darknet-face"),
        (6, "Darknet-19 that tells whether a face is in the image"), (7, graph),
        (8, _message((1, ""), (2, OPSET))))


def _node(kind: str, inputs: typing.Sequence[str], output: str,
          attributes: typing.Mapping[str, typing.Any]) -> Parts:
    """A NodeProto, named as its output."""
    return _message(*[(1, each) for each in inputs], (2, output), (3, output), (4, kind),
                    *[(5, _attribute(*each)) for each in attributes.items()])


def _attribute(name: str, value: float | int | list[int]) -> Parts:
    field, kind = _ATTRIBUTES[type(value)]
    values = value if isinstance(value, list) else [value]
    return _message((1, name), *[(field, each) for each in values], (20, kind))


def _tensor(name: str, array: np.ndarray) -> Parts:
    """A TensorProto of little-endian float32."""
    numbers = np.ascontiguousarray(array, "<f4").data.cast("B")
    return _message(*[(1, size) for size in array.shape], (2, FLOAT), (8, name), (9, [numbers]))


def _value(name: str, shape: Shape) -> Parts:
    """A ValueInfoProto; a size that may be any has a name instead of a number."""
    sizes = [_message((1 if isinstance(each, int) else 2, each)) for each in shape]
    return _message((1, name), (2, _message((1, _message(
        (1, FLOAT), (2, _message(*[(1, size) for size in sizes])))))))


def _message(*fields: tuple[int, int | float | str | Parts]) -> Parts:
    """A protobuf of these fields, each a number and a value."""
    parts: Parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
        elif isinstance(value, float):
            parts.append(_varint(number << 3 | 5) + struct.pack("<f", value))
        else:
            content = [value.encode("utf-8")] if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2) + _varint(sum(map(len, content))), *content]
    return parts


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes(content) + bytes([number])


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of at most 63 bits, and the place after it."""
    number = 0
    for index, byte in enumerate(content[place:place + 9]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, place + index + 1
    raise ValueError("a damaged number")
