"""The network in a session that turns images into class probabilities: built, loaded, made fast.

For speed, batch norm is folded into the convolutions; no file holds a folded graph.
"""

from __future__ import annotations

import collections
import typing

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.engine import Engine, finite
from darknet_face.runtime.session import explain_memory_errors, new_session, tf
from darknet_face.weights.arrays import assign, width_of

OUTPUTS = ["logits", "probabilities"]
# What TensorFlow 2 adds to two operations.
NEWER_ATTRIBUTES = (("FusedBatchNormV3", "exponential_avg_factor"),
                    ("MaxPool", "explicit_paddings"))
Weights = typing.Mapping[str, np.ndarray]


class Classifier(Engine):
    """A graph in a session of its own; see :class:`darknet_face.engines.engine.Engine`.

    Parameters
    ----------
    session : tf.Session
        With the tensors ``input:0``, ``logits:0`` (a mean over the class map) and
        ``probabilities:0``.
    image_size
        That of the input if absent.
    """

    name = "tensorflow"

    def __init__(self, session: typing.Any, image_size: int | None = None) -> None:
        tensor = session.graph.get_tensor_by_name
        self.session, self.input = session, tensor("input:0")
        self.probabilities, self.logits = tensor("probabilities:0"), tensor("logits:0")
        super().__init__(image_size or self.input.shape.as_list()[1])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return finite(self._run(self.probabilities, images))

    def class_map(self, images: np.ndarray) -> np.ndarray:
        return self._run(self.logits.op.inputs[0], images)

    def _run(self, tensor: typing.Any, images: np.ndarray) -> np.ndarray:
        try:
            with explain_memory_errors("use a smaller --batch-size, --image-size or --search"):
                return self.session.run(tensor, {self.input: images / np.float32(255)})
        except (tf.errors.OpError, ValueError) as error:
            cause = getattr(error, "message", str(error)).splitlines()[0]
            raise UserError("the network can't be run on {} images of {} x {} ({}); use a smaller "
                            "--batch-size or another --image-size".format(
                                *images.shape[:3] + (cause,)), exit_code=1)

    def close(self) -> None:
        self.session.close()


def build_classifier(image_size: int | None, threads: int | None = None,
                     precision: str = "float32", width: float = 1.0) -> Classifier:
    """Build the inference graph; its variables are not yet set.

    Parameters
    ----------
    image_size
        Height and width, a multiple of 32; None leaves them open.
    threads, precision
        See :func:`darknet_face.runtime.session.new_session`.
    width
        The share of the filters; see :func:`darknet19.build`.
    """
    graph = tf.Graph()
    with graph.as_default():
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3], name="input")
        logits, _ = darknet19.build(images, training=False, width=width)
        tf.nn.softmax(logits, name="probabilities")
    return Classifier(new_session(graph, threads, precision, fuse=False))


def classifier_from_weights(weights: Weights, image_size: int | None, threads: int | None = None,
                            precision: str = "float32") -> Classifier:
    """Build the inference graph and set its variables to the given weights."""
    classifier = build_classifier(image_size, threads, precision, width_of(weights))
    assign(classifier.session, weights)
    return classifier


def folded_classifier(weights: Weights, image_size: int, threads: int | None = None,
                      precision: str = "float32") -> Classifier:
    """The same for images of any size, made fast: see :func:`fold_batch_norm`."""
    with classifier_from_weights(weights, None, threads) as classifier:
        graph_def = with_constants(classifier)
    return import_classifier(fold_batch_norm(graph_def), threads, precision, image_size)


def with_constants(classifier: Classifier) -> typing.Any:
    """The classifier's graph with constants in place of its variables, a tf.GraphDef.

    Either TensorFlow can import it.
    """
    session = classifier.session
    return without_newer_attributes(tf.graph_util.convert_variables_to_constants(
        session, session.graph.as_graph_def(), OUTPUTS))


def without_newer_attributes(graph_def: typing.Any) -> typing.Any:
    """Remove from a graph, in place, the attributes that TensorFlow 1.15 refuses; return it.

    Without them TensorFlow 2 takes its defaults, which are what TensorFlow 1.15 does.
    """
    for node in graph_def.node:
        for operation, name in NEWER_ATTRIBUTES:
            if node.op == operation and name in node.attr:
                del node.attr[name]
    return graph_def


def import_classifier(graph_def: typing.Any, threads: int | None = None,
                      precision: str = "float32", image_size: int | None = None) -> Classifier:
    """A classifier from a graph with constants for weights."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return Classifier(new_session(graph, threads, precision), image_size)


def fold_batch_norm(graph_def: typing.Any, outputs: typing.Sequence[str] = OUTPUTS) -> typing.Any:
    """Fold each batch norm that follows a convolution into the convolution's kernel and a bias.

    With the statistics fixed, ``gamma (k * x - mean) / sqrt(variance + epsilon) + beta`` is the
    convolution with ``k gamma / sqrt(variance + epsilon)``, plus a bias: the same answers but for
    rounding, and one pass less over every layer's output.

    Parameters
    ----------
    graph_def : tf.GraphDef
        For inference, with constants for weights; not changed.
    outputs
        The names of the operations to keep, with all that they need.

    Returns
    -------
    tf.GraphDef
        With the same input and outputs. A batch norm that follows no convolution stays.
    """
    nodes = {node.name: node for node in graph_def.node}
    uses = collections.Counter(name for node in graph_def.node for name in node.input)
    folded = tf.GraphDef()
    folded.CopyFrom(graph_def)
    for node in list(folded.node):
        convolution = nodes.get(node.input[0]) if node.op.startswith("FusedBatchNorm") else None
        if (convolution is None or convolution.op != "Conv2D" or uses[convolution.name] != 1
                or node.attr["is_training"].b):
            continue
        gamma, beta, mean, variance = (
            _constant(nodes, name).astype(np.float64) for name in node.input[1:])
        scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
        kernel, bias = node.name + "/folded_kernel", node.name + "/folded_bias"
        _add_constant(folded, kernel, _constant(nodes, convolution.input[1]) * scale)
        _add_constant(folded, bias, beta - mean * scale)
        data_format = convolution.attr["data_format"]
        folded.node.add(op="Conv2D", name=node.name + "/folded", attr=convolution.attr,
                        input=[convolution.input[0], kernel])
        node.CopyFrom(tf.NodeDef(
            op="BiasAdd", name=node.name, input=[node.name + "/folded", bias],
            attr={"T": convolution.attr["T"], "data_format": data_format}))
    return tf.graph_util.extract_sub_graph(folded, list(outputs))  # without what was replaced


def _constant(nodes: typing.Mapping[str, typing.Any], name: str) -> np.ndarray:
    """The value of a constant, through the identities that stood between it and its readers."""
    node = nodes[name]
    while node.op == "Identity":
        node = nodes[node.input[0]]
    return tf.make_ndarray(node.attr["value"].tensor)


def _add_constant(graph_def: typing.Any, name: str, value: np.ndarray) -> None:
    tensor = tf.make_tensor_proto(value.astype(np.float32))
    graph_def.node.add(op="Const", name=name, attr={
        "dtype": tf.AttrValue(type=tensor.dtype), "value": tf.AttrValue(tensor=tensor)})
