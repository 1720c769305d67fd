"""The frozen graph: one ``.pb`` with the network and its weights, and a ``.json`` beside it.

In the graph: placeholder ``input`` (float32, [None, H, W, 3], RGB 0..1) and the tensors ``logits``
and ``probabilities`` ([None, 2], FACE first). It holds no training nodes: it is made from a graph
that was built for inference, never cut out of the training graph.
"""

from __future__ import annotations

import contextlib
import os

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import (
    fold_batch_norm,
    import_classifier,
    with_constants,
)
from darknet_face.runtime.atomic_files import temporary_path, write_json
from darknet_face.runtime.safe_files import read_json, sha256
from darknet_face.weights.graph_checks import check_graph
from darknet_face.weights.graph_files import read_graph_def
from darknet_face.weights.metadata import check_metadata

TOLERANCE = 1e-5  # largest difference in probability between a frozen graph and its checkpoint


def load(path, threads=None, fold=True, precision="float32"):
    """Load a frozen graph.

    Parameters
    ----------
    path : str
        The ``.pb``; its ``.json`` is checked against it where there is one.
    threads, precision
        See :func:`darknet_face.runtime.session.new_session`.
    fold : bool
        Fold batch norm into the convolutions, for speed; False runs the file as it is.

    Returns
    -------
    Classifier

    Raises
    ------
    UserError
        Missing or damaged, not this network (see
        :func:`darknet_face.weights.graph_checks.check_graph`), or not the file that its ``.json``
        was written for.
    """
    graph_def = read_graph_def(path)
    metadata_path = os.path.splitext(path)[0] + ".json"
    if os.path.exists(metadata_path):
        expected = read_json(metadata_path, "run train.py again").get("sha256")
        if expected != sha256(path):
            raise UserError("{}: not the file that {} describes (SHA-256 differs); run train.py "
                            "to write both again".format(path, metadata_path))
    check_graph(graph_def, path)
    return import_classifier(fold_batch_norm(graph_def) if fold else graph_def, threads, precision)


def freeze(classifier, path, images, metadata):
    """Write a classifier as a frozen graph, and compare both before it is renamed into place.

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
    graph_def = with_constants(classifier)
    expected = classifier(images)
    with temporary_path(path) as temporary:
        with open(temporary, "wb") as stream:
            stream.write(graph_def.SerializeToString(deterministic=True))
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


def stored_point(path, metadata):
    """The threshold and search bias stored with a frozen graph of the same training step.

    So that freezing the same weights again keeps them.

    Parameters
    ----------
    path : str
        The ``.pb``.
    metadata : dict
        What is to be written beside it; equal values of its keys tell the same weights.

    Returns
    -------
    dict
        Empty if there are none, or they are damaged.
    """
    with contextlib.suppress(UserError):
        stored = read_json(os.path.splitext(path)[0] + ".json")
        if all(stored.get(name) == value for name, value in metadata.items()):
            known = check_metadata(stored, path)
            return {name: known[name] for name in ("threshold", "search_bias") if name in known}
    return {}
