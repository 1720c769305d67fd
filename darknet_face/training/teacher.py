"""Distillation: train.py --teacher adds a trained network's probabilities as soft targets.

Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv
1503.02531), sections 2 and 2.1. The teacher sees the same augmented images of the batch, in
the training graph; its weights are constants there, so checkpoints do not hold them.
"""

from __future__ import annotations

import hashlib
import typing

import numpy as np

from darknet_face.engines.tensorflow_classifier import (
    classifier_from_weights,
    fold_batch_norm,
    with_constants,
)
from darknet_face.runtime import distributed
from darknet_face.runtime.session import tf
from darknet_face.weights.model_file import read_model

SCOPE = "teacher"  # of its nodes in the training graph

Weights = typing.Mapping[str, np.ndarray]


def read_teacher(path: str | None) -> Weights | None:
    """The teacher's weights; rank 0 reads them for all ranks. None without a path."""
    if not path:
        return None
    return distributed.from_first(read_model(path).weights if distributed.rank() == 0 else None)


def digest(weights: Weights | None) -> str | None:
    """Names a teacher in the record of a training: the same weights give the same text."""
    if weights is None:
        return None
    state = hashlib.sha256()
    for name, array in weights.items():
        state.update(name.encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:12]


def teacher_logits(weights: Weights, images: typing.Any) -> typing.Any:
    """Add the teacher to the graph of ``images``, without variables.

    Parameters
    ----------
    weights
    images
        float32 tensor, [batch, height, width, 3], RGB 0..1.

    Returns
    -------
    tf.Tensor
        float32, [batch, 2].
    """
    classifier = classifier_from_weights(weights, images.shape.as_list()[1])
    graph_def = fold_batch_norm(with_constants(classifier))
    classifier.session.close()
    (logits,) = tf.import_graph_def(graph_def, {"input": images}, ["logits:0"], name=SCOPE)
    return logits


def soft_cross_entropy(logits: typing.Any, teacher: typing.Any, temperature: float) -> typing.Any:
    """The mean cross-entropy with the teacher's probabilities, both at a temperature.

    Times the square of the temperature, so that its gradients keep their size (section 2).

    Parameters
    ----------
    logits, teacher
        Before the softmax, [batch, classes].
    temperature
        Above 1 the teacher's doubts count for more.
    """
    losses = tf.nn.softmax_cross_entropy_with_logits_v2(
        tf.stop_gradient(tf.nn.softmax(teacher / temperature)), logits / temperature)
    return temperature ** 2 * tf.reduce_mean(losses)


def without_weights(graph_def: typing.Any) -> typing.Any:
    """The training graph for TensorBoard, without the teacher's constants: they take 80 MB."""
    for node in graph_def.node:
        if node.op == "Const" and node.name.startswith(SCOPE + "/"):
            node.attr["value"].tensor.Clear()
    return graph_def
