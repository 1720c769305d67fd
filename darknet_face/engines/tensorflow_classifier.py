"""The network in a session that turns images into class probabilities: built, loaded, made fast.

For speed, batch norm is folded into the convolutions; no file holds a folded graph.
"""

from __future__ import annotations

import collections

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights.arrays import assign

OUTPUTS = ["logits", "probabilities"]
# What TensorFlow 2 adds to two operations.
NEWER_ATTRIBUTES = (("FusedBatchNormV3", "exponential_avg_factor"),
                    ("MaxPool", "explicit_paddings"))


class Classifier:
    """A graph in a session of its own that turns images into class probabilities.

    Parameters
    ----------
    session : tf.Session
        With the tensors ``input:0``, ``logits:0`` and ``probabilities:0``.
    """

    def __init__(self, session):
        self.session = session
        self.input = session.graph.get_tensor_by_name("input:0")
        self.probabilities = session.graph.get_tensor_by_name("probabilities:0")

    @property
    def image_size(self):
        """Height and width of the input in pixels; None if any size will do."""
        return self.input.shape.as_list()[1]

    def __call__(self, images):
        """Classify a batch.

        Parameters
        ----------
        images : numpy.ndarray
            uint8, [batch, height, width, 3], RGB.

        Returns
        -------
        numpy.ndarray
            float32, [batch, 2]: the probabilities of FACE and NON_FACE.

        Raises
        ------
        UserError
            When TensorFlow fails, most likely for want of memory.
        """
        try:
            return self.session.run(
                self.probabilities, {self.input: images.astype(np.float32) / np.float32(255)})
        except (tf.errors.OpError, ValueError) as error:
            cause = getattr(error, "message", str(error)).splitlines()[0]
            raise UserError("the network can't be run on {} images of {} x {} ({}); use a smaller "
                            "--batch-size or another --image-size".format(
                                *images.shape[:3] + (cause,)), exit_code=1)


def build_classifier(image_size, threads=None, precision="float32"):
    """Build the inference graph; its variables are not yet set.

    Parameters
    ----------
    image_size : int or None
        Height and width, a multiple of 32; None leaves them open.
    threads, precision
        See :func:`darknet_face.runtime.session.new_session`.

    Returns
    -------
    Classifier
    """
    graph = tf.Graph()
    with graph.as_default():
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3], name="input")
        logits, _ = darknet19.build(images, training=False)
        tf.nn.softmax(logits, name="probabilities")
    return Classifier(new_session(graph, threads, precision))


def classifier_from_weights(weights, image_size, threads=None, precision="float32"):
    """Build the inference graph and set its variables to the given weights."""
    classifier = build_classifier(image_size, threads, precision)
    assign(classifier.session, weights)
    return classifier


def folded_classifier(weights, image_size, threads=None, precision="float32"):
    """The same, made fast: see :func:`fold_batch_norm`."""
    classifier = classifier_from_weights(weights, image_size, threads)
    with classifier.session:
        graph_def = with_constants(classifier)
    return import_classifier(fold_batch_norm(graph_def), threads, precision)


def with_constants(classifier):
    """The classifier's graph with constants in place of its variables, a tf.GraphDef.

    Either TensorFlow can import it.
    """
    session = classifier.session
    return without_newer_attributes(tf.graph_util.convert_variables_to_constants(
        session, session.graph.as_graph_def(), OUTPUTS))


def without_newer_attributes(graph_def):
    """Remove from a graph, in place, the attributes that TensorFlow 1.15 refuses; return it.

    Without them TensorFlow 2 takes its defaults, which are what TensorFlow 1.15 does.
    """
    for node in graph_def.node:
        for operation, name in NEWER_ATTRIBUTES:
            if node.op == operation and name in node.attr:
                del node.attr[name]
    return graph_def


def import_classifier(graph_def, threads=None, precision="float32"):
    """A classifier from a graph with constants for weights."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return Classifier(new_session(graph, threads, precision))


def fold_batch_norm(graph_def, outputs=tuple(OUTPUTS)):
    """Fold each batch norm that follows a convolution into the convolution's kernel and a bias.

    With the statistics fixed, ``gamma (k * x - mean) / sqrt(variance + epsilon) + beta`` is the
    convolution with ``k gamma / sqrt(variance + epsilon)``, plus a bias: the same answers but for
    rounding, and one pass less over every layer's output.

    Parameters
    ----------
    graph_def : tf.GraphDef
        For inference, with constants for weights; not changed.
    outputs : sequence of str
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


def _constant(nodes, name):
    """The value of a constant, through the identities that stood between it and its readers."""
    node = nodes[name]
    while node.op == "Identity":
        node = nodes[node.input[0]]
    return tf.make_ndarray(node.attr["value"].tensor)


def _add_constant(graph_def, name, value):
    tensor = tf.make_tensor_proto(value.astype(np.float32))
    graph_def.node.add(op="Const", name=name, attr={
        "dtype": tf.AttrValue(type=tensor.dtype), "value": tf.AttrValue(tensor=tensor)})
