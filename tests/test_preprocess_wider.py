"""Photographs with boxes to crops and lists: the right squares, no photograph in two splits."""

import argparse
import os

import numpy as np
import pytest
from PIL import Image

import preprocess_wider
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import load_list
from darknet_face.images.wider_face import Face, LabelledImage


@pytest.fixture
def wider(tmp_path):
    """A small WIDER FACE: noise with one red face of 40 x 50 pixels in each photograph."""
    for part, count in (("train", 12), ("val", 4)):
        lines = []
        for number in range(count):
            name = "0--Parade/{}_{}.png".format(part, number)
            path = tmp_path / "wider" / "WIDER_{}".format(part) / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.RandomState(number + 100 * (part == "val"))
            image = rng.randint(0, 200, (200, 300, 3)).astype(np.uint8)
            image[..., 0] = 0
            image[80:130, 100:140] = (255, 0, 0)
            Image.fromarray(image).save(str(path))
            lines.append("{}\n2\n100 80 40 50 0 0 0 0 0 0 \n10 10 9 9 0 0 0 0 0 0 \n".format(name))
        boxes = tmp_path / "wider" / "wider_face_split" / "wider_face_{}_bbx_gt.txt".format(part)
        boxes.parent.mkdir(exist_ok=True)
        boxes.write_text("".join(lines))
    return tmp_path / "wider"


def test_crops_and_lists(run_script, wider, tmp_path):
    data = str(tmp_path / "data")
    outcome = run_script(preprocess_wider, "--wider-dir", wider, "--data-dir", data,
                         "--val-size", 0.3)
    assert outcome.code == 0 and outcome.err == ""
    photographs = {}
    for split in ("train", "val", "test"):
        for kind in ("faces", "others"):
            paths = [os.path.join(data, name) for name in load_list(os.path.join(
                data, "wider_{}_{}.pickle".format(kind, split)))]
            reds = [(read_image(path)[..., 0] > 180).mean() for path in paths]
            assert min(reds) > 0.02 if kind == "faces" else max(reds) < 0.01
            assert "{:,} {}".format(len(paths), "FACE" if kind == "faces" else "NON_FACE") in [
                line for line in outcome.out.splitlines() if line.startswith(split)][0]
            photographs.setdefault(split, set()).update(
                os.path.basename(path)[:-len("-00.jpg")] for path in paths)
    assert not photographs["train"] & photographs["val"]
    assert photographs["test"] == {"0--Parade-val_{}".format(number) for number in range(4)}


def test_repeatable(run_script, wider, tmp_path):
    contents = []
    for name in "ab":
        data = tmp_path / name
        assert run_script(preprocess_wider, "--wider-dir", wider, "--data-dir", data).code == 0
        contents.append({path.name: path.read_bytes() for path in data.rglob("*.jpg")})
    assert contents[0] == contents[1]


def test_a_bad_photograph_is_left_out_and_counted(run_script, wider, tmp_path):
    photograph = wider / "WIDER_train" / "images" / "0--Parade" / "train_3.png"
    photograph.write_bytes(photograph.read_bytes()[:500])
    outcome = run_script(preprocess_wider, "--wider-dir", wider, "--data-dir", tmp_path / "data")
    assert outcome.code == 0 and "skipped 1 images" in outcome.out
    assert outcome.err.count("\n") == 1 and "train_3.png" in outcome.err


def test_hard_faces_alone(run_script, wider, tmp_path):
    """Of twelve photographs' faces one is occluded and one in an atypical pose."""
    boxes = wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    lines = boxes.read_text().split("\n")
    for number, flags in ((2, "0 0 0 0 2 0"), (5, "0 0 0 0 0 1"), (7, "0 0 0 1 2 1")):
        assert lines[4 * number].endswith("train_{}.png".format(number))
        lines[4 * number + 2] = "100 80 40 50 " + flags
    boxes.write_text("\n".join(lines))
    outcome = run_script(preprocess_wider, "--wider-dir", wider, "--data-dir", tmp_path / "data",
                         "--val-size", 0, "--hard-only", "--windows", 0)
    assert outcome.code == 0 and "train: 12 images, 4 FACE, 0 NON_FACE" in outcome.out
    names = load_list(str(tmp_path / "data" / "wider_faces_train.pickle"))
    assert sorted({os.path.basename(name)[:-len("-00.jpg")] for name in names}) == [
        "0--Parade-train_2", "0--Parade-train_5"]


def test_half_a_download_is_one_warning(run_script, wider, tmp_path):
    (wider / "WIDER_val").rename(tmp_path / "elsewhere")
    (wider / "WIDER_train" / "images" / "0--Parade" / "train_3.png").unlink()
    outcome = run_script(preprocess_wider, "--wider-dir", wider, "--data-dir", tmp_path / "data")
    assert outcome.code == 0 and outcome.err.count("\n") == 1
    assert "5 of the 16 images that the boxes name are missing (1 for " in outcome.err
    assert ", 4 for test), " in outcome.err and "test: 0 images" in outcome.out


def test_boxes_of_a_jpeg_that_is_decoded_at_half_its_size(tmp_path):
    image = np.zeros((10002, 10400), np.uint8)
    image[4000:6000, 4000:6000] = 255
    path = str(tmp_path / "large.jpg")
    Image.fromarray(image).save(path)
    face = Face(4000, 4000, 2000, 2000, True)
    labelled = LabelledImage(path, "large.jpg", [face], "train", "large")
    options = argparse.Namespace(min_face=14, crops_per_face=2, most_crops=9, windows=4, cut=0,
                                 hard_only=False)
    faces, others = preprocess_wider.cut(labelled, str(tmp_path), options)
    assert faces and all(read_image(crop).max() > 250 for crop in faces)
    assert all(read_image(crop).max() < 50 for crop in others)


def test_refusals(run_script, wider, tmp_path):
    outcome = run_script(preprocess_wider, "--data-dir", tmp_path)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    outcome = run_script(preprocess_wider, "--wider-dir", wider, "--data-dir", tmp_path / "data",
                         "--min-face", 100)
    assert outcome.code == 2 and "--min-face" in outcome.err


def test_a_failed_run_leaves_the_crops_of_the_lists(run_script, wider, tmp_path):
    """They would be windows that a box file without faces let through."""
    data = tmp_path / "data"
    arguments = "--wider-dir", wider, "--data-dir", data
    assert run_script(preprocess_wider, *arguments).code == 0

    def contents():
        return {str(path): path.read_bytes() for path in data.rglob("*") if path.is_file()}

    before = contents()
    boxes = tmp_path / "none.txt"
    boxes.write_text("".join("0--Parade/train_{}.png\n0\n".format(n) for n in range(12)))
    outcome = run_script(preprocess_wider, *arguments, "--train-boxes", boxes)
    assert outcome.code == 2 and "no usable face" in outcome.err
    assert contents() == before


def test_a_list_does_not_outlive_its_crops(run_script, wider, tmp_path):
    data = tmp_path / "data"
    arguments = "--wider-dir", wider, "--data-dir", data
    assert run_script(preprocess_wider, *arguments).code == 0
    assert run_script(preprocess_wider, *arguments, "--windows", 0).code == 0
    assert (data / "wider_faces_train.pickle").exists()
    assert not list(data.glob("wider_others_*"))
    assert not list(data.glob(".partial*"))
