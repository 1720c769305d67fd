"""The frozen graph: equal to the fresh graph it came from, free of training nodes, whole or not."""

import json
import os
import shutil

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.engines import tensorflow_classifier as graphs
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime.safe_files import sha256
from darknet_face.runtime.session import tf
from darknet_face.weights import frozen_graph
from darknet_face.weights.graph_files import read_graph_def
from darknet_face.weights.model_file import read_model

# tf.nn.softmax(logits) in float32 against numpy's in float64 leaves rounding of this size.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def pictures(sample_dir):
    """100 real images, uint8 [100, 32, 32, 3]."""
    paths = load_split(sample_dir, "train").paths[:100]
    _, images, _ = next(read_batches(paths, 100, 32))
    assert len(images) == 100
    return images


@pytest.mark.parametrize("fold", [False, True])
def test_frozen_equals_fresh_graph(tiny_model, pictures, fold):
    """The file as it is, and both as test.py and inference.py run them."""
    build = graphs.folded_classifier if fold else graphs.classifier_from_weights
    from_pb = frozen_graph.load(read_model(tiny_model.pb), fold=fold)(pictures)
    fresh = build(read_model(tiny_model.npz).weights, 32)(pictures)
    assert from_pb.std(axis=0).min() > 0.05, "the images must not all get the same answer"
    np.testing.assert_allclose(from_pb, fresh, atol=1e-5, rtol=0)


def test_a_batch_of_one_equals_a_batch_of_sixteen(tiny_model, pictures):
    classifier = frozen_graph.load(read_model(tiny_model.pb))
    together = classifier(pictures[:16])
    alone = np.concatenate([classifier(pictures[i:i + 1]) for i in range(16)])
    np.testing.assert_allclose(alone, together, atol=1e-5, rtol=0)


def test_one_softmax_over_the_logits(tiny_model, pictures):
    classifier = frozen_graph.load(read_model(tiny_model.pb))
    graph = classifier.session.graph
    logits, probabilities = classifier.session.run(
        [graph.get_tensor_by_name("logits:0"), graph.get_tensor_by_name("probabilities:0")],
        {"input:0": pictures[:8] / np.float32(255)})
    exponents = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(
        probabilities, exponents / exponents.sum(axis=1, keepdims=True), atol=ROUNDING)
    assert [node.op for node in graph.as_graph_def().node].count("Softmax") == 1


def test_the_graph_holds_no_training_nodes(tiny_model):
    graph_def = read_graph_def(tiny_model.pb)
    operations = {node.op for node in graph_def.node}
    assert not operations & {"Switch", "Merge", "VariableV2", "VarHandleOp", "Assign", "RestoreV2"}
    assert [node.name for node in graph_def.node if node.op == "Placeholder"] == ["input"]
    assert not any("is_training" in node.name for node in graph_def.node)
    for node in graph_def.node:
        if node.op.startswith("FusedBatchNorm"):
            assert node.attr["is_training"].b is False
            # TensorFlow raises 1e-5 to cuDNN's lower bound of 1.001e-5 for the fused operation.
            assert node.attr["epsilon"].f == pytest.approx(1e-5, abs=1.1e-8)
    shape = next(node for node in graph_def.node if node.name == "input").attr["shape"].shape
    assert [dim.size for dim in shape.dim] == [-1, 32, 32, 3]


def test_metadata_describes_the_file(tiny_model):
    with open(os.path.splitext(tiny_model.pb)[0] + ".json") as stream:
        metadata = json.load(stream)
    assert metadata["image_size"] == 32
    assert metadata["class_names"] == ["FACE", "NON_FACE"]
    assert metadata["sha256"] == sha256(tiny_model.pb)
    assert metadata["largest_difference"] <= 1e-5


def test_a_disagreeing_graph_is_not_written(tiny_model, pictures, tmp_path, monkeypatch):
    """Freezing compares with the live classifier: one that answers otherwise stops the file."""
    path = str(tmp_path / "model.pb")
    classifier = graphs.classifier_from_weights(tiny_model.weights, 32)
    original = graphs.Classifier.__call__

    def nudged(self, images):
        answer = original(self, images)
        return answer + 2e-5 if self is classifier else answer

    monkeypatch.setattr(graphs.Classifier, "__call__", nudged)
    with pytest.raises(UserError, match="differ"):
        frozen_graph.freeze(classifier, path, pictures[:4], {})
    assert os.listdir(str(tmp_path)) == []


def test_equal_weights_give_equal_bytes(tiny_model, pictures, tmp_path):
    path = str(tmp_path / "again.pb")
    classifier = graphs.classifier_from_weights(tiny_model.weights, 32)
    frozen_graph.freeze(classifier, path, pictures[:2], {})
    assert sha256(path) == sha256(tiny_model.pb)


@pytest.mark.parametrize("damage", [
    lambda content: b"",
    lambda content: content[:len(content) // 2],
    lambda content: b"\xff" * 1000,
    lambda content: tf.GraphDef().SerializeToString(),
])
def test_damaged_files_are_refused(tiny_model, tmp_path, damage):
    path = str(tmp_path / "bad.pb")
    with open(tiny_model.pb, "rb") as stream, open(path, "wb") as target:
        target.write(damage(stream.read()))
    with pytest.raises(UserError, match="bad.pb"):
        frozen_graph.load(read_model(path))


def test_a_file_other_than_the_described_one_is_refused(tiny_model, tmp_path):
    for extension in (".pb", ".json"):
        shutil.copy(os.path.splitext(tiny_model.pb)[0] + extension, str(tmp_path))
    path = str(tmp_path / "darknet19_frozen.pb")
    with open(path, "ab") as stream:
        stream.write(b"\x78\x00")  # a field that graphs don't have: read, and passed over
    with pytest.raises(UserError, match="SHA-256"):
        frozen_graph.load(read_model(path))


def test_a_foreign_graph_is_refused(tmp_path):
    graph = tf.Graph()
    with graph.as_default():
        tf.constant(1.0, name="something_else")
    path = str(tmp_path / "foreign.pb")
    with open(path, "wb") as stream:
        stream.write(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match="foreign.pb: none of Darknet-19's layers is in it"):
        frozen_graph.load(read_model(path))


def test_a_graph_that_writes_files_is_refused(tiny_model, tmp_path):
    graph_def = read_graph_def(tiny_model.pb)
    with tf.Graph().as_default() as graph:
        tf.io.write_file(str(tmp_path / "written"), "content")
        graph_def.node.extend(graph.as_graph_def().node)
    path = str(tmp_path / "hostile.pb")
    with open(path, "wb") as stream:
        stream.write(graph_def.SerializeToString())
    with pytest.raises(UserError, match=r"not a frozen graph of this project \(it has WriteFile"):
        frozen_graph.load(read_model(path))
