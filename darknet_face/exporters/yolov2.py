"""A YOLOv2 detector as darknet's three files, checked by OpenCV's DNN module, which reads them.

darknet's own ``[reorg]`` mixes channels and places, and is no space to depth. Here the layer of
1 x 1 before it and the space to depth become one convolution of 2 x 2 with stride 2, which gives
the same numbers. ``[region]`` wants a class for each box: its logit is 0, so that its softmax is 1.
"""

from __future__ import annotations

import os
import typing
from collections import OrderedDict

import cv2
import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.detection.yolov2.boxes import NUMBERS, decode
from darknet_face.detection.yolov2.detector import DEFAULT_SIZE, Detector
from darknet_face.detection.yolov2.network import HEAD
from darknet_face.exporters.compare import check_difference
from darknet_face.exporters.darknet import opencv_net
from darknet_face.images.reader import read_batches
from darknet_face.runtime.atomic_files import staged, write_atomically
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights.darknet_cfg import MAX_POOL, Options, convolutional, write_sections
from darknet_face.weights.darknet_weights import RAISED, raised, write_convolutions
from darknet_face.weights.graph_files import read_graph_def

NAME = "yolov2_face"
SCORE_BOUND, BOX_BOUND = 1e-4, 1e-3  # of a corner, as a share of the image
LAST = "head/output"
Layer = typing.Dict[str, np.ndarray]


def export_yolov2(path: str, images: typing.Sequence[str], out: str) -> float:
    """Write ``yolov2_face.cfg``, ``.weights`` and ``.names`` into the folder ``out``.

    Parameters
    ----------
    path
        A frozen graph of ``train_detector.py --head yolov2``.
    images
        Paths of images to compare on.
        They are stretched to the input's size, :data:`DEFAULT_SIZE`.
    out

    Returns
    -------
    float
        The largest difference in score.

    Raises
    ------
    UserError
        With exit code 1, and nothing written, where a difference is larger than it may be.
    """
    with Detector(path):  # it checks the graph
        graph_def = read_graph_def(path)
    arrays = {node.name: tf.make_ndarray(node.attr["value"].tensor)
              for node in graph_def.node if node.op == "Const"}
    anchors = arrays["anchors"]
    pixels = [image for good, batch, _ in read_batches(images, 4, DEFAULT_SIZE) if good
              for image in batch]
    if not pixels:
        raise UserError("none of the {} images to compare on could be read".format(len(images)))
    with staged(out) as folder:
        cfg, content, names = (os.path.join(folder, NAME + extension)
                               for extension in (".cfg", ".weights", ".names"))
        write_sections(cfg, DEFAULT_SIZE, sections(arrays, anchors), [RAISED])
        write_convolutions(content, convolutions(arrays, len(anchors)))
        with write_atomically(names, "w", encoding="ascii") as stream:
            stream.write("face\n")
        difference = _check(opencv_net(cfg, content), graph_def, anchors, pixels)
    print("wrote {0}.cfg, {0}.weights and {0}.names: OpenCV agrees within {1:.1e}".format(
        os.path.join(out, NAME), difference))
    return difference


def sections(arrays: typing.Mapping[str, np.ndarray], anchors: np.ndarray
             ) -> list[tuple[str, Options]]:
    """The sections of the ``.cfg`` after ``[net]``; layers are counted from 0 on."""
    def filters(name):
        return arrays[name + "/kernel"].shape[-1]

    trunk: list[tuple[str, Options]] = []
    places = []  # of the convolutions among all layers
    for layer in darknet19.LAYERS:
        if layer != darknet19.MAX_POOL:
            places.append(len(trunk))
        trunk.append(MAX_POOL if layer == darknet19.MAX_POOL else convolutional(*layer))
    start = len(trunk)
    return trunk + [
        convolutional(filters("head/conv_0"), 1),
        convolutional(filters("head/conv_1"), 3),
        ("route", {"layers": str(places[int(darknet19.PASS_THROUGH.split("_")[1])])}),
        convolutional(4 * filters("head/reduce"), 2, stride=2, pad=0),
        ("route", {"layers": "{},{}".format(start + 3, start + 1)}),
        convolutional(filters("head/conv_2"), 3),
        convolutional((NUMBERS + 1) * len(anchors), 1, linear=True),
        ("region", OrderedDict([
            ("anchors", ",".join("{:.9g}".format(each) for each in anchors.ravel())),
            ("num", str(len(anchors))), ("classes", "1"), ("coords", "4"), ("softmax", "1")]))]


def convolutions(arrays: typing.Mapping[str, np.ndarray], anchors: int
                 ) -> typing.Iterator[Layer]:
    """The parts of the convolutions, in the order of :func:`sections`."""
    names = ["conv_{}".format(index) for index in range(len(darknet19.CONVOLUTIONS))]
    for name in names + [HEAD + "/conv_0", HEAD + "/conv_1"]:
        yield _layer(arrays, name)
    yield _with_stride(_layer(arrays, HEAD + "/reduce"))
    yield _layer(arrays, HEAD + "/conv_2")
    kernel, bias = arrays[LAST + "/kernel"], arrays[LAST + "/bias"]
    yield {"kernel": _with_class(kernel, anchors), "bias": _with_class(bias, anchors)}


def _layer(arrays, name):
    return {"kernel": arrays[name + "/kernel"], "beta": arrays[name + "/beta"],
            "gamma": arrays[name + "/gamma"], "mean": arrays[name + "/moving_mean"],
            "variance": raised(arrays[name + "/moving_variance"])}


def _with_stride(layer):
    """A layer of 1 x 1 and TensorFlow's space to depth as one convolution of 2 x 2."""
    filters = layer["kernel"].shape[-1]
    kernel = np.zeros((2, 2, layer["kernel"].shape[2], 4 * filters), np.float32)
    for place in range(4):
        kernel[place // 2, place % 2, :, place * filters:(place + 1) * filters] = layer[
            "kernel"][0, 0]
    return dict({part: np.tile(array, 4) for part, array in layer.items() if part != "kernel"},
                kernel=kernel)


def _with_class(array, anchors):
    """The output with a class's logit of 0 after each anchor's five numbers."""
    numbers = array.reshape(array.shape[:-1] + (anchors, NUMBERS))
    padded = np.concatenate([numbers, np.zeros_like(numbers[..., :1])], -1)
    return padded.reshape(array.shape[:-1] + (-1,))


def _check(net, graph_def, anchors, images):
    """Compare all boxes and scores before their suppression; returns the scores' difference."""
    graph = tf.Graph()
    largest = 0.0
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
        results = decode(graph.get_tensor_by_name(LAST + "/BiasAdd:0"), tf.constant(anchors))
    with new_session(graph) as session:
        for image in images:
            boxes, scores = (each.reshape(-1, each.shape[-1]) for each in _run(
                session, results, image))
            net.setInput(cv2.dnn.blobFromImage(image, 1 / 255.0))
            found = net.forward().reshape(len(boxes), -1)
            corners = np.concatenate([found[:, :2] - found[:, 2:4] / 2,
                                      found[:, :2] + found[:, 2:4] / 2], 1)
            difference = float(np.abs(found[:, 4:5] - scores).max())
            check_difference(NAME + ".weights", "OpenCV's score", difference, SCORE_BOUND)
            check_difference(NAME + ".weights", "OpenCV's box",
                             float(np.abs(corners - boxes).max()), BOX_BOUND)
            largest = max(largest, difference)
    return largest


def _run(session, results, image):
    boxes, scores = session.run(results, {"input:0": image[None] / np.float32(255)})
    return boxes, scores[..., None]
