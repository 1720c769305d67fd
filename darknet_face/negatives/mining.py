"""Hard negatives: face-free windows that a trained model takes for a face."""

from __future__ import annotations

import typing

import numpy as np

from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.images.crops import touches

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


def _overlap(one, other):
    """Intersection over union of two squares."""
    (left, top, side), (left2, top2, side2) = one, other
    width = min(left + side, left2 + side2) - max(left, left2)
    height = min(top + side, top2 + side2) - max(top, top2)
    common = max(0, width) * max(0, height)
    return common / float(side ** 2 + side2 ** 2 - common)
