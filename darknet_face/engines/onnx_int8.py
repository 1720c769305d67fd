"""The network as an ONNX model of 8-bit numbers: a quarter of the size, and answers are faster.

Kernels are signed numbers with a scale for each filter. What the layers pass on is unsigned numbers
with a scale and a zero for each layer, from ranges that were measured on images. In the format QDQ
each layer is that of the float32 model, between a pair of nodes that round; ONNX Runtime replaces
them by layers of 8-bit numbers. The first and the last convolution stay float32: they see the
pixels and decide the answer.

The ranges are a file beside the weights, ``<name>_int8.json``, which :func:`write_ranges` writes:
the answers depend on them, so they travel with a release, and its users need no images.
"""

from __future__ import annotations

import os
import typing

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.onnx_graph import (
    Convolution,
    classifier_model,
    first_node,
    folded,
    onnx_model,
)
from darknet_face.engines.onnx_protobuf import GraphWriter, metadata
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import read_json
from darknet_face.weights.arrays import fingerprint

# The lowest and the highest activation of every convolution but the last.
Ranges = typing.Sequence[typing.Tuple[float, float]]
Weights = typing.Mapping[str, np.ndarray]

# Seven bits. Processors without VNNI add two products in 16 bits, which full 8-bit weights would
# overflow: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
LARGEST_WEIGHT = 63
# The highest activations decide answers, so the range ends at the highest of all images. The lowest
# matter a tenth of that, so it begins at this percentile, and all steps are finer.
LOWEST = 0.01
BATCH = 8  # images in a run that measures
LARGEST = 1e6  # of an activation; a trained network gives some tens
# Whether a pooling follows the convolution.
POOLED = [following == darknet19.MAX_POOL
          for layer, following in zip(darknet19.LAYERS, darknet19.LAYERS[1:] + (None,))
          if layer != darknet19.MAX_POOL]


def int8_model(weights: Weights, ranges: Ranges,
               outputs: typing.Sequence[str] = ("probabilities", "logits"),
               properties: typing.Mapping[str, str] | None = None) -> bytes:
    """The network as the content of an ``.onnx`` file.

    The other parameters are those of :func:`darknet_face.engines.onnx_graph.onnx_model`, whose
    layout is NHWC here.
    """
    graph = GraphWriter()
    convolutions = folded(weights)
    net, scale = first_node(graph, "NHWC"), None
    for index, (is_pooled, (low, high), convolution) in enumerate(
            zip(POOLED, ranges, convolutions)):
        name = "conv_{}".format(index)
        if scale:
            before = Scale(graph, name, low / darknet19.LEAKY_SLOPE, high)
            net = before.rounded(_convolve(graph, net, scale, convolution, name))
            if is_pooled:
                net = before.rounded(graph.pool(net))
            net = graph.activate(net)
        else:
            net = graph.activate(graph.convolve(net, *convolution, name))
            if is_pooled:
                net = graph.pool(net)
        scale = Scale(graph, name + "/activation", low, high)
        net = scale.rounded(net)
    graph.convolve(net, *next(convolutions), darknet19.CLASSIFIER, "class_map")
    return b"".join(classifier_model(graph, "NHWC", outputs) + metadata(dict(
        properties or {}, quantization="int8, QDQ")))


class Scale:
    """How numbers between two bounds become 8 bits: constants of the graph."""

    def __init__(self, graph: GraphWriter, name: str, low: float, high: float) -> None:
        low, high = min(low, 0.0), max(high, 0.0)
        self.graph = graph
        self.value = np.float32((high - low) / 255 or 1.0)
        self.names = [graph.constant(name + "/scale", self.value),
                      graph.constant(name + "/zero", round(float(-low / self.value)), "uint8")]

    def rounded(self, net: str) -> str:
        """Add the rounding to 8 bits and back."""
        whole = self.graph.add("QuantizeLinear", [net, *self.names], net + "/whole")
        return self.graph.add("DequantizeLinear", [whole, *self.names], net + "/rounded")


def _convolve(graph: GraphWriter, net: str, scale: Scale, convolution: Convolution, name: str
              ) -> str:
    """Add a convolution with a kernel of 8-bit numbers and a bias of 32-bit numbers.

    ``scale`` is that of ``net``.
    """
    kernel, bias = convolution
    largest = np.abs(kernel).reshape(len(kernel), -1).max(axis=1)
    # A kernel that is all but zero must not make the bias too large for 32 bits.
    of_kernel = np.maximum(largest / LARGEST_WEIGHT, np.abs(bias) / scale.value / 2 ** 30)
    of_kernel = np.where(of_kernel > 0, of_kernel, 1).astype(np.float32)
    of_bias = of_kernel * scale.value
    inputs = [net]
    for part, numbers, scales, kind in (
            (name + "/kernel", kernel / of_kernel[:, None, None, None], of_kernel, "int8"),
            (name + "/bias", bias / of_bias.astype(np.float64), of_bias, "int32")):
        inputs.append(graph.add("DequantizeLinear", [
            graph.constant(part + "/whole", np.rint(numbers), kind),
            graph.constant(part + "/scale", scales),
            graph.constant(part + "/zero", np.zeros(len(scales)), kind)], part, axis=0))
    size = kernel.shape[-1]
    return graph.add("Conv", inputs, name, kernel_shape=[size, size], pads=[size // 2] * 4)


def measure_ranges(weights: Weights, images: np.ndarray) -> Ranges:
    """The ranges of the activations on images, uint8 [n, height, width, 3], RGB."""
    from darknet_face.engines.onnx_runtime import open_session

    names = ["conv_{}/activation{}".format(index, "/pooled" if is_pooled else "")
             for index, is_pooled in enumerate(POOLED)]
    session = open_session(onnx_model(folded(weights), outputs=names))
    found = np.array([
        [(np.percentile(values, LOWEST), values.max()) for values in session.run(
            names, {"input": images[start:start + BATCH] / np.float32(255)})]
        for start in range(0, len(images), BATCH)])
    return [(round(float(low), 4), round(float(high), 4))  # as they are written
            for low, high in zip(found[..., 0].mean(axis=0), found[..., 1].max(axis=0))]


def path_of_ranges(weights_path: str) -> str:
    """Where the ranges for a model file are."""
    return os.path.splitext(weights_path.rstrip(os.sep))[0] + "_int8.json"


def write_ranges(weights_path: str, weights: Weights, ranges: Ranges, images: int) -> str:
    """Write the ranges, which so many images gave, beside the model file; return the path."""
    path = path_of_ranges(weights_path)
    lows, highs = map(list, zip(*ranges))
    write_json(path, {"images": images, "fingerprint": fingerprint(weights),
                      "lows": lows, "highs": highs})
    return path


def read_ranges(weights_path: str, weights: Weights) -> Ranges:
    """Read the ranges that were measured for a model.

    Raises
    ------
    UserError
        Missing, damaged, or measured for other weights.
    """
    path = path_of_ranges(weights_path)
    remedy = "measure the ranges: python export.py onnx --int8 --weights {}".format(weights_path)
    content = read_json(path, remedy)
    bounds = [content.get(name) for name in ("lows", "highs")]
    if not all(isinstance(each, list) and len(each) == len(POOLED) and all(
            isinstance(value, (int, float)) and abs(value) <= LARGEST for value in each)
            for each in bounds):
        raise UserError("{}: no usable ranges; {}".format(path, remedy))
    if content.get("fingerprint") != fingerprint(weights):
        raise UserError("{}: of other weights than {}; {}".format(path, weights_path, remedy))
    return list(zip(*bounds))
