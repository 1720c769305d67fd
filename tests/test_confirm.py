"""Boxes of the detector, confirmed by the classifier: what it sees, and what comes of both."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
from conftest import read_csv, read_json_lines
from PIL import Image

import inference
from darknet_face.classify.api import load
from darknet_face.classify.results import Box
from darknet_face.console import UserError
from darknet_face.detection import calibrate
from darknet_face.detection.calibration import Calibration, log_odds
from darknet_face.detection.confirm import FaceFinder, crop
from darknet_face.detection.detector import LEAST_SCORE, OnePassDetector
from darknet_face.detection.model_file import Spec, read_detector, read_spec, write_detector
from darknet_face.detection.pyramid import variable_shapes
from darknet_face.weights.arrays import fingerprint

SPEC = Spec(width=0.02, channels=4, image_size=96)
CALIBRATION = Calibration(alone=(0.5, 2.0), together=(-1.0, 0.5, 0.25), margin=1.8, most_boxes=2,
                          hopeless=-3.0, certain=4.0, whole=(0.5, 0.75, 0.25), unlikely=0.0,
                          likely=0.0, others=0.0, classifier="")


class Classifier:
    """Stands for an engine: says what it is told of each crop."""

    image_size = 32

    def __init__(self, *odds):
        self.odds, self.seen = list(odds), []

    def window_log_odds(self, images):
        self.seen += list(images)
        return np.array([self.odds.pop(0) for _ in images], np.float32)[:, None, None]


def finder(scores, *odds, **changes):
    boxes = np.array([[0.1, 0.1, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9], [0, 0, 1, 1]], np.float32)
    return FaceFinder(lambda _: (boxes[:len(scores)], np.array(scores)), Classifier(*odds),
                      dataclasses.replace(CALIBRATION, **changes))


def probability(odds):
    return 1 / (1 + np.exp(-odds))


IMAGE = np.random.RandomState(0).randint(0, 256, (60, 80, 3)).astype(np.uint8)


def test_both_answers_are_joined_for_the_best_boxes():
    found, faces = finder([0.6, 0.4, 0.3], -2.0, 6.0)(IMAGE)
    expected = [-1 + 0.5 * log_odds(0.4) + 0.25 * 6, -1 + 0.5 * log_odds(0.6) - 0.25 * 2,
                0.5 + 2 * log_odds(0.3)]
    assert [face.probability for face in faces] == pytest.approx(
        sorted(map(probability, expected), reverse=True))
    assert found == faces[0].probability
    assert faces[0][:4] == pytest.approx((0.5, 0.5, 0.9, 0.9))


def test_the_classifier_is_not_asked_about_certain_and_hopeless_boxes():
    for scores in ([0.9, 0.5], [0.05, 0.02], []):
        found, faces = finder(scores)(IMAGE)  # a look would raise IndexError
        best = max(scores, default=LEAST_SCORE)
        assert found == pytest.approx(probability(0.5 + 2 * log_odds(best)))
        assert len(faces) == len(scores)


def test_the_window_slides_over_images_in_doubt():
    """At one scale after the other; the best joins what the boxes said."""
    before = -1 + 0.5 * log_odds(0.6) + 0.25 * 2.0
    windows = 1.0, 3.0, -5.0, 2.0
    expected = probability(0.5 + 0.75 * before + 0.25 * 3.0)
    found, faces = finder([0.6], 2.0, *windows, unlikely=-1.0, likely=2.0)(IMAGE)
    assert found == faces[0].probability == pytest.approx(expected)
    assert faces[0][:4] == pytest.approx((0.1, 0.1, 0.3, 0.4))
    nothing = 0.5 + 2 * log_odds(LEAST_SCORE)
    found, faces = finder([], 9.0, -1.0, -1.0, -1.0, unlikely=-99.0, likely=99.0)(IMAGE)
    assert found == pytest.approx(probability(0.5 + 0.75 * nothing + 0.25 * 9))
    left, top, right, bottom = faces[0][:4]
    assert (top, bottom) == (0, 1) and 0 <= left < right <= 1, "the window is the box"


def test_the_window_stops_where_the_doubt_ends():
    before = -1 + 0.5 * log_odds(0.6) + 0.25 * 2.0
    one_scale = finder([0.6], 2.0, 9.0, unlikely=-1.0, likely=2.0)
    assert one_scale(IMAGE)[0] == pytest.approx(probability(0.5 + 0.75 * before + 0.25 * 9))
    for limits in ({"unlikely": before + 0.01, "likely": 2.0},
                   {"unlikely": -1.0, "likely": before - 0.01}):
        assert finder([0.6], 2.0, **limits)(IMAGE)[0] == pytest.approx(probability(before))


def test_further_faces_are_likelier_where_one_is_certain():
    odds = [0.5 + 2 * log_odds(score) for score in (0.9, 0.7, 0.3)]
    _, faces = finder([0.9, 0.7, 0.3], certain=4.0, others=3.5)(IMAGE)
    assert [face.probability for face in faces] == pytest.approx(
        [probability(each) for each in (odds[0], min(odds[0], odds[1] + 3.5), odds[2] + 3.5)])


def test_a_crop_is_the_square_around_its_box():
    whole = np.arange(100 * 100, dtype=np.int64).reshape(100, 100, 1) % 251 * np.ones(3, int)
    image = whole.astype(np.uint8)
    inside = crop(image, np.array([0.4, 0.45, 0.6, 0.55]), 2.0, 40)
    np.testing.assert_array_equal(inside, image[30:70, 30:70])
    corner = crop(image, np.array([0.0, 0.0, 0.2, 0.2]), 2.0, 40)
    np.testing.assert_array_equal(corner[10:, 10:], image[:30, :30])
    np.testing.assert_array_equal(corner[:10, 10:], np.repeat(image[:1, :30], 10, 0))
    for size in (1, 33, 3000):  # of boxes much larger and smaller than the crop
        tall = np.zeros((size, 7, 3), np.uint8)
        assert crop(tall, np.array([0.0, 0.0, 1.0, 1.0]), 10.0, 32).shape == (32, 32, 3)


def made_scores(rng, count, face, group):
    """The classifier knows better than the detector; the second box is the face at times."""
    rows = []
    for _ in range(count):
        detected = np.sort(rng.randn(2) + (1 if face else -1))[::-1]
        rows.append(calibrate.Scores(group, detected, rng.randn(2) * 2 + (4 if face else -4),
                                     np.maximum.accumulate(rng.randn(3) + (1 if face else -1))))
    return rows


def test_the_fit_separates_and_half_is_rare_among_the_negatives():
    rng = np.random.RandomState(0)
    scores = (made_scores(rng, 400, True, "faces")
              + made_scores(rng, 1000, False, calibrate.NEGATIVES)
              + [calibrate.Scores(calibrate.NEGATIVES, np.zeros(0), np.zeros(0), np.array([-9.0]))])
    found = calibrate.fit(scores, 1.8, "x")
    answers = [calibrate.answer(each, found) for each in scores]
    odds = np.array([each.odds for each in answers])
    assert np.mean(odds[400:] >= 0) == pytest.approx(calibrate.HALF, abs=0.001)
    assert np.mean(odds[:400] > 0) > 0.9 and found.together[2] > 0 and found.most_boxes == 2
    slid = [each.scales for each in answers]
    assert {0, 3} <= set(slid) <= {0, 1, 2, 3} and np.mean(slid) < 2 and min(found.whole[1:]) > 0
    without = dataclasses.replace(found, unlikely=0.0, likely=0.0)
    assert np.mean(odds[:400] > 0) > np.mean(
        [calibrate.answer(each, without).odds > 0 for each in scores[:400]])
    with pytest.raises(UserError, match="only 5 images with a face; .* at least 20"):
        calibrate.check_enough(scores[395:])
    threshold = calibrate.threshold_alone(scores)
    best = [max(each.detected, default=-9) for each in scores[400:]]
    assert np.mean(best > log_odds(threshold)) == pytest.approx(0.01, abs=0.002)


def test_the_table_measures_each_half_by_the_other():
    rng = np.random.RandomState(0)
    scores = (made_scores(rng, 400, True, "faces")
              + made_scores(rng, 1000, False, calibrate.NEGATIVES))
    parts = calibrate.crossed(scores, 1.8)
    assert [part for part, _ in parts] == [scores[::2], scores[1::2]]
    assert parts[0][1] == calibrate.fit(scores[1::2], 1.8, "")
    row, = [line for line in calibrate.format_table(parts).splitlines() if line[:5] == "faces"]
    words = row.split()
    alone, window, together = (float(words[place]) for place in (2, 4, 6))
    assert words[1] == "400" and alone < 90 < together and window < together


@pytest.fixture(scope="module")
def weights():
    rng = np.random.RandomState(0)
    return {name: np.abs(rng.randn(*shape)) + 0.5 if name.endswith("variance")
            else rng.randn(*shape) * 0.3
            for name, shape in variable_shapes(SPEC.width, SPEC.channels).items()}


@pytest.fixture
def folder(weights, tiny_model, tmp_path):
    """A model folder with a detector that is calibrated for the classifier in it."""
    shutil.copy(tiny_model.npz, str(tmp_path))
    fitted = dataclasses.replace(CALIBRATION, classifier=fingerprint(tiny_model.weights))
    write_detector(str(tmp_path / "face_detector.npz"), weights,
                   dataclasses.replace(SPEC, calibration=fitted))
    return tmp_path


def test_the_file_keeps_its_calibration(folder, tiny_model):
    assert read_spec(str(folder / "face_detector.npz")).calibration == dataclasses.replace(
        CALIBRATION, classifier=fingerprint(tiny_model.weights))


@pytest.mark.parametrize("change", [
    {"alone": [1]}, {"together": [1, 2, "3"]}, {"whole": [1]}, {"likely": None}, {"others": "1"},
    {"margin": 0.5}, {"margin": float("nan")},
    {"most_boxes": 10 ** 9}, {"most_boxes": True}, {"certain": 1e9}, {"classifier": 5}, {"x": 1}])
def test_an_absurd_calibration_is_refused(change):
    with pytest.raises(UserError, match="d.npz: no usable calibration; run"):
        Calibration.parse(dict(dataclasses.asdict(CALIBRATION), **change), "d.npz")
    for other in (5, [], {}, {"alone": 1}):
        with pytest.raises(UserError, match="no usable calibration"):
            Calibration.parse(other, "d.npz")


def test_the_api_counts_faces(folder, weights):
    path = str(folder / "darknet19_weights.npz")
    image = np.random.RandomState(5).randint(0, 256, (120, 160, 3)).astype(np.uint8)
    with load(path, model_dir=str(folder), image_size=32) as model, load(
            path, 4, model_dir=str(folder), image_size=32) as window:
        result, windowed = model(image), window(image)
        everything = model(image, threshold=0)
    assert windowed.faces is None and windowed.box is not None
    detector = OnePassDetector(*read_detector(str(folder / "face_detector.npz")),
                               min_score=LEAST_SCORE)
    assert len(everything.faces) == len(detector(image)[0]) > 0
    assert all(face.probability >= 0.5 for face in result.faces)
    odds = [face.probability for face in everything.faces]
    assert odds == sorted(odds, reverse=True) and result.probability == odds[0]
    assert everything.box == everything.faces[0].box and isinstance(everything.box, Box)
    for face in everything.faces:
        assert face.box.x >= 0 and face.box.x + face.box.width <= 160
        assert face.box.y >= 0 and face.box.y + face.box.height <= 120


def test_tables_have_the_number_and_json_the_boxes(folder, run_script, tmp_path):
    Image.fromarray(IMAGE).save(str(tmp_path / "a.png"))
    (tmp_path / "bad.png").write_bytes(b"x")
    names = [str(tmp_path / "a.png"), str(tmp_path / "bad.png")]
    options = [*names, "--model-dir", folder, "--image-size", 32, "--search", "detector"]
    tables = ["--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json"]
    outcome = run_script(inference, *options, *tables, "--threshold", 0, "--contact-sheet",
                         tmp_path / "sheet.png")
    assert outcome.code == 0 and "bad.png" in outcome.err, outcome.err
    (row,), (line,) = read_csv(str(tmp_path / "t.csv")), read_json_lines(str(tmp_path / "t.json"))
    assert int(row["faces"]) == line["faces"] == len(line["boxes"]) > 0
    assert [line["boxes"][0][name] for name in ("x", "y", "width", "height")] == [
        line[name] for name in ("x", "y", "width", "height")]
    outcome = run_script(inference, *options, *tables, "--resume")
    assert outcome.code == 0 and "1 were done before" in outcome.err
    assert read_json_lines(str(tmp_path / "t.json")) == [line]


def test_a_detector_belongs_to_its_classifier(folder, weights):
    path = str(folder / "darknet19_weights.npz")
    write_detector(str(folder / "face_detector.npz"), weights, SPEC)
    with pytest.raises(UserError, match="no detector is calibrated for this model; run python -m"):
        load(path, "detector", model_dir=str(folder), image_size=32)
    with load(path, model_dir=str(folder), image_size=32) as model:
        assert model(IMAGE).faces is None and "sliding window" in model.method, "by default"


def test_a_detector_of_your_own_that_does_not_read_is_passed_over(folder, capsys):
    path = str(folder / "darknet19_weights.npz")
    (folder / "face_detector.npz").write_bytes(b"PK")
    with load(path, model_dir=str(folder), image_size=32) as model:
        assert model(IMAGE).faces is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "face_detector.npz" in err and "passed over" in err


def test_the_command_writes_the_calibration(weights, tiny_model, run_script, tmp_path):
    rng = np.random.RandomState(3)
    for name, spread in (("faces", 255), ("others", 9)):
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.fromarray(rng.randint(0, spread, (64, 64, 3)).astype(np.uint8)).save(
                str(tmp_path / name / "{}.png".format(number)))
    (tmp_path / "faces" / "bad.png").write_bytes(b"x")
    path = str(tmp_path / "d.npz")
    write_detector(path, weights, SPEC)
    options = [path, "--weights", tiny_model.npz, "--faces", tmp_path / "faces", "--negatives",
               tmp_path / "others"]
    outcome = run_script(calibrate, *options, "--dry-run", "--reliability", tmp_path / "r.png")
    assert Image.open(str(tmp_path / "r.png")).width > 400
    assert outcome.code == 0 and read_spec(path).calibration is None, outcome.err
    assert "bad.png" in outcome.err and "\nfaces " in outcome.out
    assert run_script(calibrate, *options).code == 0
    spec = read_spec(path)
    assert spec.calibration.classifier == fingerprint(tiny_model.weights)
    assert 0 < spec.threshold < 1 and spec.calibration.alone[0] + spec.calibration.alone[
        1] * log_odds(spec.threshold) == pytest.approx(0, abs=0.01)
    os.remove(str(tmp_path / "others" / "3.png"))
    outcome = run_script(calibrate, *options)
    assert outcome.code == 2 and "only 19 negatives" in outcome.err
