"""Hard negatives: face-free windows and boxes that a trained model takes for a face."""

from __future__ import annotations

import typing

import numpy as np

from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.detection.confirm import crop
from darknet_face.detection.detector import OnePassDetector
from darknet_face.engines.engine import Engine
from darknet_face.images.crops import touches

LOOKS = 2  # the classifier looks at so many boxes for each that may be kept
OVERLAP = 0.3  # windows of one image with a larger intersection over union count as one


def hard_windows(model: SlidingWindow, image: np.ndarray, faces: typing.Sequence = (),
                 least_log_odds: float = -1.0, most: int = 3,
                 ) -> list[tuple[float, tuple[int, int, int]]]:
    """The windows of an image that look most like a face and touch none.

    Parameters
    ----------
    model
    image
        uint8, [height, width, 3], RGB.
    faces
        All faces of the image (darknet_face.images.wider_face.Face).
    least_log_odds
        A window is hard if its log-odds of FACE are at least this.
    most
        Windows to return.

    Returns
    -------
    list
        The log-odds, and left, top and side in pixels; the hardest first.
    """
    found = []
    for scale, log_odds in model.log_odds_maps(image):
        for row, column in zip(*np.nonzero(log_odds >= least_log_odds)):
            left, top, width, height = model.box(
                image.shape, log_odds.shape, row, column, scale)
            side = int(min(width, height, *image.shape[:2]))
            square = int(left), int(top), side
            if not any(touches(face, *square) for face in faces):
                found.append((float(log_odds[row, column]), square))
    kept: list[tuple[float, tuple[int, int, int]]] = []
    for value, square in sorted(found, reverse=True):
        if len(kept) < most and all(_overlap(square, other) <= OVERLAP for _, other in kept):
            kept.append((value, square))
    return kept


def hard_boxes(detector: OnePassDetector, engine: Engine, margin: float, image: np.ndarray,
               faces: typing.Sequence = (), least_log_odds: float = -1.0, most: int = 3
               ) -> list[tuple[float, np.ndarray]]:
    """What the classifier sees of a detector's best boxes, where it takes them for a face.

    Parameters
    ----------
    detector
    engine
        Runs the classifier.
    margin
        See :func:`darknet_face.detection.confirm.crop`.
    image, faces, least_log_odds, most
        As for :func:`hard_windows`. A box is out if its margin touches a face.

    Returns
    -------
    list
        The log-odds and the crop, uint8, [image_size, image_size, 3]; the hardest first.
    """
    boxes, _ = detector(image)
    height, width = image.shape[:2]
    free = [box for box in boxes[:most * LOOKS] if not any(
        touches(face, *_square(box * [width, height, width, height], margin)) for face in faces)]
    if not free:
        return []
    crops = np.stack([crop(image, box, margin, engine.image_size) for box in free])
    seen = engine.window_log_odds(crops)[:, 0, 0]
    return [(float(seen[index]), crops[index]) for index in np.argsort(-seen, kind="stable")[:most]
            if seen[index] >= least_log_odds]


def _square(box, margin):
    """Left, top and side of the square around a box in pixels."""
    left, top, right, bottom = box
    side = margin * max(right - left, bottom - top)
    return (left + right - side) / 2, (top + bottom - side) / 2, side


def _overlap(one, other):
    """Intersection over union of two squares."""
    (left, top, side), (left2, top2, side2) = one, other
    width = min(left + side, left2 + side2) - max(left, left2)
    height = min(top + side, top2 + side2) - max(top, top2)
    common = max(0, width) * max(0, height)
    return common / float(side ** 2 + side2 ** 2 - common)
