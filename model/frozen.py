"""The frozen graph: one ``.pb`` with the network and its weights, and a ``.json`` beside it.

In the graph: placeholder ``input`` (float32, [None, H, W, 3], RGB 0..1) and the tensors ``logits``
and ``probabilities`` ([None, 2], FACE first). It holds no training nodes: it is made from a graph
that was built for inference, never cut out of the training graph.

For speed, batch norm is folded into the convolutions when a graph is loaded; the file keeps it.
"""

import collections
import os

import numpy as np

import darknet19
from model import weights as weight_files
from runtime.session import new_session, tf
from utils import UserError, read_json, sha256, temporary_path, write_json

TOLERANCE = 1e-5  # largest difference in probability between a frozen graph and its checkpoint
OUTPUTS = ["logits", "probabilities"]
# All that the network is made of. A graph is a program: others could read and write files.
OPERATIONS = {"BiasAdd", "Const", "Conv2D", "FusedBatchNormV3", "Identity", "LeakyRelu", "MaxPool",
              "Mean", "Placeholder", "Softmax"}
# What TensorFlow 2 adds to two of them.
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
        """Height and width of the input."""
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
        """
        return self.session.run(
            self.probabilities, {self.input: images.astype(np.float32) / np.float32(255)})


def build_classifier(image_size, threads=None, precision="float32"):
    """A fresh inference graph, its variables not yet set.

    Parameters
    ----------
    image_size : int
        A multiple of 32.
    threads, precision
        See :func:`runtime.session.new_session`.

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
    """A fresh inference graph with the given weights in its variables."""
    classifier = build_classifier(image_size, threads, precision)
    weight_files.assign(classifier.session, weights)
    return classifier


def folded_classifier(weights, image_size, threads=None, precision="float32"):
    """A fresh inference graph with the given weights, made fast: see :func:`fold_batch_norm`."""
    classifier = classifier_from_weights(weights, image_size, threads)
    with classifier.session:
        graph_def = _with_constants(classifier)
    return _import(fold_batch_norm(graph_def), threads, precision)


def _with_constants(classifier):
    """The classifier's graph with constants in place of its variables, for either TensorFlow."""
    session = classifier.session
    graph_def = tf.graph_util.convert_variables_to_constants(
        session, session.graph.as_graph_def(), OUTPUTS)
    for node in graph_def.node:
        # TensorFlow 1.15 refuses these attributes; without them TensorFlow 2 takes its defaults.
        for operation, name in NEWER_ATTRIBUTES:
            if node.op == operation and name in node.attr:
                del node.attr[name]
    return graph_def


def _import(graph_def, threads, precision="float32"):
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return Classifier(new_session(graph, threads, precision))


def fold_batch_norm(graph_def):
    """Fold each batch norm that follows a convolution into the convolution's kernel and a bias.

    With the statistics fixed, ``gamma (k * x - mean) / sqrt(variance + epsilon) + beta`` is the
    convolution with ``k gamma / sqrt(variance + epsilon)``, plus a bias: the same answers but for
    rounding, and one pass less over every layer's output.

    Parameters
    ----------
    graph_def : tf.GraphDef
        For inference, with constants for weights; not changed.

    Returns
    -------
    tf.GraphDef
        With the same input and outputs. Batch norms that don't follow a convolution stay.
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
    return tf.graph_util.extract_sub_graph(folded, OUTPUTS)  # without what was replaced


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


def load(path, threads=None, fold=True, precision="float32"):
    """Load a frozen graph.

    Parameters
    ----------
    path : str
        The ``.pb``; its ``.json`` is checked against it where there is one.
    threads, precision
        See :func:`runtime.session.new_session`.
    fold : bool
        Fold batch norm into the convolutions, for speed; False runs the file as it is.

    Returns
    -------
    Classifier

    Raises
    ------
    UserError
        Missing or damaged, without the expected tensors, with other operations than
        :data:`OPERATIONS`, or not the file that its ``.json`` was written for.
    """
    graph_def = weight_files.read_graph_def(path)
    metadata_path = os.path.splitext(path)[0] + ".json"
    if os.path.exists(metadata_path):
        expected = read_json(metadata_path, "run train.py anew").get("sha256")
        if expected != sha256(path):
            raise UserError("{}: not the file that {} describes (SHA-256 differs); run train.py "
                            "to write both anew".format(path, metadata_path))
    foreign = sorted({node.op for node in graph_def.node} - OPERATIONS)
    if foreign:
        raise UserError("{}: not a frozen graph of this project (it has {}); run train.py "
                        "anew".format(path, ", ".join(foreign)))
    try:
        return _import(fold_batch_norm(graph_def) if fold else graph_def, threads,
                       precision)
    except (ValueError, KeyError, IndexError, TypeError, AssertionError,
            tf.errors.OpError) as error:
        raise UserError("{}: not a frozen graph of this project ({}); run train.py anew".format(
            path, error))


def freeze(classifier, path, images, metadata):
    """Write the classifier as a frozen graph, checked against it before it takes its name.

    Parameters
    ----------
    classifier : Classifier
        With variables.
    path : str
        The ``.pb`` to write; the ``.json`` beside it gets ``metadata`` and the SHA-256.
    images : numpy.ndarray
        uint8, [batch, height, width, 3], real pictures to compare on.
    metadata : dict

    Returns
    -------
    float
        The largest difference in probability over ``images``.

    Raises
    ------
    UserError
        When the frozen graph's probabilities differ by more than :data:`TOLERANCE`; an older file
        then stays in place.
    """
    graph_def = _with_constants(classifier)
    expected = classifier(images)
    with temporary_path(path) as temporary:
        with open(temporary, "wb") as stream:
            stream.write(graph_def.SerializeToString())
        frozen = load(temporary, fold=False)
        difference = float(np.abs(frozen(images) - expected).max())
        frozen.session.close()
        if not difference <= TOLERANCE:
            raise UserError("{}: not written: its probabilities differ from the checkpoint's by "
                            "{:.2g}".format(path, difference), exit_code=1)
        digest = sha256(temporary)
    write_json(os.path.splitext(path)[0] + ".json", dict(
        metadata, image_size=classifier.image_size, class_names=list(darknet19.CLASS_NAMES),
        input="RGB 0..1, float32, NHWC", largest_difference=difference, sha256=digest))
    return difference
