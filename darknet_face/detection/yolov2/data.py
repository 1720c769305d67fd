"""Training batches: images and their boxes, augmented together by imgaug.

Worker processes make them (:class:`darknet_face.training.workers.BatchLoader`), so this imports no
TensorFlow. A batch depends on the seed and the step alone, whichever process makes it.
"""

from __future__ import annotations

import collections
import typing

import cv2
import numpy as np

from darknet_face.console import UserError
from darknet_face.detection.datasets import Photograph
from darknet_face.detection.targets import area
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.resize import resize, shrink
from darknet_face.training.augment import iaa

MOST_BOXES = 50  # of an image that the loss looks at; the largest are taken
SAME_SIZE = 10  # steps between changes of the input size, as in the paper
VISIBLE = 0.4  # a face of which less is left in the image is ignored
MIN_SIDE = 0.06  # a face narrower than this share of the image is ignored: the grid is too coarse
# Ranges of the scale, one is drawn, and how far the image moves at each, as shares of its sides:
# so that what is enlarged can be anywhere in it.
SCALES = ((0.6, 1.2), 0.2), ((1.2, 1.8), 0.35), ((1.8, 2.6), 0.6)
LONGEST = 768  # pixels: larger images are scaled down before they are augmented

# faces, ignored : float32, [batch, MOST_BOXES, 4]; rows of zeros fill up.
Truth = collections.namedtuple("Truth", "faces ignored")


class DetectionBatches:
    """Makes batches for the steps of a training.

    Parameters
    ----------
    photographs
    batch_size
    sizes
        Input sizes, multiples of 32. One is drawn for every SAME_SIZE steps.
    seed
    augment
        False only resizes.
    """

    def __init__(self, photographs: list[Photograph], batch_size: int, sizes: typing.Sequence[int],
                 seed: int = 0, augment: bool = True) -> None:
        self.photographs = photographs
        self.batch_size = batch_size
        self.sizes = tuple(sizes)
        self.seed = seed
        self.augment = augment

    def size(self, step: int) -> int:
        """The input size at a step, in pixels."""
        return self.sizes[np.random.RandomState([self.seed, 1, step // SAME_SIZE]).randint(
            len(self.sizes))]

    def batch(self, step: int) -> tuple[np.ndarray, Truth, list[tuple[str, str]]]:
        """The batch of a step.

        Returns
        -------
        images
            uint8, [batch, size, size, 3], RGB.
        truth
        bad
            Paths of images that do not decode, each with the cause. The next ones took their
            places.

        Raises
        ------
        UserError
            When a whole pass has none that decodes.
        """
        size, images, truths = self.size(step), [], []
        bad: list[tuple[str, str]] = []
        augmenter = build_augmenter(size) if self.augment else None
        for place in range(step * self.batch_size, (step + 1) * self.batch_size):
            photograph, image = self._read(place, bad)
            boxes = photograph.boxes, photograph.ignored
            if augmenter:
                augmenter.seed_([self.seed, 2, place])
                image, boxes = augment(augmenter, image, *boxes)
            images.append(resize(image, size, size))
            truths.append([_padded(each) for each in boxes])
        return np.stack(images), Truth(*(np.stack(each) for each in zip(*truths))), bad

    def _read(self, place: int, bad: list[tuple[str, str]]) -> tuple[Photograph, np.ndarray]:
        """The image at a place in the endless row of shuffled passes, and its pixels."""
        count = len(self.photographs)
        for number in range(place, place + count):
            order = np.random.RandomState([self.seed, 3, number // count]).permutation(count)
            photograph = self.photographs[order[number % count]]
            try:
                return photograph, shrink(read_image(photograph.path), LONGEST)
            except BadImage as error:
                bad.append((photograph.path, str(error)))
        raise UserError("{}: {}; none of the {:,} images decodes: check the disk".format(
            *bad[-1], count))


def build_augmenter(size: int) -> typing.Any:
    """An augmenter for images of any shape; the result has sides of ``size`` pixels."""
    return iaa.Sequential([
        iaa.Fliplr(0.5),
        # Enlarges mostly: most faces in the images are small.
        iaa.OneOf([iaa.Affine(scale=scale, translate_percent={"x": (-move, move),
                                                              "y": (-move, move)},
                              rotate=(-8, 8), cval=(0, 255), backend="cv2")
                   for scale, move in SCALES]),
        iaa.Resize({"height": size, "width": size}, interpolation="linear"),
        iaa.Multiply((0.6, 1.4), per_channel=0.2),
        iaa.Sometimes(0.3, iaa.LinearContrast((0.6, 1.5))),
        iaa.Sometimes(0.15, iaa.Grayscale((0.5, 1.0))),
        iaa.Sometimes(0.15, iaa.GaussianBlur((0.3, 1.2))),
        iaa.Sometimes(0.15, iaa.AdditiveGaussianNoise(scale=(2, 12))),
    ])


def augment(augmenter: typing.Any, image: np.ndarray, faces: np.ndarray, ignored: np.ndarray
            ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Augment an image and its boxes.

    Parameters
    ----------
    augmenter
        Seeded.
    image
        uint8, [height, width, 3].
    faces, ignored
        float32, [n, 4] and [m, 4], shares of the image's sides.

    Returns
    -------
    image
    (faces, ignored)
        Clipped to the image. Faces that have become too small, or of which too little is left in
        the image, are ignored now; what has left the image is dropped.
    """
    from imgaug.augmentables.bbs import BoundingBox, BoundingBoxesOnImage

    height, width = image.shape[:2]
    boxes = np.concatenate([faces, ignored]) * [width, height, width, height]
    image, moved = augmenter(image=image, bounding_boxes=BoundingBoxesOnImage(
        [BoundingBox(*box) for box in boxes], shape=image.shape))
    height, width = image.shape[:2]
    sides = np.array([width, height, width, height], np.float32)
    whole = np.array([[box.x1, box.y1, box.x2, box.y2] for box in moved.bounding_boxes],
                     np.float32).reshape(-1, 4) / sides
    clipped = np.clip(whole, 0, 1)
    left = area(clipped) > 0
    good = (area(clipped) >= VISIBLE * area(whole)) & (
        (clipped[:, 2:] - clipped[:, :2]).min(1) >= MIN_SIDE)
    good &= np.arange(len(whole)) < len(faces)
    return image, (clipped[left & good], clipped[left & ~good])


def _padded(boxes: np.ndarray) -> np.ndarray:
    largest = boxes[np.argsort(-area(boxes), kind="stable")[:MOST_BOXES]]
    return np.pad(largest, ((0, MOST_BOXES - len(largest)), (0, 0)), "constant").astype(np.float32)


def without_padding(boxes: np.ndarray) -> np.ndarray:
    """The boxes of one image of a :class:`Truth`, without the rows of zeros."""
    return boxes[area(boxes) > 0]


cv2.setNumThreads(1)  # several processes make batches at a time
