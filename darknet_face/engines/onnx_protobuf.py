"""Write ONNX models without the package ``onnx``: nodes and tensors as protobuf.

An ONNX model is a protobuf (source: ``onnx/onnx.proto`` of https://github.com/onnx/onnx). A network
has a few kinds of nodes, so that writing it takes less than a page.
"""

from __future__ import annotations

import struct
import typing

import numpy as np

import darknet19

IR_VERSION, OPSET = 7, 13  # what ONNX Runtime 1.10 and OpenCV 4 read too
PROPERTIES = 14  # ModelProto's field of the metadata, the last one
# TensorProto.DataType
TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
# AttributeProto's numbers of the field and of the type, by the type of the value.
_ATTRIBUTES = {float: (2, 1), int: (3, 2), str: (4, 3), list: (8, 7)}

Shape = typing.Sequence[typing.Union[int, str]]
Parts = typing.List[typing.Any]  # of a protobuf: bytes, and memoryviews of the weights' numbers


class ScaledKernel(typing.NamedTuple):
    """A kernel, OIHW, and the factor of each output: stored as float16, multiplied when loaded."""

    numbers: np.ndarray
    scale: np.ndarray


class GraphWriter:
    """Takes the nodes and tensors of a model, in the order in which they are added."""

    def __init__(self) -> None:
        self._nodes: list[Parts] = []
        self._tensors: list[Parts] = []

    def add(self, kind: str, inputs: typing.Sequence[str], output: str,
            **attributes: typing.Any) -> str:
        """Add a node, named as its output; returns that name."""
        self._nodes.append(_node(kind, inputs, output, attributes))
        return output

    def constant(self, name: str, values: typing.Any, kind: str = "float32") -> str:
        """Add a tensor of one of :data:`TYPES`; returns its name."""
        self._tensors.append(_tensor(name, np.asarray(values, kind), TYPES[kind]))
        return name

    def convolve(self, net: str, kernel: np.ndarray | ScaledKernel, bias: np.ndarray, name: str,
                 output: str | None = None) -> str:
        """Add a convolution that keeps the size; ``kernel`` is OIHW. Its output is ``name``."""
        numbers = kernel.numbers if isinstance(kernel, ScaledKernel) else kernel
        tensors = [self._kernel(name + "/kernel", kernel), self.constant(name + "/bias", bias)]
        size = numbers.shape[-1]
        return self.add("Conv", [net] + tensors, output or name, kernel_shape=[size, size],
                        pads=[size // 2] * 4)

    def _kernel(self, name, kernel):
        if not isinstance(kernel, ScaledKernel):
            return self.constant(name, kernel)
        half = self.constant(name + "/half", kernel.numbers, "float16")
        whole = self.add("Cast", [half], name + "/float", to=TYPES["float32"])
        scale = self.constant(name + "/scale", kernel.scale[:, None, None, None])
        return self.add("Mul", [whole, scale], name)

    def activate(self, net: str) -> str:
        """Add the network's activation."""
        return self.add("LeakyRelu", [net], net + "/activation", alpha=darknet19.LEAKY_SLOPE)

    def pool(self, net: str) -> str:
        """Add the network's max-pooling."""
        return self.add("MaxPool", [net], net + "/pooled", kernel_shape=[2, 2], strides=[2, 2])

    def model(self, title: str, text: str, inputs: typing.Mapping[str, Shape],
              outputs: typing.Mapping[str, Shape]) -> Parts:
        """The ModelProto without metadata; inputs and outputs are float32."""
        graph = message(
            *[(1, node) for node in self._nodes], (2, title),
            *[(5, each) for each in self._tensors],
            *[(11, _value(*each)) for each in inputs.items()],
            *[(12, _value(*each)) for each in outputs.items()])
        return message((1, IR_VERSION), (2, "darknet-face"), (6, text), (7, graph),
                       (8, message((1, ""), (2, OPSET))))


def metadata(properties: typing.Mapping[str, str]) -> Parts:
    """The end of a ModelProto: what it says of itself."""
    return message(*[(PROPERTIES, message((1, key), (2, value)))
                     for key, value in properties.items()])


def _node(kind: str, inputs: typing.Sequence[str], output: str,
          attributes: typing.Mapping[str, typing.Any]) -> Parts:
    """A NodeProto, named as its output."""
    return message(*[(1, each) for each in inputs], (2, output), (3, output), (4, kind),
                    *[(5, _attribute(*each)) for each in attributes.items()])


def _attribute(name: str, value: float | int | str | list[int]) -> Parts:
    field, kind = _ATTRIBUTES[type(value)]
    values = value if isinstance(value, list) else [value]
    return message((1, name), *[(field, each) for each in values], (20, kind))


def _tensor(name: str, array: np.ndarray, kind: int) -> Parts:
    """A TensorProto of little-endian numbers."""
    numbers = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")
    return message(*[(1, size) for size in array.shape], (2, kind), (8, name), (9, [numbers]))


def _value(name: str, shape: Shape) -> Parts:
    """A ValueInfoProto; a size that may be any has a name instead of a number."""
    sizes = [message((1 if isinstance(each, int) else 2, each)) for each in shape]
    return message((1, name), (2, message((1, message(
        (1, TYPES["float32"]), (2, message(*[(1, size) for size in sizes])))))))


def message(*fields: tuple[int, int | float | str | Parts]) -> Parts:
    """A protobuf of these fields, each a number and a value."""
    parts: Parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        elif isinstance(value, float):
            parts.append(varint(number << 3 | 5) + struct.pack("<f", value))
        else:
            content = [value.encode("utf-8")] if isinstance(value, str) else value
            parts += [varint(number << 3 | 2) + varint(sum(map(len, content))), *content]
    return parts


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes(content) + bytes([number])


def read_varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of at most 63 bits, and the place after it."""
    number = 0
    for index, byte in enumerate(content[place:place + 9]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, place + index + 1
    raise ValueError("a damaged number")
