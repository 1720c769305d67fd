"""The one-pass detector as an ONNX model, written straight from its weights.

The same graph as :mod:`darknet_face.detection.pyramid` builds in TensorFlow, with its boxes
decoded. Non-maximum suppression is not in it: see :func:`darknet_face.detection.detector.suppress`.
"""

from __future__ import annotations

import typing

import numpy as np

import darknet19
from darknet_face.detection.pyramid import END_POINTS, HEAD, MAX_LOG_DISTANCE
from darknet_face.detection.targets import LEVELS, NUMBERS
from darknet_face.engines.onnx_graph import Layer, fold, split, trunk
from darknet_face.engines.onnx_protobuf import GraphWriter, Shape, metadata

# Bounds of slices, axes, and shapes in which 0 keeps a size and -1 takes the rest.
CONSTANTS: dict[str, typing.Any] = {
    "zero": [0], "one": [1], "two": [2], "four": [4], "five": [NUMBERS], "channel": [1],
    "rows": 2, "columns": 3, "flat": [0, -1], "by_four": [0, -1, 4]}


def detector_model(weights: typing.Mapping[str, np.ndarray], layout: str = "NHWC",
                   properties: typing.Mapping[str, str] | None = None,
                   half: bool = False) -> bytes:
    """The detector as the content of an ``.onnx`` file.

    Parameters
    ----------
    weights
        See :func:`darknet_face.detection.model_file.read_detector`.
    layout : {"NHWC", "NCHW"}
        Of ``input``: float32, [batch, height, width, 3] or [batch, 3, height, width], RGB 0..1,
        sides multiples of 32.
    properties
        The model's metadata.
    half
        Store kernels as float16, half the size. Runtimes make float32 of them when they load the
        model, and compute with that. Nothing is lost if the weights are out of an ``.npz``.

    Returns
    -------
    bytes
        Its results are ``boxes``, float32, [batch, cells, 4], left, top, right, bottom in pixels of
        the input, and ``scores``, float32, [batch, cells].
    """
    graph = GraphWriter()
    net = "input"
    if layout == "NHWC":
        net = graph.add("Transpose", [net], "input_nchw", perm=[0, 3, 1, 2])
    names = ["conv_{}".format(index) for index in range(len(darknet19.CONVOLUTIONS))]
    ends = trunk(graph, net, (_layer(weights, name, half) for name in names))
    _add_head(graph, lambda name: _layer(weights, name, half), [ends[name] for name in END_POINTS])
    sizes = ("height", "width")
    shapes: dict[str, Shape] = {"boxes": ("batch", "cells", 4), "scores": ("batch", "cells")}
    return b"".join(graph.model(
        "face detector", "A narrow Darknet-19 that finds faces: boxes and scores of all cells, "
                         "before non-maximum suppression",
        {"input": ("batch", *sizes, 3) if layout == "NHWC" else ("batch", 3, *sizes)}, shapes)
        + metadata(properties or {}))


def _layer(weights: typing.Mapping[str, np.ndarray], name: str, half: bool) -> Layer:
    """A convolution with its batch norm folded in."""
    return (split if half else fold)({
        variable[len(name) + 1:].replace("moving_", ""): array
        for variable, array in weights.items() if variable.startswith(name + "/")})


def _add_head(graph, layer, features):
    """The pyramid: from the coarsest level to the finest, then all cells, the finest first."""
    for name, values in CONSTANTS.items():
        graph.constant(name, values, "int64")
    graph.constant("most", np.float32(MAX_LOG_DISTANCE))
    graph.constant("doubled", [1, 1, 2, 2])
    above, boxes, scores = "", [], []
    for level, net in reversed(list(zip(LEVELS, features))):
        name = "{}/stride_{}/".format(HEAD, level.stride)
        net = graph.convolve(net, *layer(name + "lateral"), name + "lateral")
        if above:
            above = graph.add(
                "Resize", [above, "", "doubled"], name + "above", mode="nearest",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor")
            net = graph.add("Add", [net, above], name + "sum")
        above, net = net, graph.activate(net)
        for part in ("conv_0", "conv_1"):
            net = graph.activate(graph.convolve(net, *layer(name + part), name + part))
        net = graph.convolve(net, *layer(name + "output"), name + "output")
        scores.append(_add_scores(graph, net, name))
        boxes.append(_add_boxes(graph, net, name, level.stride))
    graph.add("Concat", boxes[::-1], "boxes", axis=1)
    graph.add("Concat", scores[::-1], "scores", axis=1)


def _add_scores(graph, net, name):
    """The scores of a level, [batch, cells]."""
    net = graph.add("Slice", [net, "zero", "one", "channel"], name + "logits")
    net = graph.add("Sigmoid", [net], name + "sigmoid")
    return graph.add("Reshape", [net, "flat"], name + "scores")


def _add_boxes(graph, net, name, stride):
    """The boxes of a level, [batch, cells, 4]; see :func:`darknet_face.detection.pyramid.decode`.

    Cells are counted by a cumulative sum, so that the input may be of any size.
    """
    net = graph.add("Slice", [net, "one", "five", "channel"], name + "logarithms")
    net = graph.add("Exp", [graph.add("Min", [net, "most"], name + "bounded")], name + "strides")
    size = graph.constant(name + "size", np.float32(stride))
    net = graph.add("Mul", [net, size], name + "distances")
    first = graph.add("Slice", [net, "zero", "one", "channel"], name + "first")
    zeros = graph.add("ConstantOfShape", [graph.add("Shape", [first], name + "shape")],
                      name + "zeros")
    steps = graph.add("Add", [zeros, size], name + "steps")
    half = graph.constant(name + "half", np.float32(stride / 2))
    centers = [graph.add("Sub", [graph.add("CumSum", [steps, axis], name + "ends_" + axis), half],
                         name + "center_" + axis) for axis in ("columns", "rows")]
    center = graph.add("Concat", centers, name + "center", axis=1)
    near, far = (graph.add("Slice", [net, low, high, "channel"], name + "from_" + low)
                 for low, high in (("zero", "two"), ("two", "four")))
    corners = graph.add("Concat", [graph.add("Sub", [center, near], name + "low"),
                                   graph.add("Add", [center, far], name + "high")],
                        name + "corners", axis=1)
    last = graph.add("Transpose", [corners], name + "corners_last", perm=[0, 2, 3, 1])
    return graph.add("Reshape", [last, "by_four"], name + "boxes")
