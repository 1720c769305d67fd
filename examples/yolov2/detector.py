"""A trained detector as one frozen graph: write it, read it, find faces with it.

In the graph: placeholder ``input`` (float32, [1, height, width, 3], RGB 0..1, sides multiples of
32), ``min_score`` and ``nms_iou`` (scalars with defaults), and the results ``boxes`` (float32,
[n, 4], left, top, right, bottom as shares of the sides) and ``scores`` ([n], best first).
"""

import numpy as np

from examples.yolov2.boxes import MIN_SCORE, NMS_IOU, detections
from examples.yolov2.network import build_head, build_trunk
from model.graph_files import read_graph_def
from pictures.decode import resize
from runtime.files import write_atomically
from runtime.session import new_session, tf
from utils import UserError

DEFAULT = "saved_models/yolov2_face.pb"
DEFAULT_SIZE = 320
# A graph is a program, so only what the detector needs is run.
OPERATIONS = {
    "Add", "AddV2", "BatchMatMulV2", "BiasAdd", "Cast", "ConcatV2", "Const", "Conv2D", "Exp",
    "ExpandDims", "Fill", "FusedBatchNorm", "FusedBatchNormV3", "GatherV2", "Identity",
    "LeakyRelu", "Less", "MaxPool", "Maximum", "Minimum", "Mul", "NonMaxSuppressionV3", "Pack",
    "Placeholder", "PlaceholderWithDefault", "Range", "RealDiv", "Reshape", "Shape", "Sigmoid",
    "Size", "SpaceToDepth", "StridedSlice", "Sub", "Tile",
}


def build_detector(anchors):
    """Add the detector to the default graph; the names are those of the frozen graph."""
    images = tf.placeholder(tf.float32, [1, None, None, 3], name="input")
    min_score = tf.placeholder_with_default(tf.constant(MIN_SCORE), [], name="min_score")
    nms_iou = tf.placeholder_with_default(tf.constant(NMS_IOU), [], name="nms_iou")
    output = build_head(*build_trunk(images), anchors=len(anchors))
    return detections(output, np.asarray(anchors, np.float32), min_score, nms_iou)


def freeze(checkpoint, anchors, path):
    """Write a checkpoint of train.py as a frozen graph.

    Parameters
    ----------
    checkpoint : str
        Its prefix.
    anchors : sequence of (float, float)
    path : str
        The ``.pb``.
    """
    graph = tf.Graph()
    with graph.as_default(), new_session(graph) as session:
        build_detector(anchors)
        # The classifier's last layer is built with the trunk, but no result depends on it.
        tf.train.Saver(saved_variables()).restore(session, checkpoint)
        frozen = tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), ["boxes", "scores"])
    with write_atomically(path) as stream:
        stream.write(frozen.SerializeToString(deterministic=True))


def saved_variables():
    """All variables of the detector but those of the classifier's last layer."""
    return [each for each in tf.global_variables() if not each.op.name.startswith("conv_18/")]


class Detector:
    """Finds faces by a frozen graph. Use it as a context manager.

    Parameters
    ----------
    path : str
        The ``.pb``.
    image_size : int
        Pictures are stretched to this height and width, a multiple of 32.
    min_score, nms_iou : float
        See :func:`examples.yolov2.boxes.detections`.
    precision : str
        See :func:`runtime.session.new_session`.

    Raises
    ------
    UserError
        Missing, damaged or another graph.
    """

    def __init__(self, path, image_size=DEFAULT_SIZE, min_score=MIN_SCORE, nms_iou=NMS_IOU,
                 precision="float32"):
        graph_def = read_graph_def(path)
        graph = tf.Graph()
        try:
            _check(graph_def)
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
            self._results = [graph.get_tensor_by_name(name) for name in ("boxes:0", "scores:0")]
            self._feeds = [graph.get_tensor_by_name(name + ":0")
                           for name in ("input", "min_score", "nms_iou")]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("{}: not a graph of this detector ({}); run "
                            "python -m examples.yolov2.train".format(path, error))
        self._size, self._settings = image_size, (min_score, nms_iou)
        self._path, self._session = path, new_session(graph, precision=precision)

    def __call__(self, image):
        """Find the faces of a picture.

        Parameters
        ----------
        image : numpy.ndarray
            uint8, [any height, any width, 3], RGB.

        Returns
        -------
        boxes : numpy.ndarray
            float32, [n, 4], left, top, right, bottom as shares of the picture's sides.
        scores : numpy.ndarray
            float32, [n], best first.
        """
        picture = resize(image, self._size, self._size)[None] / np.float32(255)
        try:
            return self._session.run(
                self._results, dict(zip(self._feeds, (picture,) + self._settings)))
        except tf.errors.InvalidArgumentError as error:
            raise UserError("{}: a damaged graph ({})".format(
                self._path, error.message.partition("\n")[0]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()


def _check(graph_def):
    foreign = sorted({node.op for node in graph_def.node} - OPERATIONS)
    if foreign:
        raise ValueError("it has " + ", ".join(foreign))
    if graph_def.library.function:
        raise ValueError("it has functions")
