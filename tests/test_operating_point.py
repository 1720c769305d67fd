"""The stored threshold: chosen on validation images, for one look and for searches alike."""

import numpy as np
import pytest
from scipy.special import expit

import extract_weights
from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.engines.engine import open_engine
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.evaluation.metrics import score_split, threshold_at
from darknet_face.evaluation.operating_point import (
    best_threshold,
    bias_of_search,
    choose_operating_point,
)
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import Split, load_split
from darknet_face.weights.model_file import read_model


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("threshold", [0.03, 0.5, 0.9])
def test_the_bias_keeps_the_rate_and_a_smaller_one_does_not(rate, threshold):
    log_odds = np.random.RandomState(0).normal(0, 3, 250)
    bias = bias_of_search(log_odds, threshold, rate)
    assert (expit(log_odds - bias) >= threshold).mean() <= rate
    assert bias == round(bias, 2) >= 0
    assert bias == 0 or (expit(log_odds - bias + 0.02) >= threshold).mean() > rate


def test_no_false_positive_is_allowed_for_nothing():
    """The lowest threshold at 0.5 would be 0.15; 0.4 finds the same faces, 0.9 only one."""
    labels, scores = [0, 0, 1, 1, 1, 1], [0.95, 0.45, 0.3, 0.2, 0.1, 0.05]
    point = best_threshold(labels, scores, 0.5)
    assert (point["threshold"], point["false_positive_rate"], point["recall"]) == (0.4, 0, 1)
    assert point["target"] == 0.5
    mixed = [0, 1, 0, 1, 1, 1]
    assert best_threshold(mixed, scores, 0.2)["recall"] == 0.5
    assert best_threshold(mixed, scores, 0.5)["threshold"] == 0.3
    assert best_threshold([1, 0, 1, 1, 0, 1], scores, 0.1)["threshold"] is None


def test_the_bias_at_the_ends():
    assert bias_of_search([], 0.5, 0.1) == 0
    assert bias_of_search([-1e9], 1.0, 0.0) == 0 and bias_of_search([1e9], 0.0, 0.0) == 1000


def test_one_look_and_searches_keep_the_rate(tiny_model, sample_dir, capsys):
    split = load_split(sample_dir, "test")
    point = choose_operating_point(tiny_model.weights, 32, split, 0.3)
    scores = score_split(classifier_from_weights(tiny_model.weights, 32), split)
    called_face = scores.face_probabilities >= point["threshold"]
    lowest = threshold_at(scores.labels, scores.face_probabilities, 0.3)
    assert called_face[scores.labels == 1].mean() <= 0.3
    assert called_face[scores.labels == 0].mean() == lowest["recall"]
    search = SlidingWindow(open_engine(tiny_model.weights, 32), bias=point["search_bias"])
    found = [search.find([read_image(path)])[0].probability for path in split.negatives]
    assert (np.array(found) >= point["threshold"]).mean() <= 0.3
    captured = capsys.readouterr()
    assert "false-positive rate of" in captured.out and captured.err == ""


def test_too_few_non_faces_are_said(tiny_model, sample_dir, capsys):
    split = load_split(sample_dir, "val")
    choose_operating_point(tiny_model.weights, 32, split, 0.01)
    said = capsys.readouterr().err.splitlines()[0]
    assert "10 validation non-faces are too few for this rate; it needs at least 100" in said


def test_a_rate_that_no_threshold_keeps(tiny_model, sample_dir, capsys):
    """The classes are swapped in the lists of a model that tells them apart a little."""
    split = load_split(sample_dir, "val")
    scores = score_split_of(tiny_model, split)
    faces = sorted(split.paths, key=scores.get)
    swapped = Split(tuple(faces[:10]), tuple(faces[10:]))
    assert choose_operating_point(tiny_model.weights, 32, swapped, 0.0) == {}
    assert "no threshold keeps this rate" in capsys.readouterr().err


def score_split_of(tiny_model, split):
    scores = score_split(classifier_from_weights(tiny_model.weights, 32), split)
    return dict(zip(scores.paths, scores.face_probabilities))


def test_extracting_stores_the_threshold_and_others_use_it(
        run_script, tiny_model, sample_dir, tmp_path):
    import inference
    import test as test_script

    options = ("--model-dir", tmp_path, "--data-dir", sample_dir)
    outcome = run_script(
        extract_weights, *options + ("--weights", tiny_model.pb, "--at-fpr", "0.5"))
    assert outcome.code == 0, outcome.err
    path = str(tmp_path / "darknet19_weights.npz")
    stored = read_model(path).metadata
    assert set(stored) == {"image_size", "class_names", "step", "threshold", "search_bias"}
    picture = load_split(sample_dir, "test").faces[0]
    outcome = run_script(inference, *options + (picture, "--search", "off"))
    assert "threshold {} (stored with the model)".format(stored["threshold"]) in outcome.err
    outcome = run_script(test_script, *options + ("--weights", path))
    assert outcome.code == 0 and "threshold {} (stored with the model)".format(
        stored["threshold"]) in outcome.out
    again = tmp_path / "again"
    outcome = run_script(extract_weights, "--weights", path, "--model-dir", again, "--data-dir",
                         again)
    assert outcome.code == 0 and read_model(str(again / "darknet19_weights.npz")).metadata == stored
