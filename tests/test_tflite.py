"""The TensorFlow Lite model: checked by its interpreter, not written where it differs."""

import os

import pytest

from darknet_face.console import UserError
from darknet_face.exporters import command as export
from darknet_face.exporters import tflite
from darknet_face.exporters.compare import BOUNDS, Reference
from darknet_face.images.file_lists import load_split
from darknet_face.runtime.session import is_tf2
from darknet_face.weights.model_file import read_model


@pytest.fixture
def reference(tiny_model, sample_dir, monkeypatch):
    monkeypatch.setitem(BOUNDS, "tensorflow", 1e-3)  # random weights decide by a hair
    return Reference(read_model(tiny_model.npz, 32), load_split(sample_dir, "test").paths[:4])


@pytest.mark.skipif(not is_tf2(), reason="TensorFlow 2 converts")
def test_it_is_checked_before_it_is_in_place(run_script, tiny_model, sample_dir, reference,
                                             tmp_path):
    outcome = run_script(export, "tflite", "--model-dir", tiny_model.folder, "--data-dir",
                         sample_dir, "--out", tmp_path, "--images", 4)
    assert outcome.code == 0, outcome.err
    assert "TensorFlow Lite agrees within" in outcome.out and outcome.err == ""
    assert os.listdir(str(tmp_path)) == ["darknet19_face.tflite"]
    reference.expected = reference.expected[:, ::-1]
    with pytest.raises(UserError, match="tflite: not written: TensorFlow Lite differs"):
        tflite.export_tflite(reference, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(is_tf2(), reason="TensorFlow 2 converts")
def test_another_runtime_is_one_line(reference, tmp_path):
    with pytest.raises(UserError, match="use TensorFlow 2"):
        tflite.export_tflite(reference, str(tmp_path))
