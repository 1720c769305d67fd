"""Training scenes: their boxes are where the faces are, and a step's batch is always the same."""

import pickle

import numpy as np
import pytest
from PIL import Image

from darknet_face.console import UserError
from darknet_face.detection.datasets import Photograph
from darknet_face.detection.material import Crops, Material, gather, is_held_out
from darknet_face.detection.scenes import (
    LEAST_SIDE,
    Canvas,
    MixedBatches,
    SceneBatches,
    draw_boxes,
    photometric,
)
from darknet_face.detection.targets import count_cells

RED, GREY = (250, 0, 0), (120, 120, 120)
NONE = np.zeros((0, 4), np.float32)


def painted(folder, name, size, box=None, background=GREY):
    """An image with a red rectangle in the place of a face; the path."""
    image = Image.new("RGB", size, background)
    if box:
        image.paste(Image.new("RGB", (box[2] - box[0], box[3] - box[1]), RED), box[:2])
    image.save(str(folder / name))
    return str(folder / name)


@pytest.fixture
def material(tmp_path):
    photograph = Photograph(painted(tmp_path, "photo.png", (200, 120), (60, 30, 100, 80)),
                            np.float32([[0.3, 0.25, 0.5, 80 / 120]]), NONE)
    crop = painted(tmp_path, "crop.png", (80, 80), (20, 20, 60, 64))
    return Material([([photograph], 1.0)], [Crops([crop], (0.25, 0.25, 0.75, 0.8))],
                    [painted(tmp_path, "cat.png", (90, 70), background=(40, 90, 160))])


@pytest.mark.parametrize("kind", ["photograph", "paste", "close"])
def test_boxes_are_where_the_faces_are(material, kind):
    """The red pixels of scenes before their colours change are those within the boxes."""
    checked = 0
    for index in range(30):
        rng = np.random.RandomState(index)
        canvas = getattr(SceneBatches(material, 1, 224), "_" + kind)(rng)
        faces, ignored = canvas.boxes()
        is_red = (canvas.image[..., 0] > 200) & (canvas.image[..., 1] < 60)
        for left, top, right, bottom in faces.round().astype(int):
            if min(right - left, bottom - top) >= 30:
                inner = is_red[top + 12:bottom - 12, left + 12:right - 12]
                assert inner.size == 0 or inner.mean() > 0.75
                checked += 1
        if not len(ignored) and not len(faces):
            assert is_red.mean() < 0.02
    assert checked >= 5


@pytest.mark.parametrize("how", ["lay", "paste"])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_boxes_are_not_beside_the_faces_by_a_part_of_a_pixel(how, scale):
    """The middle of a white rectangle is that of its box, turned and flipped or not."""
    image, box = np.zeros((120, 160, 3), np.uint8), np.float32([60, 40, 100, 90])
    image[40:90, 60:100] = 255
    differences = []
    for seed in range(60):
        canvas = Canvas(224, np.random.RandomState(seed))
        canvas.image[:] = 0
        if how == "lay":
            canvas.lay(image, box[None], NONE, scale, np.array([80, 65]), np.array([112.3, 111.6]))
        else:
            canvas.paste(image, None, box[None], scale, np.array([112.3, 111.6]))
        (left, top, right, bottom), = canvas.boxes()[0]
        weights = canvas.image[..., 0] / np.float64(canvas.image[..., 0].sum())
        rows, columns = np.indices(weights.shape) + 0.5
        differences.append([(left + right) / 2 - (columns * weights).sum(),
                            (top + bottom) / 2 - (rows * weights).sum()])
    assert np.abs(differences).max() < 0.35 and np.abs(np.mean(differences, 0)).max() < 0.04


def test_a_step_is_the_same_in_every_process_and_steps_differ(material):
    batches = SceneBatches(material, 4, 64, seed=7)
    images, targets, bad = batches.batch(3)
    again = pickle.loads(pickle.dumps(batches)).batch(3)
    assert images.shape == (4, 64, 64, 3) and targets.shape == (4, 84, 5) and not bad
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(targets, again[1])
    assert (batches.batch(4)[0] != images).any()
    assert (SceneBatches(material, 4, 64, seed=8).batch(3)[0] != images).any()


def test_batches_of_several_sizes_have_as_many_pixels(material):
    batches = MixedBatches(material, 16, (64, 96, 128), seed=7)
    made = [batches.batch(step) for step in range(12)]
    assert {images.shape[:2] for images, _, _ in made} == {(16, 64), (7, 96), (4, 128)}
    assert all(len(target[0]) == count_cells(*images.shape[1:3]) for images, target, _ in made)
    again = pickle.loads(pickle.dumps(batches)).batch(5)
    np.testing.assert_array_equal(again[0], made[5][0])
    np.testing.assert_array_equal(  # one size: as without the mixture
        MixedBatches(material, 4, (64,), seed=7).batch(2)[0],
        SceneBatches(material, 4, 64, seed=7).batch(2)[0])


def test_images_that_do_not_decode_are_reported_and_replaced(material, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    material.negatives.append(str(tmp_path / "bad.png"))
    images, _, bad = SceneBatches(material, 32, 64).batch(0)
    assert len(images) == 32 and {path for path, _ in bad} == {str(tmp_path / "bad.png")}
    with pytest.raises(UserError, match="100 images in a row"):
        SceneBatches(Material([], [], [str(tmp_path / "bad.png")]), 2, 64).batch(0)


def test_small_faces_and_faces_that_leave_the_scene_are_ignored():
    canvas = Canvas(100, np.random.RandomState(0))
    canvas._faces = [np.float32(box) for box in (
        [10, 10, 30, 30], [50, 50, 50 + LEAST_SIDE - 2, 54], [80, 40, 120, 80], [90, 0, 160, 40],
        [130, 0, 160, 40])]
    faces, ignored = canvas.boxes()
    assert faces.tolist() == [[10, 10, 30, 30], [80, 40, 100, 80]]
    assert ignored.tolist() == [[50, 50, 56, 54], [90, 0, 100, 40]]


def test_colours_change_but_not_the_size():
    image = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    changed = [photometric(image.copy(), np.random.RandomState(seed)) for seed in range(40)]
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in changed)
    assert sum((each != image).any() for each in changed) > 30


def test_boxes_are_drawn_on_a_copy():
    image = np.zeros((40, 40, 3), np.uint8)
    drawn = draw_boxes(image, np.float32([[5, 5, 20, 20]]), np.float32([[25, 25, 35, 35]]))
    assert not image.any() and drawn[5, 10, 1] > drawn[5, 10, 0] and drawn[25, 30, 0] > 200


@pytest.fixture
def folders(tmp_path):
    for name in ("celeba/img_align_celeba", "crops", "negatives", "images"):
        (tmp_path / name).mkdir(parents=True)
    for number in (1, 2, 3):
        painted(tmp_path, "celeba/img_align_celeba/{}.jpg".format(number), (9, 9))
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("1.jpg 0\n2.jpg 1\n3.jpg 0\n")
    for number in range(60):
        painted(tmp_path, "negatives/{}.png".format(number), (9, 9))
        painted(tmp_path, "crops/{}.png".format(number), (9, 9))
    painted(tmp_path, "images/a.png", (20, 20))
    (tmp_path / "boxes.txt").write_text("a.png\n1\n2 2 9 9\n")
    (tmp_path / "none.txt").write_text("a.png\n0\n")
    held_out = next("crop{}.png".format(number) for number in range(99)
                    if is_held_out("crop{}.png".format(number), 0.15))
    (tmp_path / "held_out").mkdir()
    painted(tmp_path, "held_out/" + held_out, (9, 9))
    return tmp_path


def test_training_and_validation_share_no_image(folders):
    boxes = str(folders / "images"), str(folders / "boxes.txt")
    material, validation = gather(
        None, [boxes], str(folders / "celeba"), [(str(folders / "crops"), (0, 0, 1, 1))],
        [str(folders / "negatives")], boxes)
    aligned, loose = material.crops
    assert [path[-5:] for path in aligned.paths] == ["1.jpg", "3.jpg"] and aligned.aligned
    assert 40 < len(loose.paths) < 60 and not any(is_held_out(each, 0.15) for each in loose.paths)
    assert len(material.negatives) + len(validation.negatives) == 60
    assert not set(material.negatives) & set(validation.negatives) and validation.negatives
    assert "1 images with boxes, 2 + " in material.describe()


@pytest.mark.parametrize("arguments, message", [
    (dict(wider_dir=None), "nothing to train on"),
    (dict(wider_dir=None, negatives=["negatives"]), "nothing to train on"),
    (dict(wider_dir=None, also=[("images", "boxes.txt")]), "nothing to validate on"),
    (dict(wider_dir=None, celeba_dir="crops"), "list_eval_partition.txt: No such file"),
    (dict(wider_dir=None, also=[("images", "boxes.txt")], validation=("images", "none.txt")),
     "no face in the validation images"),
    (dict(wider_dir=None, crops=[("held_out", (0, 0, 1, 1))], negatives=["negatives"]),
     "nothing to train on"),
    (dict(wider_dir=None, crops=[("celeba/none", (0, 0, 1, 1))]), "no image in it"),
])
def test_what_is_missing_is_named(folders, monkeypatch, arguments, message):
    monkeypatch.chdir(folders)
    with pytest.raises(UserError, match=message):
        gather(**arguments)


def test_a_thin_image_is_a_background(tmp_path):
    thin = painted(tmp_path, "thin.png", (3000, 1))
    batches = SceneBatches(Material([], [], [thin]), 2, 64)
    image, faces, _ = batches.scene(0, [])
    assert image.shape == (64, 64, 3) and not len(faces)
