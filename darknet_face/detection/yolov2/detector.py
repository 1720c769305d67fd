"""A trained detector as one frozen graph: write it, read it, find faces with it.

In the graph: placeholder ``input`` (float32, [1, height, width, 3], RGB 0..1, sides multiples of
32), ``min_score`` and ``nms_iou`` (scalars with defaults), and the results ``boxes`` (float32,
[n, 4], left, top, right, bottom as shares of the sides) and ``scores`` ([n], best first).
"""

from __future__ import annotations

import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.detection.yolov2.boxes import MIN_SCORE, NMS_IOU, detections
from darknet_face.detection.yolov2.network import build_head, build_trunk
from darknet_face.engines.tensorflow_classifier import without_newer_attributes
from darknet_face.images.resize import resize
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights.checkpoints import cause, restore_checkpoint
from darknet_face.weights.graph_checks import check_same
from darknet_face.weights.graph_files import read_graph_def

DEFAULT = "saved_models/yolov2_face.pb"
DEFAULT_SIZE = 320
MOST_ANCHORS, LARGEST_ANCHOR = 20, 1000.0
OUTPUTS = ("boxes", "scores")
TRAIN = "run train_detector.py --head yolov2"
AGAIN = TRAIN + " again"


def build_detector(anchors: typing.Any) -> tuple[typing.Any, typing.Any]:
    """Add the detector to the default graph; the names are those of the frozen graph.

    Parameters
    ----------
    anchors
        [k, 2], widths and heights, in cells.

    Returns
    -------
    boxes, scores
        See :func:`darknet_face.detection.yolov2.boxes.detections`.
    """
    images = tf.placeholder(tf.float32, [1, None, None, 3], name="input")
    min_score = tf.placeholder_with_default(tf.constant(MIN_SCORE), [], name="min_score")
    nms_iou = tf.placeholder_with_default(tf.constant(NMS_IOU), [], name="nms_iou")
    pass_through, trunk = build_trunk(images)
    output = build_head(pass_through, trunk, len(anchors))
    anchors = tf.constant(np.asarray(anchors, np.float32), name="anchors")
    return detections(output, anchors, min_score, nms_iou)


def freeze(checkpoint: str, anchors: typing.Any, path: str) -> None:
    """Write a checkpoint of train.py as a frozen graph.

    Parameters
    ----------
    checkpoint
        Its prefix.
    anchors
        [k, 2], widths and heights, in cells.
    path
        The ``.pb``.
    """
    graph = tf.Graph()
    with graph.as_default(), new_session(graph) as session:
        build_detector(anchors)
        # The classifier's last layer is built with the trunk, but no result depends on it.
        restore_checkpoint(tf.train.Saver(saved_variables()), session, checkpoint,
                           "train again")
        frozen = without_newer_attributes(tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), list(OUTPUTS)))
    with write_atomically(path) as stream:
        stream.write(frozen.SerializeToString(deterministic=True))


def is_detector(path: str) -> bool:
    """Whether a file is a frozen graph of a detector, by the names of its results."""
    try:
        names = {node.name for node in read_graph_def(path).node}
    except UserError:
        return False
    return {"input", "min_score", "nms_iou", "boxes", "scores"} <= names


def saved_variables() -> list[typing.Any]:
    """All variables of the detector but those of the classifier's last layer."""
    return [each for each in tf.global_variables() if not each.op.name.startswith("conv_18/")]


class Detector:
    """Finds faces by a frozen graph. Use it as a context manager.

    Parameters
    ----------
    path
        The ``.pb``.
    image_size
        Images are stretched to this height and width, in pixels, a multiple of 32.
    min_score, nms_iou
        See :func:`darknet_face.detection.yolov2.boxes.detections`.
    precision
        See :func:`darknet_face.runtime.session.new_session`.

    Raises
    ------
    UserError
        Missing, damaged or another graph.
    """

    def __init__(self, path: str, image_size: int = DEFAULT_SIZE, min_score: float = MIN_SCORE,
                 nms_iou: float = NMS_IOU, precision: str = "float32") -> None:
        graph_def = without_newer_attributes(read_graph_def(path, TRAIN))
        graph = tf.Graph()
        try:
            _check_graph(graph_def)
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
            self._results = [name + ":0" for name in OUTPUTS]
            self._feeds = ["input:0", "min_score:0", "nms_iou:0"]
            self._session = new_session(graph, precision=precision)
            _check_answers(self._session, self._feeds[0])
        except (ValueError, KeyError, IndexError, TypeError, AssertionError,
                tf.errors.OpError) as error:
            raise UserError("{}: not a graph of this detector ({}); {}".format(
                path, cause(error), AGAIN))
        self._path, self._size, self._settings = path, image_size, (min_score, nms_iou)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the faces of an image: as :class:`darknet_face.detection.detector.OnePassDetector`.
        """
        resized = resize(image, self._size, self._size)[None] / np.float32(255)
        try:
            boxes, scores = self._session.run(
                self._results, dict(zip(self._feeds, (resized,) + self._settings)))
            return boxes, scores
        except tf.errors.ResourceExhaustedError:
            raise  # too little memory, which is not the graph's fault
        except tf.errors.OpError as error:
            raise UserError("{}: a damaged graph ({}); {}".format(
                self._path, cause(error), AGAIN))

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def _check_graph(graph_def: typing.Any) -> None:
    """Check a graph before it is imported: it must be what :func:`build_detector` builds."""
    anchors = [node.attr["value"].tensor for node in graph_def.node
               if node.name == "anchors" and node.op == "Const"]
    sizes = [dimension.size for dimension in anchors[0].tensor_shape.dim] if anchors else []
    if len(sizes) != 2 or not 1 <= sizes[0] <= MOST_ANCHORS or sizes[1] != 2:
        raise ValueError("it has no anchors")
    values = tf.make_ndarray(anchors[0])
    if values.dtype != np.float32 or not ((values > 0) & (values <= LARGEST_ANCHOR)).all():
        raise ValueError("its anchors are out of range")
    graph = tf.Graph()
    with graph.as_default():
        build_detector(values)
        shapes = {each.op.name: each.shape.as_list() for each in saved_variables()}
    check_same(graph_def, graph.as_graph_def(), OUTPUTS, shapes)
    for node in graph_def.node:
        if node.name in shapes and not np.isfinite(
                tf.make_ndarray(node.attr["value"].tensor)).all():
            raise ValueError("{} holds a number that is not finite".format(node.name))


def _check_answers(session: typing.Any, image_input: str) -> None:
    """Run the layers on noise: finite weights of 1e38 give numbers that are not."""
    noise = np.random.RandomState(0).rand(1, 64, 64, 3).astype(np.float32)
    layers = [each.outputs[0] for each in session.graph.get_operations() if each.type == "BiasAdd"]
    if not layers or not all(
            np.isfinite(each).all() for each in session.run(layers, {image_input: noise})):
        raise ValueError("its answers are not finite numbers")
