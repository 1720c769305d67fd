"""The benchmark's arithmetic, its images, and a run of it with two engines at a tiny size."""

import argparse
import json
import os
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

sys.path.insert(1, os.path.join(ROOT, "benchmarks"))

import answers  # noqa: E402
import environments  # noqa: E402
import memory  # noqa: E402
import prepare  # noqa: E402
import run  # noqa: E402
import worker  # noqa: E402

from darknet_face.console import UserError  # noqa: E402

RATES = {
    ("training", "mkl"): [30.0, 10.0, 20.0],
    ("training", "pytorch"): [10.0, 10.0, 10.0],
    ("matrix product", "mkl"): [1e12, 3e12, 2e12],
    ("matrix product", "pytorch"): [1e12, 1e12, 1e12],
    ("inference, batch 1", "opencv"): [5.0, 5.0, 5.0],
}


def test_operations_are_those_of_the_table():
    """The paper counts 5.58 billion with 1,000 classes, that is 5.48 with two."""
    assert run.operations_per_image("inference, batch 1", 224) == pytest.approx(5.48e9, rel=1e-3)
    first = 2 * 224 * 224 * 3 * 3 * 3 * 32
    assert run.operations_per_image("training from files", 224) == (
        3 * run.operations_per_image("inference from files", 224) - first)
    assert run.operations_per_image("matrix product", 224) is None


def test_medians_and_shares_of_the_peak():
    rows, peak = run.summarise(RATES, 224)
    assert peak == 2e12
    row = next(row for row in rows if (row["task"], row["engine"]) == ("training", "mkl"))
    assert (row["median"], row["lowest"], row["highest"]) == (20, 10, 30)
    assert row["share_of_peak"] == pytest.approx(
        20 * run.operations_per_image("training", 224) / 2e12)
    assert not any("share_of_peak" in row for row in rows if row["task"] == "matrix product")


def test_ratios_are_taken_round_by_round():
    rows = run.compare(RATES, 16)
    assert [row["title"] for row in rows] == ["training, MKL, against PyTorch"]
    assert (rows[0]["median"], rows[0]["lowest"], rows[0]["highest"]) == (2, 1, 3)


def test_differing_answers_stop_the_run():
    class Said:
        def __init__(self, name, *answers):
            self.engine, self.answers = run.Engine(name, name, name, "", False), True
            self.run = lambda task: {"result": [list(answers)]}

    assert run.check_answers([Said("a", 0.25, 0.75), Said("b", 0.25, 0.75)]) == {"a": 0, "b": 0}
    for wrong in (0.251, float("nan")):
        with pytest.raises(UserError, match="b answers otherwise than a"):
            run.check_answers([Said("a", 0.25, 0.75), Said("b", wrong, 0.75)])


def test_lower_precisions_may_differ_and_float32_is_what_they_are_compared_with():
    class Said:
        answers = True

        def __init__(self, name, precision, answer):
            self.engine = run.Engine(name, name, name, "", False, precision)
            self.run = lambda task: {"result": [[answer, 1 - answer]]}

    close, exact = Said("low", "bfloat16", 0.75), Said("exact", "float32", 0.75 + 2 ** -5)
    assert run.check_answers([close, exact]) == {"exact": 0, "low": 2 ** -5}
    with pytest.raises(UserError, match="low answers otherwise than exact"):
        run.check_answers([Said("low", "bfloat16", 0.25), exact])


def test_every_engine_has_a_name_for_the_ratios_and_an_environment():
    for engine in run.ENGINES:
        assert os.path.exists(os.path.join(run.HERE, engine.script))
        for requirements in environments.REQUIREMENTS[engine.environment]:
            assert os.path.exists(requirements)
    named = {name for _, above, below in run.ratios(16) for _, name in (above, below)}
    assert named <= {engine.name for engine in run.ENGINES} and named <= set(run.SHORT_TITLES)


def test_accuracy_is_the_share_of_right_answers(tmp_path):
    """By a stub that calls images faces when they are bright: 3 of 4 are right."""
    pictures = np.zeros((4, 32, 32, 3), np.uint8)
    pictures[[0, 1, 3]] = 255
    np.savez(str(tmp_path / "labelled.npz"), pictures=pictures, labels=[0, 0, 1, 1])
    np.save(str(tmp_path / "pictures.npy"), pictures[:2])

    def predict(images):
        bright = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([bright, 1 - bright], axis=1)

    tasks = worker.inference_tasks(predict, argparse.Namespace(folder=str(tmp_path)))
    assert tasks["accuracy"](1) == 0.75
    assert tasks["answers"](1) == [[1, 0], [1, 0]]


def test_pictures_are_jpegs_of_unequal_sizes(tmp_path):
    paths = prepare.make_pictures(str(tmp_path), 24)
    sizes = [Image.open(path).size for path in paths]
    assert len(set(sizes)) == 24 and max(map(max, sizes)) == 2000
    assert {Image.open(path).format for path in paths} == {"JPEG"}
    again = tmp_path / "again"
    again.mkdir()
    for one, other in zip(paths, prepare.make_pictures(str(again), 24)):
        np.testing.assert_array_equal(Image.open(one), Image.open(other))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_all_processes_together():
    hold = "import time; content = b'x' * 100000000; time.sleep({})"
    program = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {!r}]); {}"
    command = [sys.executable, "-c", program.format(hold.format(3), hold.format(2))]
    assert 200e6 < memory.peak_of(command) < 300e6


def test_a_run(run_script, tmp_path):
    outcome = run_script(
        run, "--engines", "stock", "plain-stock", "--python", "stock=" + sys.executable,
        "--rounds", 2, "--seconds", 0, "--image-size", 32, "--batch-size", 2, "--pictures", 16,
        "--no-memory", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    with open(str(tmp_path / "results.json")) as stream:
        results = json.load(stream)
    found = {(row["task"], row["engine"]) for row in results["rows"]}
    assert found == {("training", "stock"), ("training", "plain-stock"),
                     ("inference, batch 2", "stock"), ("inference, batch 1", "stock")}
    assert all(len(row["rounds"]) == 2 and row["lowest"] > 0 for row in results["rows"])
    assert results["largest_differences"] == {"stock": 0}
    assert 0.4 < results["accuracy"]["stock"] <= 1  # of 25-pixel images, at 32 pixels
    assert "training, stock, against a plain graph on it" in outcome.out
    assert Image.open(str(tmp_path / "results.png")).width > 400


def test_an_engine_that_ends_is_one_line(run_script, tmp_path):
    outcome = run_script(run, "--engines", "pytorch", "--python", "pytorch=/bin/false",
                         "--image-size", 32, "--pictures", 16, "--out", tmp_path)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("error: PyTorch ended with exit code 1")


def test_recall_at_a_rate_of_false_positives():
    labels = [True] * 4 + [False] * 100
    scores = [0.9, 0.8, 0.5, 0.2] + [0.7, 0.5] + [0.1] * 98
    assert answers.recall_at(scores, labels, 0.01) == 0.5  # above 0.5: the 0.7 may be
    assert answers.recall_at(scores, labels, 0.0) == 0.5
    assert answers.recall_at(scores, labels, 0.02) == 1


def test_answers_of_this_project_are_measured(run_script, tmp_path, monkeypatch):
    outcome = run_script(answers, "--searches", "off", "--peers", "--images", 2, "--rounds", 2,
                         "--megapixels", 0.5, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "YuNet: skipped; name its file by --yunet" in outcome.err
    with open(str(tmp_path / "answers.json")) as stream:
        results = json.load(stream)["results"]
    assert list(results) == ["this project, onnxruntime, float32, search off",
                             "this project, onnxruntime, int8, search off"]
    for title, row in results.items():
        assert row["scores"][0] > 0.9 and row["cpu"] > 0 and row["first"]["cpu"] > row["cpu"]
        assert title in outcome.out and "recall" not in row


def test_images_as_a_phone_has_them(tmp_path):
    large, = answers.as_a_phone_has_them(answers.choose_images(argparse.Namespace(
        wider_dir=None, non_faces=None, images=1))[0], 3, str(tmp_path))
    assert np.prod(Image.open(large).size) == pytest.approx(3e6, rel=1e-3)


def test_peers_that_can_not_be_installed_are_skipped(monkeypatch, capsys):
    monkeypatch.setenv("PEER_PYTHON", "/bin/false")
    monkeypatch.setattr(environments, "HERE", "/nowhere")
    found = answers.contenders(argparse.Namespace(
        engines=["tensorflow"], searches=["1"], yunet="file", peers=["mediapipe"]))
    assert list(found) == ["this project, tensorflow, float32, search 1", "YuNet"]
    assert "MediaPipe: skipped; " in capsys.readouterr().err


def test_a_peer_that_ends_is_one_line(tmp_path):
    with pytest.raises(UserError, match="gone: ended at a.jpg"):
        answers.measure({"gone": [sys.executable, "yunet", str(tmp_path / "none.onnx")]},
                        ["a.jpg"], 1, 1)
