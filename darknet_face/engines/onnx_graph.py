"""The network as an ONNX model, written straight from the weights, without the package ``onnx``.

Batch norm is folded into the convolutions. Models of one layout differ in nothing but the numbers
of their weights and the metadata at their end, so that :func:`check_model` can compare bytes.
"""

from __future__ import annotations

import typing

import numpy as np

import darknet19
from darknet_face.engines.onnx_protobuf import (
    PROPERTIES,
    GraphWriter,
    Parts,
    ScaledKernel,
    Shape,
    metadata,
    read_varint,
)

# Filters are turned so many input channels at a time, which fits in the processor's cache: in half
# of the time, which every start takes longer.
BLOCK = 16

Convolution = typing.Tuple[np.ndarray, np.ndarray]
Layer = typing.Tuple[typing.Union[np.ndarray, ScaledKernel], np.ndarray]


def folded(weights: typing.Mapping[str, np.ndarray]) -> typing.Iterator[Convolution]:
    """Yield each convolution's kernel (OIHW) and bias, its batch norm folded in, float32.

    See :func:`darknet_face.engines.tensorflow_classifier.fold_batch_norm`.
    """
    for index in range(darknet19.NUM_CONVOLUTIONS):
        yield fold({name.split("/")[1]: array for name, array in weights.items()
                    if name.startswith("conv_{}/".format(index))})


def fold(parts: typing.Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A layer's kernel (OIHW) and bias, its batch norm folded in, float32.

    ``parts`` are ``kernel`` (HWIO) with ``bias``, or with ``gamma``, ``beta``, ``mean`` and
    ``variance``.
    """
    (kernel, scale), bias = split(parts)
    scaled = kernel.transpose(2, 3, 1, 0) * scale
    turned = np.empty(kernel.shape, np.float32)
    for first in range(0, kernel.shape[1], BLOCK):
        part = slice(first, first + BLOCK)
        turned[:, part] = scaled[:, :, part].transpose(3, 2, 0, 1)
    return turned, bias


def split(parts: typing.Mapping[str, np.ndarray]) -> tuple[ScaledKernel, np.ndarray]:
    """The same as :func:`fold`, but with the kernel as it is and its factors beside it."""
    kernel = parts["kernel"].transpose(3, 2, 0, 1)
    if "gamma" not in parts:
        return ScaledKernel(kernel, np.ones(len(kernel), np.float32)), parts["bias"].astype(
            np.float32)
    scale = parts["gamma"] / np.sqrt(
        parts["variance"].astype(np.float64) + darknet19.BATCH_NORM_EPSILON)
    bias = (parts["beta"] - parts["mean"] * scale).astype(np.float32)
    return ScaledKernel(kernel, scale.astype(np.float32)), bias


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
        Of ``probabilities`` and ``logits``, float32, [batch, 2], FACE first, ``class_map``,
        float32, [batch, 2, height / 32, width / 32], and the names of nodes between layers.
    properties
        The model's metadata.
    """
    return b"".join(_model(convolutions, layout, outputs) + metadata(properties or {}))


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
        number, place = read_varint(content, place)
        size, place = read_varint(content, place)
        place += size
        if number != PROPERTIES << 3 | 2 or place > len(content):
            raise ValueError("after the network is something else than metadata")


def _model(convolutions: typing.Iterable[Convolution], layout: str,
           outputs: typing.Sequence[str]) -> Parts:
    """A ModelProto without metadata."""
    graph = GraphWriter()
    remaining = iter(convolutions)
    net = trunk(graph, first_node(graph, layout), remaining)[darknet19.TRUNK]
    graph.convolve(net, *next(remaining), darknet19.CLASSIFIER, "class_map")
    return classifier_model(graph, layout, outputs)


def first_node(graph: GraphWriter, layout: str) -> str:
    """What the first layer reads, in the layout NCHW."""
    return "input" if layout == "NCHW" else graph.add(
        "Transpose", ["input"], "input_nchw", perm=[0, 3, 1, 2])


def classifier_model(graph: GraphWriter, layout: str, outputs: typing.Sequence[str]) -> Parts:
    """A ModelProto of all layers up to ``class_map``, and of the answers that follow from it."""
    net = graph.add("GlobalAveragePool", ["class_map"], "mean")
    net = graph.add("Flatten", [net], "logits", axis=1)
    graph.add("Softmax", [net], "probabilities", axis=1)
    classes, sizes = len(darknet19.CLASS_NAMES), ("height", "width")
    shapes: dict[str, Shape] = {
        "class_map": ("batch", classes, "rows", "columns"),
        "logits": ("batch", classes), "probabilities": ("batch", classes)}
    for name in outputs:  # others are between layers, each of a size of its own
        shapes.setdefault(name, [name + axis for axis in ("", "/channels", "/rows", "/columns")])
    return graph.model(
        "Darknet-19", "Darknet-19 that tells whether a face is in the image",
        {"input": ("batch", *sizes, 3) if layout == "NHWC" else ("batch", 3, *sizes)},
        {name: shapes[name] for name in outputs})


def trunk(graph: GraphWriter, net: str, convolutions: typing.Iterator[Layer],
          ) -> dict[str, str]:
    """Add all layers but the last; returns the activated output of each convolution by name."""
    ends: dict[str, str] = {}
    for layer in darknet19.LAYERS:
        if layer == darknet19.MAX_POOL:
            net = graph.pool(net)
        else:
            name = "conv_{}".format(len(ends))
            kernel, bias = next(convolutions)
            net = ends[name] = graph.activate(graph.convolve(net, kernel, bias, name))
    return ends
