"""The frozen graph: one ``.pb`` with the network and its weights, and a ``.json`` beside it.

In the graph: placeholder ``input`` (float32, [None, H, W, 3], RGB 0..1) and the tensors ``logits``
and ``probabilities`` ([None, 2], FACE first). It holds no training nodes: it is made from a graph
that was built for inference, never cut out of the training graph.
"""

import hashlib
import os

import numpy as np

import darknet19
import weights as weight_files
from session import new_session, tf
from utils import UserError, read_json, temporary_path, write_json

TOLERANCE = 1e-5  # largest difference in probability between a frozen graph and its checkpoint


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


def build_classifier(image_size, threads=None):
    """A fresh inference graph, its variables not yet set.

    Parameters
    ----------
    image_size : int
        A multiple of 32.
    threads : int, optional
        See :func:`session.new_session`.

    Returns
    -------
    Classifier
    """
    graph = tf.Graph()
    with graph.as_default():
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3], name="input")
        logits, _ = darknet19.build(images, training=False)
        tf.nn.softmax(logits, name="probabilities")
    return Classifier(new_session(graph, threads))


def classifier_from_weights(weights, image_size, threads=None):
    """A fresh inference graph with the given weights in its variables."""
    classifier = build_classifier(image_size, threads)
    weight_files.assign(classifier.session, weights)
    return classifier


def load(path, threads=None):
    """Load a frozen graph.

    Parameters
    ----------
    path : str
        The ``.pb``; its ``.json`` is checked against it where there is one.

    Returns
    -------
    Classifier

    Raises
    ------
    UserError
        Missing or damaged, without the expected tensors, or not the file that its ``.json`` was
        written for.
    """
    graph_def = weight_files.read_graph_def(path)
    metadata_path = os.path.splitext(path)[0] + ".json"
    if os.path.exists(metadata_path):
        expected = read_json(metadata_path, "run train.py anew").get("sha256")
        if expected != sha256(path):
            raise UserError("{}: not the file that {} describes (SHA-256 differs); run train.py "
                            "to write both anew".format(path, metadata_path))
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
        return Classifier(new_session(graph, threads))
    except (ValueError, KeyError, tf.errors.OpError) as error:
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
    graph_def = tf.graph_util.convert_variables_to_constants(
        classifier.session, classifier.session.graph.as_graph_def(), ["logits", "probabilities"])
    expected = classifier(images)
    with temporary_path(path) as temporary:
        with open(temporary, "wb") as stream:
            stream.write(graph_def.SerializeToString())
        frozen = load(temporary)
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


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
