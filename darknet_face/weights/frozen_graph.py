"""The frozen graph: one ``.pb`` with the network and its weights, and a ``.json`` beside it.

In the graph: placeholder ``input`` (float32, [None, H, W, 3], RGB 0..1) and the tensors ``logits``
and ``probabilities`` ([None, 2], FACE first). It holds no training nodes: it is made from a graph
that was built for inference, not extracted from the training graph.
"""

from __future__ import annotations

import contextlib
import os
import typing

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import (
    Classifier,
    fold_batch_norm,
    import_classifier,
    with_constants,
)
from darknet_face.runtime.atomic_files import temporary_path, write_json
from darknet_face.runtime.safe_files import read_json, sha256
from darknet_face.weights.graph_checks import check_answers, check_graph
from darknet_face.weights.metadata import check_metadata
from darknet_face.weights.model_file import ModelFile, read_model

TOLERANCE = 1e-5  # largest difference in probability between a frozen graph and its checkpoint


def load(model: ModelFile, threads: int | None = None, fold: bool = True,
         precision: str = "float32") -> Classifier:
    """The classifier of a frozen graph.

    Parameters
    ----------
    model
        Of a ``.pb``.
    threads, precision
        See :func:`darknet_face.runtime.session.new_session`.
    fold
        Fold batch norm into the convolutions, for speed; False runs the file as it is.

    Raises
    ------
    UserError
        Not this network: see :func:`darknet_face.weights.graph_checks.check_graph`. Weights that
        are too large to be used.
    """
    graph_def = check_graph(model)
    classifier = import_classifier(fold_batch_norm(graph_def) if fold else graph_def, threads,
                                   precision, model.metadata["image_size"])
    check_answers(classifier, model.path)
    return classifier


def freeze(classifier: Classifier, path: str, images: np.ndarray,
           metadata: dict[str, typing.Any]) -> float:
    """Write a classifier as a frozen graph, and compare both before it is renamed into place.

    Parameters
    ----------
    classifier
        With variables.
    path
        The ``.pb`` to write; the ``.json`` beside it gets ``metadata`` and the SHA-256.
    images
        uint8, [batch, height, width, 3], real images to compare on.

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
        frozen = load(read_model(temporary), fold=False)
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


def stored_point(path: str, metadata: dict[str, typing.Any]) -> dict[str, float]:
    """The threshold and search bias stored with a frozen graph of the same training step, so that
    freezing the same weights again keeps them. Empty if there are none, or they are damaged.

    Parameters
    ----------
    path
        The ``.pb``.
    metadata
        What is to be written beside it; equal values of its keys tell the same weights.
    """
    with contextlib.suppress(UserError):
        stored = read_json(os.path.splitext(path)[0] + ".json")
        if all(stored.get(name) == value for name, value in metadata.items()):
            known = check_metadata(stored, path)
            return {name: known[name] for name in ("threshold", "search_bias") if name in known}
    return {}
