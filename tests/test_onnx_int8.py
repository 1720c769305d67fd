"""The int8 ONNX model: small, nearly the same answers, not written where they differ."""

import collections
import os
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

import darknet_face.exporters.onnx
from darknet_face import load
from darknet_face.console import UserError
from darknet_face.engines.engine import open_engine
from darknet_face.engines.onnx_int8 import int8_model, measure_ranges, write_ranges
from darknet_face.exporters import command as export
from darknet_face.exporters import onnx_int8
from darknet_face.exporters.compare import BOUNDS, Reference
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.images.samples import sample_images
from darknet_face.weights import model_file
from darknet_face.weights.model_file import read_model
from darknet_face.weights.npz import write_npz


@pytest.fixture(scope="module")
def pictures(sample_dir):
    paths = load_split(sample_dir, "test").paths
    _, images, _ = next(read_batches(paths, len(paths), 32))
    return images


@pytest.fixture
def own(tiny_model, tmp_path):
    """A folder with a model that has no ranges yet."""
    shutil.copy(tiny_model.npz, str(tmp_path))
    return tmp_path


def test_it_is_small_and_keeps_the_answers(run_script, own, sample_dir, pictures, classifier,
                                           monkeypatch):
    monkeypatch.setitem(BOUNDS, "onnx", 1e-3)  # random weights decide by a hair
    monkeypatch.setattr(onnx_int8, "MOST_CHANGED", 1)
    monkeypatch.setattr(onnx_int8, "MOST_MOVED", 1)
    arguments = ["onnx", "--int8", "--calibration-images", 20, "--model-dir", own, "--data-dir",
                 sample_dir, "--out", own, "--images", 8, "--image-size", 32]
    outcome = run_script(export, *arguments)
    assert outcome.code == 0, outcome.err
    assert "20 images of the val lists" in outcome.out and "keep their class" in outcome.out
    path = str(own / "darknet19_face_int8.onnx")
    # A quarter for the whole network; scales weigh more in a narrow one.
    assert os.path.getsize(path) < 0.6 * os.path.getsize(str(own / "darknet19_face.onnx"))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["input_layout"] == "NHWC" and metadata["input_range"] == "0..1"
    assert metadata["image_size"] == "32" and metadata["quantization"] == "int8, QDQ"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities, = session.run(["probabilities"], {"input": pictures / np.float32(255)})
    expected = classifier(pictures)
    assert np.abs(probabilities - expected).mean() < 0.2  # random weights amplify rounding
    assert np.corrcoef(probabilities[:, 0], expected[:, 0])[0, 1] > 0.7
    # The ranges are stored beside the weights, and are taken from there afterwards.
    weights = str(own / "darknet19_weights.npz")
    with load(weights, "off", precision="int8", image_size=32) as int8:
        assert abs(int8(pictures[0]).probability - probabilities[0, 0]) < 1e-5
    outcome = run_script(export, *arguments)
    assert outcome.code == 0 and "measuring" not in outcome.out
    # With a folder they are measured anew.
    outcome = run_script(export, *arguments, "--calibrate", os.path.join(sample_dir, "faces"))
    assert outcome.code == 0 and "20 images of " in outcome.out
    outcome = run_script(export, *arguments, "--calibrate", str(own / "nothing"))
    assert outcome.code == 2 and "none of the 0 images of" in outcome.err


def test_a_model_of_other_answers_is_not_written(tiny_model, sample_dir, pictures, tmp_path):
    reference = Reference(
        read_model(tiny_model.npz, 32), load_split(sample_dir, "test").paths[:8])
    reference.expected = reference.expected[:, ::-1]
    with pytest.raises(UserError, match="not written: .* change their class") as caught:
        onnx_int8.export_int8(
            reference, measure_ranges(tiny_model.weights, pictures[:10]), str(tmp_path))
    assert caught.value.exit_code == 1
    assert os.listdir(str(tmp_path)) == []


def test_the_released_model_needs_no_images():
    model = read_model(model_file.RELEASED)
    _, images, _ = next(read_batches(sample_images()[:8], 8, 224))
    exact, rounded = (
        open_engine(model.weights, 224, "onnxruntime", precision=precision, ranges=model.ranges)
        .window_log_odds(images)[:, 0, 0] for precision in ("float32", "int8"))
    assert np.ptp(exact) > 5, "the images must not all be alike"
    assert 0 < np.abs(exact - rounded).max() < 0.5


def test_ranges_that_do_not_fit_are_one_line(own, tiny_model, infer):
    weights, path = str(own / "darknet19_weights.npz"), str(own / "darknet19_weights_int8.json")
    outcome = infer(str(own), "--weights", weights, "--precision", "bfloat32")
    assert outcome.code == 2 and "int8" in outcome.err

    def complaint():
        with pytest.raises(UserError, match="python export.py onnx --int8 --weights") as caught:
            read_model(weights).ranges()
        return str(caught.value)

    assert "no such file" in complaint()
    ranges = [(-1.0, 2.0)] * 18
    write_ranges(weights, tiny_model.weights, ranges[1:], 3)
    assert "no usable ranges" in complaint()
    write_ranges(weights, tiny_model.weights, [(-1, 1e30)] * 18, 3)
    assert "no usable ranges" in complaint()
    write_ranges(weights, dict(tiny_model.weights, **{"conv_3/beta": np.zeros(8)}), ranges, 3)
    assert "of other weights" in complaint()
    write_ranges(weights, tiny_model.weights, ranges, 3)
    assert list(read_model(weights).ranges()) == ranges
    with open(path, "w") as stream:
        stream.write("[]")
    assert "{}: ".format(path) in complaint()
    with pytest.raises(UserError, match="have no ranges"):
        open_engine(tiny_model.weights, 32, precision="int8")


def test_channels_without_weights_and_layers_without_activation(tiny_model, pictures):
    weights = dict(tiny_model.weights)
    weights["conv_5/kernel"] = weights["conv_5/kernel"] * 0
    weights["conv_5/gamma"] = weights["conv_5/gamma"] * 0
    weights["conv_5/beta"] = weights["conv_5/beta"] * 0
    ranges = measure_ranges(weights, pictures[:4])
    assert ranges[5] == (0, 0)
    content = int8_model(weights, ranges)
    probabilities, = onnxruntime.InferenceSession(
        content, providers=["CPUExecutionProvider"]).run(
            ["probabilities"], {"input": pictures[:4] / np.float32(255)})
    assert np.isfinite(probabilities).all()


def test_the_metadata_tell_threshold_and_licence(tmp_path, monkeypatch, tiny_model):
    path = str(tmp_path / "own.npz")
    write_npz(path, tiny_model.weights, metadata={"threshold": 0.25, "image_size": 32, "step": 7})
    model = read_model(path)
    reference = collections.namedtuple("Reference", "model metadata")(model, model.metadata)
    properties = darknet_face.exporters.onnx.properties_of
    assert properties(reference) == {"threshold": "0.25", "step": "7"}
    monkeypatch.setattr(model_file, "RELEASED", path)
    assert "non-commercial" in properties(reference)["license"]
