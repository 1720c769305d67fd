"""This runtime gives the numbers that TensorFlow 1.15 gave, and writes what it reads."""

import hashlib
import json
import os

import numpy as np
from conftest import ROOT

from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime.session import tf
from darknet_face.training.loader import TrainingBatches
from darknet_face.weights.model_file import read_model

RELEASED = os.path.join(ROOT, "saved_models", "darknet19_face.npz")
REFERENCE = os.path.join(ROOT, "tests", "released_answers.json")
# The attributes that TensorFlow 1.15 knows, from its own definitions of the operations.
ATTRIBUTES = {
    "BiasAdd": {"T", "data_format"}, "Const": {"dtype", "value"},
    "Conv2D": {"T", "strides", "use_cudnn_on_gpu", "padding", "explicit_paddings", "data_format",
               "dilations"},
    "FusedBatchNormV3": {"T", "U", "epsilon", "data_format", "is_training"},
    "Identity": {"T", "_class"}, "LeakyRelu": {"T", "alpha"}, "Mean": {"T", "Tidx", "keep_dims"},
    "MaxPool": {"T", "ksize", "strides", "padding", "data_format"},
    "Placeholder": {"dtype", "shape"}, "Softmax": {"T"}}

def test_the_released_weights_give_the_same_probabilities(sample_dir):
    """On the 40 embedded test images, to within 1e-5."""
    with open(REFERENCE) as stream:
        reference = json.load(stream)
    paths = load_split(sample_dir, "test").paths
    classifier = classifier_from_weights(read_model(RELEASED).weights, reference["image_size"])
    found = np.concatenate([classifier(images)[:, 0]
                            for _, images, _ in read_batches(paths, 20, reference["image_size"])])
    classifier.session.close()
    np.testing.assert_allclose(found, reference["face_probabilities"], rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_pictures_in_the_same_order(sample_dir):
    """Without augmentation, to the bit; docs/runtimes.md says why augmentation differs."""
    batches = TrainingBatches(load_split(sample_dir, "train"), 8, 32, seed=5, augment="none")
    digest = hashlib.sha256(b"".join(batches.batch(step)[0].tobytes() for step in (0, 1, 40)))
    with open(REFERENCE) as stream:
        assert digest.hexdigest() == json.load(stream)["batches_sha256"]


def test_a_frozen_graph_has_no_attribute_that_tensorflow_1_15_refuses(tiny_model):
    with open(tiny_model.pb, "rb") as stream:
        graph_def = tf.GraphDef.FromString(stream.read())
    for node in graph_def.node:
        assert set(node.attr) <= ATTRIBUTES[node.op], node.name
