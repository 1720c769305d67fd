"""The classifier: batch norm folded for speed, and failures of TensorFlow in one line."""

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.engines import tensorflow_classifier as graphs
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime.session import tf
from darknet_face.weights import frozen_graph
from darknet_face.weights.graph_files import read_graph_def
from darknet_face.weights.model_file import read_model


@pytest.fixture(scope="module")
def pictures(sample_dir):
    """100 real images, uint8 [100, 32, 32, 3]."""
    paths = load_split(sample_dir, "train").paths[:100]
    _, images, _ = next(read_batches(paths, 100, 32))
    return images


def test_failures_of_tensorflow_are_one_line():
    """The real error of a graph whose variables were not set."""
    classifier = graphs.build_classifier(32)
    with pytest.raises(UserError, match="can't be run on 2 images of 32 x 32 .*") as caught:
        classifier(np.zeros((2, 32, 32, 3), np.uint8))
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


class TestFolding:
    def test_the_folded_graph_answers_as_the_unfolded(self, tiny_model, pictures):
        plain = frozen_graph.load(read_model(tiny_model.pb), fold=False)
        expected = plain(pictures)
        for folded in (frozen_graph.load(read_model(tiny_model.pb)),
                       graphs.folded_classifier(tiny_model.weights, 32)):
            np.testing.assert_allclose(folded(pictures), expected, atol=1e-4, rtol=0)
            logits = [each.session.run("logits:0", {"input:0": pictures / np.float32(255)})
                      for each in (folded, plain)]
            np.testing.assert_allclose(*logits, atol=1e-4, rtol=0)
        assert np.ptp(logits[1], axis=0).min() > 0.1, "the images must not all be alike"

    def test_no_batch_norm_is_left(self, tiny_model):
        operations = [node.op for node in
                      frozen_graph.load(read_model(tiny_model.pb)).session.graph.as_graph_def().node]
        assert operations.count("Conv2D") == operations.count("BiasAdd") == 19
        assert not any("BatchNorm" in operation for operation in operations)

    def test_the_file_and_its_graph_stay_as_they_are(self, tiny_model):
        graph_def = read_graph_def(tiny_model.pb)
        before = graph_def.SerializeToString(deterministic=True)
        graphs.fold_batch_norm(graph_def)
        assert graph_def.SerializeToString(deterministic=True) == before
        read = read_model(tiny_model.pb).weights
        for name, array in tiny_model.weights.items():
            np.testing.assert_array_equal(read[name], array)

    def test_a_convolution_that_others_read_too_is_left_alone(self, pictures):
        """Folding it would change what the others read."""
        graph = tf.Graph()
        with graph.as_default():
            images = tf.placeholder(tf.float32, [None, 32, 32, 3], "input")
            shared = tf.nn.conv2d(images, np.ones((1, 1, 3, 2), np.float32), 1, "SAME")
            normed, _, _ = tf.nn.fused_batch_norm(
                shared, [2.0, 2.0], [1.0, 1.0], [0.5, 0.5], [4.0, 4.0], is_training=False)
            logits = tf.reduce_mean(normed + shared, axis=[1, 2], name="logits")
            tf.nn.softmax(logits, name="probabilities")
        folded = graphs.fold_batch_norm(graph.as_graph_def())
        assert [node.op for node in folded.node].count("BiasAdd") == 0
        assert any(node.op.startswith("FusedBatchNorm") for node in folded.node)
