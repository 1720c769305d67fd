"""The int8 ONNX model: small, nearly the same answers, not written where they differ."""

import collections
import os

import numpy as np
import onnx
import onnxruntime
import pytest

import darknet_face.exporters.onnx
from darknet_face.console import UserError
from darknet_face.exporters import command as export
from darknet_face.exporters import onnx_int8
from darknet_face.exporters.compare import BOUNDS, Reference
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.weights import model_file
from darknet_face.weights.model_file import read_model
from darknet_face.weights.npz import write_npz


@pytest.fixture(scope="module")
def pictures(sample_dir):
    paths = load_split(sample_dir, "test").paths
    _, images, _ = next(read_batches(paths, len(paths), 32))
    return images


def test_it_is_small_and_keeps_the_answers(run_script, tiny_model, sample_dir, pictures, tmp_path,
                                           classifier, monkeypatch):
    monkeypatch.setitem(BOUNDS, "onnx", 1e-3)  # random weights decide by a hair
    monkeypatch.setattr(onnx_int8, "MOST_CHANGED", 1)
    monkeypatch.setattr(onnx_int8, "MOST_MOVED", 1)
    outcome = run_script(export, "onnx", "--int8", "--calibration-images", 20, "--model-dir",
                         tiny_model.folder, "--data-dir", sample_dir, "--out", tmp_path,
                         "--images", 8)
    assert outcome.code == 0, outcome.err
    assert "20 images of the val lists" in outcome.out and "MB instead of" in outcome.out
    path = str(tmp_path / "darknet19_face_int8.onnx")
    # A quarter for the whole network; scales weigh more in a narrow one.
    assert os.path.getsize(path) < 0.4 * os.path.getsize(str(tmp_path / "darknet19_face.onnx"))
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert metadata["input_layout"] == "NHWC" and metadata["input_range"] == "0..1"
    assert metadata["image_size"] == "32" and "20 images" in metadata["quantization"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities, = session.run(["probabilities"], {"input": pictures / np.float32(255)})
    expected = classifier(pictures)
    assert np.abs(probabilities - expected).mean() < 0.2  # random weights amplify rounding
    assert np.corrcoef(probabilities[:, 0], expected[:, 0])[0, 1] > 0.7


def test_a_model_of_other_answers_is_not_written(tiny_model, sample_dir, pictures, tmp_path,
                                                 monkeypatch):
    monkeypatch.setitem(BOUNDS, "onnx", 1e-3)
    monkeypatch.chdir(str(tmp_path))
    reference = Reference(
        read_model(tiny_model.npz, 32), load_split(sample_dir, "test").paths[:8])
    darknet_face.exporters.onnx.export_onnx(reference, str(tmp_path))
    reference.expected = reference.expected[:, ::-1]
    with pytest.raises(UserError, match="not written: .* change their class") as caught:
        onnx_int8.export_int8(reference, pictures[:10], str(tmp_path))
    assert caught.value.exit_code == 1
    assert os.listdir(str(tmp_path)) == ["darknet19_face.onnx"]


def test_the_metadata_tell_threshold_and_licence(tmp_path, monkeypatch, tiny_model):
    path = str(tmp_path / "own.npz")
    write_npz(path, tiny_model.weights, metadata={"threshold": 0.25, "image_size": 32, "step": 7})
    model = read_model(path)
    reference = collections.namedtuple("Reference", "model metadata")(model, model.metadata)
    properties = darknet_face.exporters.onnx.properties_of
    assert properties(reference) == {"threshold": "0.25", "step": "7"}
    monkeypatch.setattr(model_file, "RELEASED", path)
    assert "non-commercial" in properties(reference)["license"]
