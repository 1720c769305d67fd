"""The calibration of a classifier: python -m pytest tests/test_calibrate.py"""

import numpy as np
import pytest
from PIL import Image
from test_heatmaps import bright_is_face

from darknet_face.classes import FACE
from darknet_face.classify.sliding_window import SlidingWindow, sigmoid
from darknet_face.console import UserError
from darknet_face.engines.engine import open_engine
from darknet_face.evaluation import calibrate
from darknet_face.images.file_lists import LISTS, save_list
from darknet_face.weights.model_file import read_model
from darknet_face.weights.npz import write_npz


def test_the_line_is_found_again():
    """Labels are drawn with the probabilities that a known line gives."""
    rng = np.random.RandomState(0)
    truth = rng.uniform(-4, 4, 20000)
    labels = np.where(rng.rand(20000) < sigmoid(truth), FACE, 1)
    factor, bias = calibrate.fit_line(labels, (truth - 1.0) / 0.4)
    assert factor == pytest.approx(0.4, abs=0.02) and bias == pytest.approx(1.0, abs=0.08)


def test_answers_that_say_nothing_are_refused():
    labels = np.arange(100) % 2
    with pytest.raises(UserError, match="say nothing about the validation images"):
        calibrate.fit_line(labels, labels * 3.0)


def test_the_last_convolution_takes_it(tiny_model):
    images = np.random.RandomState(1).randint(0, 256, (4, 64, 96, 3)).astype(np.uint8)
    changed = calibrate.apply_line(tiny_model.weights, 1.7, -0.6)
    before, after = (open_engine(weights, 32).window_log_odds(images)
                     for weights in (tiny_model.weights, changed))
    np.testing.assert_allclose(after, 1.7 * before - 0.6, rtol=1e-4, atol=1e-4)


@pytest.fixture
def data(tmp_path):
    """Validation lists of faces that are brighter than most non-faces."""
    rng = np.random.RandomState(2)
    for name, brightness in zip(LISTS["val"], (140, 100)):
        paths = []
        for number in range(30):
            paths.append(str(tmp_path / "{}{}.png".format(brightness, number)))
            Image.fromarray(np.full((32, 32, 3), brightness + rng.randint(-30, 30), np.uint8)
                            + np.uint8(number % 2)).save(paths[-1])
        save_list(str(tmp_path / name), paths)
    return tmp_path


def probability_of(path, brightness):
    """Of the sliding window at one scale, for an image that is as bright everywhere."""
    model = read_model(path)
    with open_engine(model.weights, 32) as engine:
        window, = SlidingWindow(engine, (1,), model.search_bias).find(
            [np.full((32, 32, 3), brightness, np.uint8)])
    return window.probability


def test_the_command(data, run_script, tmp_path):
    """The windows of 0.5 stay the same; a threshold of before is of no use."""
    path, out = str(tmp_path / "in.npz"), str(tmp_path / "out.npz")
    write_npz(path, bright_is_face(), np.float32,
              {"image_size": 32, "step": 7, "threshold": 0.9, "search_bias": 1.5})
    outcome = run_script(calibrate, "--data-dir", data, "--weights", path, "--out", out)
    assert outcome.code == 0 and "log loss" in outcome.out, outcome.err
    model = read_model(out)
    assert model.metadata["step"] == 7 and model.threshold == 0.5 and model.image_size == 32
    with open_engine(model.weights, 32) as engine:
        bright, dark = engine(np.stack([np.full((32, 32, 3), each, np.uint8)
                                        for each in (160, 80)]))[:, 0]
    assert dark < 0.1 and bright > 0.9
    before, after = (float(part.split()[2].rstrip(",;")) for part in (
        outcome.out.split("before ")[1], outcome.out.split(": ")[1]))
    assert after < before and outcome.out.count("of the faces wrong at 0.5") == 2
    called = [[probability_of(each, brightness) >= 0.5 for brightness in range(40, 220, 4)]
              for each in (path, out)]
    assert called[0] == called[1] and {True, False} == set(called[0])


def test_the_mean_of_models_gets_a_rate_of_its_own(data, run_script, tmp_path):
    """The mean of a model and itself is the model."""
    path, outs = str(tmp_path / "in.npz"), [str(tmp_path / name) for name in ("1.npz", "2.npz")]
    write_npz(path, bright_is_face(), metadata={"image_size": 32, "search_bias": 20.0})
    for out, weights in zip(outs, ([path, path], [path, "--rate", 0.01])):
        outcome = run_script(calibrate, "--data-dir", data, "--weights", *weights, "--out", out)
        assert outcome.code == 0, outcome.err
    mean, single = (read_model(out) for out in outs)
    assert mean.metadata == single.metadata and 0 <= mean.metadata["search_bias"] < 10
    for name, array in single.weights.items():
        np.testing.assert_array_equal(mean.weights[name], array)


def test_models_that_do_not_fit_together(tiny_model, data, run_script, tmp_path):
    path = str(tmp_path / "in.npz")
    write_npz(path, tiny_model.weights)
    outcome = run_script(calibrate, "--data-dir", data, "--weights", path, "released", "--out",
                         tmp_path / "out.npz")
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "no mean" in outcome.err
    assert not (tmp_path / "out.npz").exists()


def test_a_place_that_cannot_be_written_is_told_before_the_work(data, run_script, tmp_path):
    path, out = str(tmp_path / "in.npz"), str(tmp_path / "missing" / "out.npz")
    write_npz(path, bright_is_face(), metadata={"image_size": 32})
    outcome = run_script(calibrate, "--data-dir", data, "--weights", path, "--out", out)
    assert outcome.code == 2 and not outcome.out
    assert outcome.err.count("\n") == 1 and out in outcome.err


@pytest.mark.parametrize("name, message", [
    ("photo.jpg", "end its name in .npz"), ("photo.npz", "not weights of this program")])
def test_no_other_file_is_written_over(data, run_script, tmp_path, name, message):
    path = str(tmp_path / "in.npz")
    write_npz(path, bright_is_face(), metadata={"image_size": 32})
    (tmp_path / name).write_bytes(b"a photograph")
    outcome = run_script(calibrate, "--data-dir", data, "--weights", path, "--out",
                         tmp_path / name)
    assert outcome.code == 2 and message in outcome.err
    assert (tmp_path / name).read_bytes() == b"a photograph"
