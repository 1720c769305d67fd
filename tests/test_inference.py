"""inference.py on anything: its answers, its model, how it stops and goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import BAD, GOOD, ROOT, heed_sigint, make_odd_files, read_csv, read_json_lines
from PIL import Image

import inference
import test as test_script
from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.engines import tensorflow_classifier as graphs
from darknet_face.images.decode import read_image
from darknet_face.weights import model_file
from darknet_face.weights.model_file import read_model
from darknet_face.weights.npz import write_npz


def face_probability(classifier, path):
    """The truth for one file, without the code under test: Pillow decodes, OpenCV resizes."""
    image = cv2.resize(np.asarray(Image.open(path).convert("RGB")), (32, 32))
    return float(classifier(image[np.newaxis])[0, 0])


def test_terminal_csv_and_json_tell_the_same(infer, pictures, classifier, tmp_path):
    table, lines = str(tmp_path / "out.csv"), str(tmp_path / "out.jsonl")
    outcome = infer(pictures, "--csv", table, "--json", lines, "--batch-size", 7)
    assert outcome.code == 0
    rows = read_csv(table)
    objects = read_json_lines(lines)
    assert len(rows) == len(objects) == len(outcome.out.splitlines()) == 20
    assert len({line.index(pictures) for line in outcome.out.splitlines()}) == 1, "aligned"
    for row, each, line in zip(rows, objects, outcome.out.splitlines()):
        truth = face_probability(classifier, row["file"])
        assert each["face_probability"] == pytest.approx(truth, abs=1e-5)
        assert float(row["face_probability"]) == each["face_probability"]
        name = "FACE" if truth >= 0.5 else "NON_FACE"
        assert row["class"] == each["class"] == name
        assert each["probability"] == pytest.approx(max(truth, 1 - truth), abs=1e-5)
        assert line.split() == [name, "{:.4f}".format(each["probability"]), row["file"]]
    assert len({row["class"] for row in rows}) == 2, "the images must not all be alike"
    assert "classified 20 images" in outcome.err
    assert "model: " in outcome.err and "darknet19_weights.npz" in outcome.err


def test_threshold(infer, pictures, tmp_path):
    table = str(tmp_path / "out.csv")
    infer(pictures, "--csv", table)
    scores = sorted(float(row["face_probability"]) for row in read_csv(table))
    infer(pictures, "--csv", table, "--threshold", repr(scores[15]))
    assert sum(row["class"] == "FACE" for row in read_csv(table)) == 5


def test_unusual_and_bad_files(infer, tmp_path):
    folder = tmp_path / "odd"
    make_odd_files(folder)
    outcome = infer(folder, "--csv", tmp_path / "out.csv")
    assert outcome.code == 0
    assert {os.path.basename(row["file"]) for row in read_csv(str(tmp_path / "out.csv"))} == GOOD
    for name in BAD:
        assert sum(name in line for line in outcome.err.splitlines()) == 1
    assert "3 could not be read" in outcome.err
    assert "Traceback" not in outcome.err


def test_no_picture_at_all(infer, tmp_path):
    make_odd_files(tmp_path / "odd")
    outcome = infer(*[tmp_path / "odd" / name for name in BAD])
    assert outcome.code == 1 and outcome.out == ""
    assert "no image could be classified" in outcome.err.splitlines()[-1]
    (tmp_path / "nothing").mkdir()
    assert infer(tmp_path / "nothing").code == 1


def test_quiet_answers_by_exit_code(infer, pictures, tmp_path):
    table, gone = str(tmp_path / "out.csv"), tmp_path / "gone.jpg"
    infer(pictures, "--csv", table)
    rows = read_csv(table)
    faces = [row["file"] for row in rows if row["class"] == "FACE"]
    others = [row["file"] for row in rows if row["class"] != "FACE"]
    for names, code in ((faces[:1], 0), (others[:1], 1), (others + faces[:1], 0), (others, 1),
                        (others[:1] + [gone], 2), (faces[:1] + [gone], 0), ([gone], 2)):
        outcome = infer(*names, "--quiet")
        assert outcome.code == code and outcome.out == ""
        assert ("gone.jpg" in outcome.err) == (gone in names)
        assert outcome.err.count("\n") <= 2 and (outcome.err == "" or gone in names)
    outcome = infer(pictures, "--quiet", "--csv", table)
    assert outcome.code == 0 and outcome.out == "" and read_csv(table) == rows


def test_quiet_stops_at_the_first_face(infer, pictures, engine, monkeypatch):
    seen = []
    original = type(engine).__call__
    monkeypatch.setattr(type(engine), "__call__", lambda self, images: seen.append(
        len(images)) or original(self, images))
    assert infer(pictures, "--quiet", "--threshold", 0, "--batch-size", 2).code == 0
    assert seen == [2]


def test_interrupt_keeps_what_is_done(infer, pictures, tmp_path, engine, monkeypatch):
    table = str(tmp_path / "out.csv")
    infer(pictures, "--csv", table, "--batch-size", 4)
    uninterrupted = read_csv(table)
    original, calls = type(engine).__call__, []

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(type(engine), "__call__", interrupted)
        sheet = str(tmp_path / "contacts.png")
        outcome = infer(pictures, "--csv", table, "--batch-size", 4, "--contact-sheet", sheet)
    assert outcome.code == 130 and "Traceback" not in outcome.err
    assert read_csv(table) == uninterrupted[:8]
    assert os.path.exists(sheet)
    assert infer(pictures, "--csv", table, "--batch-size", 4, "--resume").code == 0
    assert read_csv(table) == uninterrupted


def test_results_stream_and_survive_a_signal(tiny_model, pictures, tmp_path):
    """A process of its own: rows appear while the list is still coming; SIGINT ends it cleanly."""
    table = str(tmp_path / "out.csv")
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "inference.py"), "-", "--search", "off", "--csv", table,
         "--batch-size", "2", "--model-dir", tiny_model.folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_sigint)
    try:
        for _ in range(6):
            process.stdin.write(os.fsencode(pictures) + b"/00.png\n")
        process.stdin.flush()
        deadline = time.time() + 120
        while not os.path.exists(table) or len(read_csv(table)) < 2:
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and b"Traceback" not in errors
    assert len(read_csv(table)) >= 2


@pytest.mark.parametrize("arguments", [
    ("--csv", "out.csv"), ("--heatmap", "maps"), ("x.jpg", "--robustness"),
    ("x.jpg", "--report", "r"), ("x.jpg", "--at-fpr", "0.1"), ("x.jpg", "--resume"),
    ("x.jpg", "--camera", "0"),
    ("x.jpg", "--csv", "-", "--json", "-"), ("x.jpg", "--csv", "out", "--json", "./out"),
    ("x.png", "--contact-sheet", "x.png"), ("x.png", "--csv", "a.png", "--contact-sheet", "a.png"),
    ("--camera", str(10 ** 20)), ("--json", "-"), ("x.jpg", "--threshold", "50"),
    ("x.jpg", "--image-size", "100"), ("x.jpg", "--fps", "0"), ("--quiet",), ("--only", "face"),
    ("x.jpg", "--csv", "out.csv", "--resume", "--only", "face"),
    ("x.jpg", "--csv", "out.csv", "--resume", "--quiet")])
def test_contradictory_options(infer, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    outcome = infer(*arguments)
    assert outcome.code == 2 and outcome.err.startswith("usage: ")
    assert os.listdir(str(tmp_path)) == []


def test_the_released_model_stands_in(run_script, tiny_model, pictures, tmp_path, monkeypatch):
    path = tmp_path / "released" / "darknet19_face.npz"
    write_npz(str(path), tiny_model.weights, np.float16)
    (path.parent / "darknet19_face.json").write_text('{"image_size": 64}')
    monkeypatch.setattr(model_file, "RELEASED", str(path))
    empty = tmp_path / "models"
    empty.mkdir()
    outcome = run_script(inference, pictures, "--model-dir", empty, "--json", "-",
                         "--search", "off")
    assert outcome.code == 0
    first = outcome.err.splitlines()[0]
    assert "darknet19_face.npz (the released one), input 64 x 64" in first
    truth = graphs.classifier_from_weights(read_model(str(path)).weights, 64)
    row = json.loads(outcome.out.splitlines()[0])
    image = cv2.resize(read_image(row["file"]), (64, 64))
    assert row["face_probability"] == pytest.approx(float(truth(image[np.newaxis])[0, 0]), abs=1e-5)


def test_both_scripts_find_the_same_metrics(infer, run_script, sample_dir, tiny_model):
    assert infer("--data-dir", sample_dir, "--at-fpr", 0.1).code == 0
    assert run_script(test_script, "--data-dir", sample_dir, "--model-dir", tiny_model.folder,
                      "--at-fpr", 0.1).code == 0
    metrics = []
    for name in ("test_metrics.json", "inference_metrics.json"):
        with open(os.path.join(tiny_model.folder, name)) as stream:
            metrics.append(json.load(stream))
    assert metrics[0]["images"] == 40
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision",
                 "log_loss", "confusion_matrix", "accuracy_interval"):
        np.testing.assert_allclose(metrics[0][name], metrics[1][name], atol=1e-5, err_msg=name)
    assert metrics[0]["at_false_positive_rate"]["recall"] == pytest.approx(
        metrics[1]["at_false_positive_rate"]["recall"])


def test_search_finds_a_picture_within_a_picture(infer, pictures, tmp_path, engine):
    """The answer is the best window's, and the table says where that window is."""
    search = SlidingWindow(engine, (1, 2))
    table = str(tmp_path / "out.csv")
    sheet = tmp_path / "contacts.png"
    outcome = infer(pictures, "--search", "2", "--csv", table, "--contact-sheet", sheet)
    assert outcome.code == 0 and sheet.exists()
    for row in read_csv(table):
        window, = search.find([read_image(row["file"])])
        assert float(row["face_probability"]) == pytest.approx(window.probability, abs=1e-5)
        box = [float(value) for value in window[1:5]]
        assert [int(row[name]) for name in ("x", "y", "width", "height")] == [
            int(round(value)) for value in box]


def test_one_look_has_no_place(infer, pictures, tmp_path):
    table = str(tmp_path / "out.csv")
    infer(pictures, "--csv", table)
    assert {row["x"] for row in read_csv(table)} == {""}
