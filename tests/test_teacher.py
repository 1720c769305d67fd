"""train.py --teacher: its soft targets enter the loss, its weights stay out of the checkpoints."""

import numpy as np
import pytest
from conftest import WIDTH

import train
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.runtime.session import tf
from darknet_face.training.settings import Settings
from darknet_face.training.summaries import without_weights
from darknet_face.training.teacher import SCOPE, digest


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weight, temperature", [(0.25, 1.0), (1.0, 3.0)])
def test_the_loss_mixes_labels_and_the_teachers_probabilities(tiny_model, weight, temperature):
    images = np.random.RandomState(0).randint(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    labels = np.array([0, 1, 1, 0, 1, 0, 1, 0])
    settings = Settings(
        image_size=32, width=WIDTH, teacher_weight=weight, temperature=temperature)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        net = train.build_training_graph(settings, lambda step: 1e-3, tiny_model.weights)
        assert not [each for each in tf.global_variables() if each.op.name.startswith(SCOPE)]
        session.run(tf.global_variables_initializer())
        logits, loss = session.run(["logits:0", net.loss], {net.images: images, net.labels: labels})
        size = graph.as_graph_def().ByteSize()
        assert without_weights(graph.as_graph_def()).ByteSize() < size - 200000
    teacher = np.log(classifier_from_weights(tiny_model.weights, 32)(images).astype(float))
    soft = -(softmax(teacher / temperature) * np.log(softmax(logits / temperature))).sum(axis=1)
    hard = -np.log(softmax(logits))[np.arange(8), labels]
    assert loss == pytest.approx(
        (1 - weight) * hard.mean() + weight * temperature ** 2 * soft.mean(), rel=1e-4)


def test_a_digest_names_the_weights(tiny_model):
    other = dict(tiny_model.weights, **{"conv_18/bias": np.float32([0.5, 0.5])})
    assert digest(None) is None
    assert digest(tiny_model.weights) == digest(dict(tiny_model.weights)) != digest(other)
