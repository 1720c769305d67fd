"""The YOLOv2 example's batches: boxes stay on their faces, the same batch for the same step."""

import numpy as np
import pytest
from PIL import Image

from darknet_face.console import UserError
from darknet_face.detection.datasets import Photograph
from darknet_face.detection.targets import area
from darknet_face.detection.yolov2 import data

BOX = np.float32([[0.3, 0.25, 0.6, 0.65]])
NONE = np.zeros((0, 4), np.float32)


@pytest.fixture
def photographs(tmp_path):
    """Black images of 120 x 80 with a white rectangle where the face is; one is no image."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[20:52, 36:72] = 255
    paths = [str(tmp_path / "{}.png".format(k)) for k in range(3)]
    for path in paths:
        Image.fromarray(pixels).save(path)
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    return [Photograph(path, BOX, NONE) for path in paths + [str(tmp_path / "bad.jpg")]]


def test_batches(photographs):
    batches = data.DetectionBatches(photographs, 5, (64, 96), seed=1)
    images, truth, bad = batches.batch(3)
    assert images.dtype == np.uint8 and images.shape in {(5, 64, 64, 3), (5, 96, 96, 3)}
    assert truth.faces.shape == truth.ignored.shape == (5, data.MOST_BOXES, 4)
    assert len(bad) >= 1 and bad[0][0].endswith("bad.jpg")
    again = data.DetectionBatches(photographs, 5, (64, 96), seed=1).batch(3)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(truth.faces, again[1].faces)
    assert not np.array_equal(truth.faces, batches.batch(4)[1].faces)


def test_the_size_changes_every_ten_steps(photographs):
    batches = data.DetectionBatches(photographs, 1, (64, 96, 128), seed=0)
    sizes = [batches.size(step) for step in range(300)]
    assert set(sizes) == {64, 96, 128}
    assert all(len(set(sizes[k:k + 10])) == 1 for k in range(0, 300, 10))


def test_without_augmentation(photographs):
    batches = data.DetectionBatches(photographs[:3], 3, (64,), augment=False)
    images, truth, _ = batches.batch(0)
    np.testing.assert_allclose(truth.faces[:, 0], np.tile(BOX, (3, 1)))
    assert not truth.faces[:, 1:].any() and not truth.ignored.any()
    assert len(data.without_padding(truth.faces[0])) == 1


def test_boxes_move_with_the_picture():
    """The geometry alone: the white rectangle's extent is that of its box, about its rotation."""
    augmenter = data.iaa.Sequential(data.build_augmenter(96)[:3])
    pixels = np.full((80, 120, 3), 7, np.uint8)
    pixels[32:48, 48:72] = 250
    box, seen = np.float32([[0.4, 0.4, 0.6, 0.6]]), 0
    for seed in range(20):
        augmenter.seed_(seed)
        image, (faces, _) = data.augment(augmenter, pixels, box, NONE)
        assert image.shape == (96, 96, 3)
        for face in faces:  # none when it has left the image
            left, top, right, bottom = (face * 96).round().astype(int)
            inside = image[top + 4:bottom - 4, left + 4:right - 4].mean()
            assert inside > 180, "bright within the box of seed {}".format(seed)
            seen += 1
    assert seen >= 10


def test_faces_that_leave_the_picture_are_dropped_or_ignored():
    class Shift:
        def __call__(self, image, bounding_boxes):
            return image, bounding_boxes.shift(x=-60)

    boxes = np.float32([[0.0, 0, 0.4, 0.5], [0.4, 0, 0.7, 0.5], [0.7, 0.1, 0.9, 0.5]])
    _, (faces, ignored) = data.augment(Shift(), np.zeros((50, 100, 3), np.uint8), boxes, NONE)
    np.testing.assert_allclose(faces, [[0.1, 0.1, 0.3, 0.5]], atol=1e-6)
    np.testing.assert_allclose(ignored, [[0, 0, 0.1, 0.5]], atol=1e-6)


def test_the_largest_boxes_are_kept():
    sides = np.linspace(0.1, 0.9, data.MOST_BOXES + 5, dtype=np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], 1)
    padded = data._padded(boxes)
    assert padded.shape == (data.MOST_BOXES, 4) and area(padded).min() > area(boxes[:5]).max()


def test_no_photograph_decodes(photographs):
    with pytest.raises(UserError, match="none of the 1 images decodes"):
        data.DetectionBatches(photographs[3:], 2, (64,)).batch(0)
