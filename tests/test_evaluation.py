"""Metrics against scikit-learn's, formulas worked by hand, and the real data's bookkeeping."""

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from darknet_face.console import UserError
from darknet_face.evaluation import metrics
from darknet_face.evaluation.metrics import Scores, measure, threshold_at
from darknet_face.images.file_lists import Split, load_split


@pytest.fixture(scope="module")
def scored():
    """300 faces and 200 non-faces with overlapping scores; some of them equal."""
    rng = np.random.RandomState(3)
    labels = np.repeat([0, 1], [300, 200])
    scores = np.concatenate([rng.beta(4, 1.5, 300), rng.beta(1.2, 4, 200)]).round(2)
    return labels, scores


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9])
def test_metrics_equal_scikit_learns(scored, threshold):
    labels, scores = scored
    metrics = measure(labels, scores, threshold)
    truth, guess = labels == 0, scores >= threshold
    assert metrics["accuracy"] == sklearn_metrics.accuracy_score(truth, guess)
    assert metrics["precision"] == sklearn_metrics.precision_score(truth, guess)
    assert metrics["recall"] == sklearn_metrics.recall_score(truth, guess)
    assert metrics["f1"] == sklearn_metrics.f1_score(truth, guess)
    assert metrics["roc_auc"] == sklearn_metrics.roc_auc_score(truth, scores)
    assert metrics["average_precision"] == sklearn_metrics.average_precision_score(truth, scores)
    assert metrics["false_positive_rate"] == guess[~truth].mean()
    assert metrics["false_negative_rate"] == pytest.approx(1 - guess[truth].mean())
    assert metrics["confusion_matrix"] == [
        [(truth & guess).sum(), (truth & ~guess).sum()],
        [(~truth & guess).sum(), (~truth & ~guess).sum()]]
    assert json.loads(json.dumps(metrics)) == metrics


def test_wilson_interval():
    """Against the formula: p = 0.9, n = 100, z = 1.959964."""
    labels = np.repeat([0, 1], 50)
    scores = np.where(labels == 0, 0.9, 0.1)
    scores[:10] = 0.1
    n, p, z = 100, 0.9, 1.959963984540054
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    np.testing.assert_allclose(
        measure(labels, scores)["accuracy_interval"], [center - half, center + half])


def test_calibration_by_hand():
    """Bin 0.2..0.3: 4 images at 0.25, one a face; bin 0.9..1: 6 at 0.95 and 1.0, all faces."""
    is_face = np.array([True] + [False] * 3 + [True] * 6)
    scores = np.array([0.25] * 4 + [0.95] * 3 + [1.0] * 3)
    result = metrics.calibration(is_face, scores)
    assert [row["images"] for row in result["bins"]] == [4, 6]
    assert [row["face_share"] for row in result["bins"]] == [0.25, 1.0]
    for row in result["bins"]:
        low, high = row["face_share_interval"]
        assert 0 <= low <= row["face_share"] <= high <= 1
    assert result["bins"][1]["mean_probability"] == pytest.approx(0.975)
    assert result["expected_calibration_error"] == pytest.approx(6 / 10 * 0.025)


def test_calibration_error_against_a_plain_loop(scored):
    labels, scores = scored[0], scored[1] * 0.98 + 0.0137  # off the edges of the bins
    error = 0
    for low in range(10):
        inside = np.floor(scores * 10) == low
        if inside.any():
            error += inside.mean() * abs(scores[inside].mean() - (labels[inside] == 0).mean())
    result = metrics.calibration(labels == 0, scores)
    assert result["expected_calibration_error"] == pytest.approx(error)
    assert sum(row["images"] for row in result["bins"]) == len(labels)


@pytest.mark.parametrize("target", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_threshold_at_a_false_positive_rate(scored, target):
    """Exhaustively: no lower threshold among the scores keeps the rate."""
    labels, scores = scored
    point = threshold_at(labels, scores, target)
    non_faces, faces = scores[labels == 1], scores[labels == 0]
    if point["threshold"] is None:
        assert scores[labels == 1].max() == scores.max() and target < 1
        return
    assert (non_faces >= point["threshold"]).mean() == point["false_positive_rate"] <= target
    assert (faces >= point["threshold"]).mean() == point["recall"]
    for lower in np.unique(scores[scores < point["threshold"]]):
        assert (non_faces >= lower).mean() > target or not (faces >= lower).sum()


def test_threshold_has_the_fewest_decimals():
    labels = [1, 1, 0, 0]
    for scores, threshold in (([0.1, 0.2, 0.71234567, 0.9], 0.7), ([0.1, 0.29, 0.3, 0.9], 0.3),
                              ([0.1, 0.9999998, 0.99999991, 1.0], 0.9999999)):
        point = threshold_at(labels, scores, 0.0)
        assert point["threshold"] == threshold and point["recall"] == 1
    assert threshold_at(labels, [0.12, 0.3, 0.4, 0.5], 1.0)["threshold"] == 0.1


def test_threshold_when_a_non_face_scores_highest():
    point = threshold_at([0, 1], [0.3, 0.8], 0.0)
    assert point["threshold"] is None and point["recall"] == 0
    measured = dict(measure([0, 1], [0.3, 0.8]), at_false_positive_rate=point)
    assert "no threshold reaches it" in metrics.format_table(measured)


def test_false_positives_by_category():
    scores = Scores(
        ["f/1.jpg", "n/cat/1.jpg", "n/cat/2.jpg", "n/dog/1.jpg", "n/sky/1.jpg", "n/sky/2.jpg"],
        np.array([0, 1, 1, 1, 1, 1]), np.array([0.9, 0.8, 0.1, 0.5, 0.2, 0.1]), 0)
    assert metrics.false_positives_by_category(scores) == [
        {"category": "dog", "images": 1, "false_positives": 1, "rate": 1.0},
        {"category": "cat", "images": 2, "false_positives": 1, "rate": 0.5},
        {"category": "sky", "images": 2, "false_positives": 0, "rate": 0.0}]


class BrightnessClassifier:
    """Stands in for the network where only bookkeeping is tested: P(FACE) is the brightness."""

    image_size = 32

    def __call__(self, images):
        brightness = images.mean(axis=(1, 2, 3), dtype=np.float64) / 255
        return np.stack([brightness, 1 - brightness], axis=1).astype(np.float32)


def test_a_bad_file_is_left_out_and_counted(sample_dir, tmp_path, capsys):
    split = load_split(sample_dir, "test")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    with_bad = Split(split.faces[:5] + (str(bad),) + split.faces[5:], split.negatives)
    classifier = BrightnessClassifier()
    clean = metrics.score_split(classifier, split, batch_size=7)
    mixed = metrics.score_split(classifier, with_bad, batch_size=7)
    assert mixed.skipped == 1 and str(bad) in capsys.readouterr().err
    assert mixed.paths == clean.paths
    np.testing.assert_array_equal(mixed.face_probabilities, clean.face_probabilities)
    np.testing.assert_array_equal(mixed.labels, split.labels)
    assert "1 files did not decode" in metrics.format_table(metrics.measure_scores(mixed))


def test_no_readable_face_is_an_error(sample_dir, tmp_path):
    split = Split((str(tmp_path / "gone.jpg"),), load_split(sample_dir, "test").negatives)
    with pytest.raises(UserError, match="no image of class FACE"):
        metrics.score_split(BrightnessClassifier(), split)


def test_table_has_four_decimals_and_the_operating_point(scored):
    labels, scores = scored
    measured = measure(labels, scores)
    measured["at_false_positive_rate"] = threshold_at(labels, scores, 0.05)
    table = metrics.format_table(measured)
    assert "accuracy                    {:.4f}".format(measured["accuracy"]) in table
    assert "--threshold {!r} ".format(measured["at_false_positive_rate"]["threshold"]) in table
    assert "{:>15} {:>19}".format(*measured["confusion_matrix"][1]) in table
