"""The YOLOv2 example replaces nothing but its own files, and trains once in a folder."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from darknet_face.classify.inputs import InputImage
from darknet_face.console import UserError
from darknet_face.detection.datasets import Photograph
from darknet_face.detection.detect import detect_faces
from darknet_face.detection.yolov2 import history
from darknet_face.detection.yolov2.anchors import draw_anchors
from darknet_face.detection.yolov2.train import Options, check_outputs, train
from darknet_face.runtime.atomic_files import write_json
from darknet_face.training.lock import locked_folders


@pytest.fixture
def options(tmp_path):
    return Options(run_dir=str(tmp_path / "run"), model=str(tmp_path / "detector.pb"))


def test_nothing_is_in_the_way(options):
    check_outputs(options)
    history.HISTORY.write(os.path.join(options.run_dir, "history.csv"), [])
    write_json(os.path.join(options.run_dir, "settings.json"), {"anchors": []})
    check_outputs(options)  # of an earlier training


@pytest.mark.parametrize("name, content", [
    ("detector.pb", b"\xff\xd8\xff a photograph"), ("run/settings.json", b'{"fontSize": 12}'),
    ("run/history.csv", b"epoch,loss\n1,0.5\n"), ("run/checkpoints/settings.json", b"{}"),
])
def test_other_files_are_kept(options, tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for restart in (False, True):
        with pytest.raises(UserError) as caught:
            train(options._replace(restart=restart), {}, None)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_pipe_is_no_history(options):
    os.makedirs(options.run_dir)
    path = os.path.join(options.run_dir, "history.csv")
    os.mkfifo(path)
    for read in (lambda: check_outputs(options), lambda: history.HISTORY.read(path)):
        with pytest.raises(UserError, match="history.csv: not a regular file"):
            read()


@pytest.mark.parametrize("column, value", [
    ("step", "nan"), ("step", "1.5"), ("step", "-1"), ("ap50", "2"), ("total", "1e400"),
    ("total", "x"), ("learning_rate", "-inf"),
])
def test_a_damaged_history_is_refused(tmp_path, column, value):
    path = tmp_path / "history.csv"
    row = dict.fromkeys(history.HISTORY.columns, "0.5")
    row.update({"step": "3", column: value})
    path.write_text(",".join(history.HISTORY.columns) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(UserError, match="not a history of this training"):
        history.HISTORY.read(str(path))


def test_a_history_without_faces_is_read(tmp_path):
    row = dict(dict.fromkeys(history.HISTORY.columns, 0.5), step=3.0, ap40=float("nan"))
    history.HISTORY.write(str(tmp_path / "history.csv"), [row])
    found, = history.HISTORY.read(str(tmp_path / "history.csv"))
    assert np.isnan(found.pop("ap40")) and set(found.values()) == {0.5, 3.0}


def test_one_training_in_a_folder(options):
    with locked_folders({"--run-dir": options.run_dir}):
        with pytest.raises(UserError, match="another training.*choose another --run-dir"):
            train(options, {}, None)


def no_faces(_):
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def images(folder, *places):
    pixels = np.full((20, 30, 3), 99, np.uint8)
    return [InputImage(str(folder / "in" / place), place, pixels) for place in places]


def test_a_detection_replaces_no_photograph(tmp_path, capsys):
    photograph = tmp_path / "out" / "a.jpg"
    photograph.parent.mkdir()
    Image.new("RGB", (9, 9)).save(str(photograph))
    content = photograph.read_bytes()
    with pytest.raises(UserError, match="a.jpg: not an image drawn by this program"):
        detect_faces(no_faces, images(tmp_path, "a.jpg"), str(tmp_path / "out"))
    (tmp_path / "out" / "b.jpg.json").write_text('{"faces": "labels by hand"}')
    with pytest.raises(UserError, match="b.jpg.json: not a result of this program"):
        detect_faces(no_faces, images(tmp_path, "b.jpg"), str(tmp_path / "out"))
    assert photograph.read_bytes() == content
    for _ in range(2):  # its own results are replaced, whatever the image's format
        assert detect_faces(no_faces, images(tmp_path, "c.webp", "d.png"),
                            str(tmp_path / "out")) == (2, 0, 0)
    assert sorted(name for name in os.listdir(str(tmp_path / "out")) if name[0] in "cd") == [
        "c.webp.png", "c.webp.png.json", "d.png", "d.png.json"]


def test_one_picture_in_the_way_does_not_end_the_detection(tmp_path, capsys):
    (tmp_path / "out" / "folder.jpg").mkdir(parents=True)
    long = 251 * "l" + ".jpg"  # a file's name, but ".json" makes it too long
    found = detect_faces(no_faces, images(tmp_path, "folder.jpg", long, "good.jpg"),
                         str(tmp_path / "out"))
    assert found == (1, 0, 2)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.endswith("; skipped") for line in errors)
    with open(str(tmp_path / "out" / "good.jpg.json")) as stream:
        assert json.load(stream)["faces"] == []


def test_photographs_to_draw_that_do_not_decode(tmp_path, capsys):
    boxes = np.float32([[0.1, 0.1, 0.5, 0.5]])
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    Image.new("RGB", (40, 40)).save(str(tmp_path / "good.jpg"))
    bad, good = (Photograph(str(tmp_path / name), boxes, boxes[:0])
                 for name in ("bad.jpg", "good.jpg"))
    anchors = np.float32([[0.4, 0.4]])
    assert draw_anchors([bad, good], anchors, 64).width > 64
    assert "bad.jpg: not an image in a known format; skipped" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of the 1 images"):
        draw_anchors([bad], anchors, 64)
