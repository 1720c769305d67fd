"""Mining: what a model takes for a face becomes a source of non-faces; test images stay out."""

import os

import numpy as np
import pytest
from PIL import Image
from test_heatmaps import bright_is_face

import mine_negatives
from darknet_face.engines.engine import open_engine
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import LISTS, load_list, load_source, save_list
from darknet_face.images.wider_face import Face
from darknet_face.negatives.mining import hard_boxes
from darknet_face.weights.npz import write_npz


@pytest.fixture
def data(tmp_path):
    """Dark images of three splits, each with a bright square, and a model that likes bright."""
    write_npz(str(tmp_path / "model.npz"), bright_is_face(), metadata={"image_size": 64})
    for number, (split, names) in enumerate(LISTS.items()):
        paths = []
        for index in range(2):
            image = np.zeros((128, 192, 3), np.uint8)
            image[32:96, 64:128] = 255 - index - 10 * number
            path = str(tmp_path / "{}{}.png".format(split, index))
            Image.fromarray(image).save(path)
            paths.append(path)
        for name in names:
            save_list(str(tmp_path / name), paths[:1] if name.startswith("celeba") else paths)
    return tmp_path


def mine(run_script, data, *options):
    return run_script(mine_negatives, "--data-dir", data, "--weights", data / "model.npz",
                      "--image-size", 64, "--scales", 2, *options)


def test_hard_windows_become_a_source(run_script, data):
    outcome = mine(run_script, data)
    assert outcome.code == 0 and outcome.err == ""
    for split, count in (("train", 2), ("val", 2), ("test", 0)):
        faces, others = load_source(str(data), "mined", split)
        assert faces == () and len(others) >= count and (count or not others)
        for path in others:
            assert read_image(path).mean() > 100, "the bright square is what looks like a face"


def test_hard_boxes_are_what_the_classifier_takes_for_faces():
    """Bright is a face to it. The crop has the box's margin; a face of the image is left out."""
    image = np.zeros((200, 300, 3), np.uint8)
    boxes = np.array([[100, 80, 120, 100], [20, 20, 40, 40], [200, 100, 220, 120]], np.float32)
    for left, top, right, bottom in boxes[[0, 2]].astype(int):
        image[top - 10:bottom + 10, left - 10:right + 10] = 255

    def detector(_):
        return boxes / [300, 200, 300, 200], np.array([0.9, 0.8, 0.7], np.float32)

    engine = open_engine(bright_is_face(), 64)
    found = hard_boxes(detector, engine, 1.8, image, least_log_odds=0)
    assert len(found) == 2 and found[0][0] >= found[1][0] > 5
    assert all(crop.shape == (64, 64, 3) and crop.min() == 255 for _, crop in found)
    assert len(hard_boxes(detector, engine, 1.8, image, least_log_odds=0, most=1)) == 1
    face = Face(210, 110, 5, 5, True)
    assert len(hard_boxes(detector, engine, 1.8, image, [face], 0)) == 1
    assert len(hard_boxes(detector, engine, 1.8, image, least_log_odds=-99)) == 3
    everywhere = Face(0, 0, 300, 200, True)
    assert hard_boxes(detector, engine, 1.8, image, [everywhere], -99) == []


def test_the_boxes_of_the_released_detector(run_script, data):
    outcome = mine(run_script, data, "--detector", "released", "--least-log-odds", "-99")
    assert outcome.code == 0 and outcome.err == ""
    assert load_source(str(data), "mined", "train")[1]
    outcome = mine(run_script, data, "--detector", data / "none.npz")
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "none.npz" in outcome.err


def test_test_images_are_not_used(run_script, data):
    for name in LISTS["test"]:
        os.remove(str(data / name))
    assert mine(run_script, data).code == 0


def test_nothing_hard_writes_no_list(run_script, data):
    outcome = mine(run_script, data, "--least-log-odds", 1000)
    assert outcome.code == 0 and "train: 0 hard windows" in outcome.out
    assert not (data / "mined_others_train.pickle").exists()


def test_an_older_list_does_not_outlive_its_windows(run_script, data):
    assert mine(run_script, data).code == 0
    assert mine(run_script, data, "--least-log-odds", 1000).code == 0
    assert not [name for name in os.listdir(str(data)) if name.startswith("mined_others")]


def test_an_interrupted_run_leaves_what_older_lists_name(run_script, data, monkeypatch):
    assert mine(run_script, data).code == 0
    listed = [path for split in ("train", "val") for path in load_source(
        str(data), "mined", split)[1]]
    before = {path: read_image(path) for path in listed}
    for split in ("train", "val"):  # other images: other windows are hard now
        for index in range(2):
            path = str(data / "{}{}.png".format(split, index))
            Image.fromarray(np.roll(read_image(path), 40, 1) // 2).save(path)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mine_negatives, "save_source_list", interrupt)
        assert mine(run_script, data).code == 130
    assert listed == [path for split in ("train", "val") for path in load_source(
        str(data), "mined", split)[1]]
    for path, image in before.items():
        np.testing.assert_array_equal(read_image(path), image)
    assert mine(run_script, data).code == 0
    written = {str(path) for path in (data / "mined").glob("*/*.jpg")}
    assert written == {path for split in ("train", "val") for path in load_source(
        str(data), "mined", split)[1]}


def test_images_that_all_fail_cost_no_list(run_script, data):
    assert mine(run_script, data).code == 0
    for split in ("train", "val"):
        for index in range(2):
            (data / "{}{}.png".format(split, index)).write_bytes(b"bad")
    outcome = mine(run_script, data)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: none of the 4 images decodes")
    assert load_list(str(data / "mined_others_train.pickle"))


def test_a_source_is_not_mined_into_itself(run_script, data):
    mine(run_script, data)
    before = load_list(str(data / "mined_others_train.pickle"))
    outcome = mine(run_script, data, "--sources", "mined")
    assert outcome.code == 2 and "--name mined: is among --sources" in outcome.err
    assert load_list(str(data / "mined_others_train.pickle")) == before


def test_bad_images_and_bad_options(run_script, data):
    path = load_list(str(data / LISTS["train"][1]))[0]
    with open(path, "wb") as stream:
        stream.write(b"\x89PNG")
    outcome = mine(run_script, data)
    assert outcome.code == 0 and outcome.err.count("\n") == 1 and path in outcome.err
    outcome = mine(run_script, data, "--sources", "wider")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert mine(run_script, data, "--sources").code == 2
    outcome = mine(run_script, data, "--image-size", 100)
    assert outcome.code == 2
