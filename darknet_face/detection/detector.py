"""A trained detector as one frozen graph: write it, read it, find faces with it.

In the graph: placeholder ``input`` (float32, [1, height, width, 3], RGB 0..1, sides multiples of
32), ``min_score`` and ``nms_iou`` (scalars with defaults), and the results ``boxes`` (float32,
[n, 4], left, top, right, bottom as shares of the sides) and ``scores`` ([n], best first).
"""

from __future__ import annotations

import numpy as np

from darknet_face.console import UserError
from darknet_face.detection.boxes import MIN_SCORE, NMS_IOU, detections
from darknet_face.detection.network import build_head, build_trunk
from darknet_face.engines.tensorflow_classifier import without_newer_attributes
from darknet_face.images.decode import resize
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights.checkpoints import cause, restore_checkpoint
from darknet_face.weights.graph_files import read_graph_def

DEFAULT = "saved_models/yolov2_face.pb"
DEFAULT_SIZE = 320
MAX_ELEMENTS = 10 ** 8  # of all constants together, and of any tensor; the network has half of it
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
        In cells.
    path : str
        The ``.pb``.
    """
    graph = tf.Graph()
    with graph.as_default(), new_session(graph) as session:
        build_detector(anchors)
        # The classifier's last layer is built with the trunk, but no result depends on it.
        restore_checkpoint(tf.train.Saver(saved_variables()), session, checkpoint,
                           "train again")
        frozen = without_newer_attributes(tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), ["boxes", "scores"]))
    with write_atomically(path) as stream:
        stream.write(frozen.SerializeToString(deterministic=True))


def is_detector(path):
    """Whether a file is a frozen graph of a detector, by the names of its results."""
    try:
        names = {node.name for node in read_graph_def(path).node}
    except UserError:
        return False
    return {"input", "min_score", "nms_iou", "boxes", "scores"} <= names


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
        See :func:`darknet_face.detection.boxes.detections`.
    precision : str
        See :func:`darknet_face.runtime.session.new_session`.

    Raises
    ------
    UserError
        Missing, damaged or another graph.
    """

    def __init__(self, path, image_size=DEFAULT_SIZE, min_score=MIN_SCORE, nms_iou=NMS_IOU,
                 precision="float32"):
        graph_def = without_newer_attributes(read_graph_def(path))
        graph = tf.Graph()
        try:
            _check_graph(graph_def)
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
            self._results = [graph.get_tensor_by_name(name) for name in ("boxes:0", "scores:0")]
            self._feeds = [graph.get_tensor_by_name(name + ":0")
                           for name in ("input", "min_score", "nms_iou")]
            _check_tensors(graph, self._feeds, self._results)
            self._session = new_session(graph, precision=precision)
            _check_answers(self._session, self._feeds[0])
        except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise UserError("{}: not a graph of this detector ({}); run "
                            "python -m darknet_face.detection.train".format(path, cause(error)))
        self._path, self._size, self._settings = path, image_size, (min_score, nms_iou)

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
        except tf.errors.ResourceExhaustedError:
            raise  # too little memory, which is not the graph's fault
        except tf.errors.OpError as error:
            raise UserError("{}: a damaged graph ({}); run "
                            "python -m darknet_face.detection.train".format(
                                self._path, cause(error)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()


def _check_graph(graph_def):
    """Check a graph before it is imported: its operations, and what its constants claim."""
    foreign = sorted({node.op for node in graph_def.node} - OPERATIONS)
    if foreign:
        raise ValueError("it has " + ", ".join(foreign))
    if graph_def.library.function or graph_def.library.gradient:
        raise ValueError("it has functions")
    total = 0
    for node in graph_def.node:
        if node.device:
            raise ValueError("{} is bound to a device".format(node.name))
        if node.op == "Const":
            tensor, count = node.attr["value"].tensor, 1
            for dimension in tensor.tensor_shape.dim:
                count *= dimension.size if dimension.size >= 0 else MAX_ELEMENTS + 1
            total += count
            if total > MAX_ELEMENTS:
                raise ValueError("{} claims {:,} numbers".format(node.name, count))
            array = tf.make_ndarray(tensor)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError("{} holds a number that is not finite".format(node.name))


def _check_tensors(graph, feeds, results):
    """Check the imported graph: its input and results, and that no tensor is enormous."""
    wanted = [tf.TensorShape(shape) for shape in ([1, None, None, 3], [], [], [None, 4], [None])]
    for tensor, shape in zip(feeds + results, wanted):
        if tensor.dtype != tf.float32 or tensor.shape.as_list() != shape.as_list():
            raise ValueError("{} is {} of {}".format(tensor.name, tensor.dtype.name, tensor.shape))
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            if tensor.shape.is_fully_defined() and tensor.shape.num_elements() > MAX_ELEMENTS:
                raise ValueError("{} claims {:,} numbers".format(
                    tensor.name, tensor.shape.num_elements()))


def _check_answers(session, image_input):
    """Run the layers on noise: finite weights of 1e38 give numbers that are not."""
    noise = np.random.RandomState(0).rand(1, 64, 64, 3).astype(np.float32)
    layers = [each.outputs[0] for each in session.graph.get_operations() if each.type == "BiasAdd"]
    if not layers or not all(
            np.isfinite(each).all() for each in session.run(layers, {image_input: noise})):
        raise ValueError("its answers are not finite numbers")
