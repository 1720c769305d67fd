"""A one-pass detector in a file: a compact ``.npz`` of its weights, or a frozen graph.

The ``.npz`` is the released form. Its arrays are named as the graph's variables
(``conv_0/kernel``, ``head/stride_8/output/bias``), and its metadata say what network they belong
to: see :class:`Spec`. The frozen graph has the placeholder ``input`` (float32, [n, height, width,
3], RGB 0..1, sides multiples of 32) and the results ``boxes`` (float32, [n, cells, 4], left, top,
right, bottom in pixels of the input) and ``scores`` (float32, [n, cells]), before non-maximum
suppression.
"""

from __future__ import annotations

import dataclasses
import json
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.detection.calibration import Calibration
from darknet_face.detection.pyramid import (
    CHANNELS,
    build_network,
    decode,
    network_variables,
    variable_shapes,
)
from darknet_face.engines.tensorflow_classifier import without_newer_attributes
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights.arrays import set_variables
from darknet_face.weights.graph_checks import check_same
from darknet_face.weights.graph_files import read_graph_def
from darknet_face.weights.npz import open_npz, read_metadata, write_npz

HEAD_NAME = "pyramid"
OUTPUTS = ("boxes", "scores")
TRAIN = "run train_detector.py"
AGAIN = TRAIN + " again"
MOST_CHANNELS = 1024
LARGEST_SIZE = 2048
NOTE = "detector"  # the node of a frozen graph that holds the metadata


@dataclasses.dataclass(frozen=True)
class Spec:
    """What network the weights belong to, and how it is to be used.

    width and channels are those of :func:`darknet_face.detection.pyramid.build_network`;
    image_size is the longer side that images are scaled to; threshold the lowest score of a face;
    step and ap50 tell of the training: its updates, and the validation's average precision at IoU
    0.5 (-1 if it was not measured). run names the training that the weights are of. calibration
    makes probabilities of its scores, if calibrate.py has fitted one.
    """

    width: float = 0.25
    channels: int = CHANNELS
    image_size: int = 416
    threshold: float = 0.5
    step: int = 0
    ap50: float = -1.0
    run: str = ""
    calibration: Calibration | None = None

    def check(self, path: str) -> None:
        """Raise UserError for a value of another kind or out of range."""
        bounds = {"width": (0.01, 4), "channels": (1, MOST_CHANNELS),
                  "image_size": (32, LARGEST_SIZE), "threshold": (0, 1), "step": (0, 1 << 53),
                  "ap50": (-1, 1)}
        for name, (low, high) in bounds.items():
            value, kinds = getattr(self, name), (
                int if isinstance(getattr(Spec, name), int) else (int, float))
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise UserError("{}: no usable {}: {}; {}".format(
                    path, name, ascii(value)[:40], AGAIN))
        if self.image_size % 32 or not isinstance(self.run, str) or len(self.run) > 64:
            raise UserError("{}: no usable image_size or run; {}".format(path, AGAIN))


def write_detector(path: str, weights: dict, spec: Spec, dtype: typing.Any = np.float16) -> None:
    """Write a detector as ``.npz``."""
    write_npz(path, weights, dtype, dict(dataclasses.asdict(spec), detector=HEAD_NAME))


def write_frozen(path: str, weights: dict, spec: Spec) -> None:
    """Write a detector as a frozen graph."""
    graph_def = detector_graph(weights, spec)
    text = json.dumps(dict(dataclasses.asdict(spec), detector=HEAD_NAME), sort_keys=True)
    graph_def.node.add(op="NoOp", name=NOTE, attr={
        "_metadata": tf.AttrValue(s=text.encode("utf-8"))})
    with write_atomically(path) as stream:
        stream.write(graph_def.SerializeToString(deterministic=True))


def read_detector(path: str) -> tuple[dict[str, np.ndarray], Spec]:
    """Read a detector that :func:`write_detector` or :func:`write_frozen` wrote.

    Returns
    -------
    weights
        float32 arrays by the names of the graph's variables.
    spec

    Raises
    ------
    UserError
        Missing, damaged, another kind of file, or a graph with anything else in it.
    """
    if path.lower().endswith(".pb"):
        return _read_frozen(path)
    with open_npz(path, TRAIN) as (arrays, metadata):
        spec = _spec(path, metadata)
        shapes = variable_shapes(spec.width, spec.channels)
        for name in sorted(set(shapes) | set(arrays)):
            if name not in arrays or name not in shapes:
                raise UserError("{}: {} is {}; {}".format(
                    path, ascii(name)[:60], "missing" if name in shapes else "no part of it",
                    AGAIN))
            if tuple(arrays[name].shape) != shapes[name] or arrays[name].dtype not in (
                    np.float16, np.float32):
                raise UserError("{}: {}: expected float {}, found {} {}; {}".format(
                    path, name, list(shapes[name]), arrays[name].dtype, list(arrays[name].shape),
                    AGAIN))
        weights = {name: np.asarray(arrays[name].load(), np.float32) for name in shapes}
    return check_numbers(weights, path), spec


def is_detector(path: str) -> bool:
    """Whether a file is a detector of this kind, by its metadata."""
    try:
        read_spec(path)
    except UserError:
        return False
    return True


def read_spec(path: str) -> Spec:
    """The metadata of a detector's file, without its weights; raises UserError."""
    if not path.lower().endswith(".pb"):
        return _spec(path, read_metadata(path, TRAIN))
    notes = [node for node in read_graph_def(path, TRAIN).node if node.name == NOTE]
    try:
        content = json.loads(notes[0].attr["_metadata"].s.decode("utf-8"))
    except (IndexError, ValueError, RecursionError):
        content = {}
    return _spec(path, content if isinstance(content, dict) else {})


def _spec(path, content):
    if content.get("detector") != HEAD_NAME:
        raise UserError("{}: not a detector of train_detector.py; name its file".format(path))
    values = {each.name: content.get(each.name, each.default) for each in dataclasses.fields(Spec)}
    if values["calibration"] is not None:
        values["calibration"] = Calibration.parse(values["calibration"], path)
    spec = Spec(**values)
    spec.check(path)
    return spec


def _read_frozen(path):
    spec, graph_def = read_spec(path), read_graph_def(path, TRAIN)
    shapes = variable_shapes(spec.width, spec.channels)
    graph = tf.Graph()
    with graph.as_default():
        _add_detector(spec)
    try:
        nodes = [node for node in graph_def.node if node.name != NOTE or node.op != "NoOp"]
        del graph_def.node[:]
        graph_def.node.extend(nodes)
        check_same(graph_def, graph.as_graph_def(), OUTPUTS, shapes)
        weights = {node.name: tf.make_ndarray(node.attr["value"].tensor)
                   for node in graph_def.node if node.name in shapes}
    except (ValueError, KeyError, IndexError, TypeError, AssertionError,
            tf.errors.OpError) as error:
        raise UserError("{}: not a frozen graph of this detector ({}); {}".format(
            path, getattr(error, "message", str(error)).partition("\n")[0], AGAIN))
    return check_numbers(weights, path), spec


def check_numbers(weights: dict, path: str) -> dict:
    """The weights, if all can be computed with; raises UserError."""
    for name, array in weights.items():
        if not np.isfinite(array).all() or np.abs(array).max(initial=0) > 1e18:
            raise UserError("{}: {} holds a number that is not finite or too large; {}".format(
                path, name, AGAIN))
        if name.endswith("/moving_variance") and array.min() < 0:
            raise UserError("{}: {}: a negative variance; {}".format(path, name, AGAIN))
    return weights


def detector_graph(weights: dict, spec: Spec) -> typing.Any:
    """The detector as a frozen graph, a tf.GraphDef; see the head of this file."""
    graph = tf.Graph()
    with graph.as_default(), new_session(graph, 1) as session:
        _add_detector(spec)
        set_variables(session, {each: weights[each.op.name] for each in network_variables()})
        return without_newer_attributes(tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), list(OUTPUTS)))


def _add_detector(spec):
    images = tf.placeholder(tf.float32, [None, None, None, 3], "input")
    output = build_network(images, spec.width, spec.channels)
    shape = tf.shape(images)
    tf.identity(decode(output, shape[1], shape[2]), "boxes")
    tf.sigmoid(output[..., 0], "scores")
