"""Hard negatives: face-free windows in which a trained model sees a face all the same."""

from __future__ import annotations

import numpy as np

from darknet_face.images.crops import touches

OVERLAP = 0.3  # windows of one picture with a larger intersection over union are one find


def hard_windows(search, image, faces=(), least_log_odds=-1.0, most=3):
    """The windows of a picture that look most like a face and touch none.

    Parameters
    ----------
    search : darknet_face.classify.sliding_window.SlidingWindow
    image : numpy.ndarray
        uint8, [height, width, 3], RGB.
    faces : sequence of darknet_face.images.wider_face.Face
        All faces of the picture; none of the windows touches one.
    least_log_odds : float
        Of FACE; a window below it is not hard.
    most : int

    Returns
    -------
    list of (float, (int, int, int))
        The log-odds, and left, top and side in pixels; the hardest first.
    """
    found = []
    for scale, log_odds in search.log_odds_maps(image):
        for row, column in zip(*np.nonzero(log_odds >= least_log_odds)):
            left, top, width, height = search.box(
                image.shape, log_odds.shape, row, column, scale)
            side = int(min(width, height, *image.shape[:2]))
            square = int(left), int(top), side
            if not any(touches(face, *square) for face in faces):
                found.append((float(log_odds[row, column]), square))
    kept = []
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
