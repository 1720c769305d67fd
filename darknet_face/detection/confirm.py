"""Faces found by the one-pass detector and confirmed by the full classifier.

The narrow detector looks at the whole image once. Where it is neither certain nor hopeless, the
classifier looks at the best boxes, each with a margin around it. Where that leaves a doubt, the
classifier slides over the whole image, at one scale after the other while the doubt lasts: it finds
faces that the detector misses. Logistic regressions that were fitted on validation images
(:mod:`darknet_face.detection.calibrate`) join the answers to a probability.
"""

from __future__ import annotations

import math
import os
import typing

import numpy as np

from darknet_face.classify.sliding_window import SlidingWindow, Window, sigmoid
from darknet_face.console import UserError, warn
from darknet_face.detection import OWN, RELEASED_DETECTOR
from darknet_face.detection.calibration import Calibration, log_odds
from darknet_face.detection.detector import LEAST_SCORE, OnePassDetector
from darknet_face.detection.model_file import read_spec
from darknet_face.engines.engine import Engine
from darknet_face.images.resize import resize
from darknet_face.weights.arrays import fingerprint


class Face(typing.NamedTuple):
    """A face: its box as shares of the image's sides, and its probability."""

    left: float
    top: float
    right: float
    bottom: float
    probability: float


class FaceFinder:
    """Finds faces by a detector whose boxes a classifier confirms.

    Several threads may use one at once.

    Parameters
    ----------
    detector
        With :data:`darknet_face.detection.detector.LEAST_SCORE` as its ``min_score``.
    engine
        Runs the classifier.
    calibration
    """

    def __init__(self, detector: OnePassDetector, engine: Engine, calibration: Calibration) -> None:
        self.detector, self.engine, self.calibration = detector, engine, calibration
        self.sliding_window = SlidingWindow(engine)

    def __call__(self, image: np.ndarray) -> tuple[float, list[Face]]:
        """Find the faces of an image.

        Parameters
        ----------
        image
            uint8, [any height, any width, 3], RGB.

        Returns
        -------
        probability
            That the image shows a face.
        faces
            All candidates, the most probable first.
        """
        boxes, scores = self.detector(image)
        windows: list[Window] = []
        answer = self.calibration.join(
            log_odds(scores),
            lambda chosen: look_at(self.engine, image, boxes[chosen], self.calibration.margin),
            self._slide(image, windows), log_odds(LEAST_SCORE))
        order = np.argsort(-answer.boxes, kind="stable")
        boxes, joined = boxes[order], answer.boxes[order]
        if windows:
            if not len(boxes):
                window = max(windows, key=lambda each: each.probability)
                boxes, joined = np.array([_shares(window, image)]), np.zeros(1)
            joined[0] = answer.odds
        joined[1:] = np.minimum(joined[1:] + self.calibration.others, answer.odds)
        return float(sigmoid(answer.odds)), [Face._make([*map(float, box), float(sigmoid(odds))])
                                             for box, odds in zip(boxes, joined)]

    def _slide(self, image, windows):
        """Yield the log-odds of the best window of each scale; adds the window to the list."""
        for window in self.sliding_window.best_of_each_scale(image):
            windows.append(window)
            yield log_odds(window.probability)


def _shares(window, image):
    """The box of a window as shares of its image's sides."""
    height, width = image.shape[:2]
    corners = [window.left, window.top, window.left + window.width, window.top + window.height]
    return np.array(corners) / [width, height, width, height]


def look_at(engine: Engine, image: np.ndarray, boxes: np.ndarray, margin: float) -> np.ndarray:
    """The classifier's log-odds of a face in each box.

    Parameters
    ----------
    engine
    image
        uint8, [height, width, 3], RGB.
    boxes
        [n, 4], left, top, right, bottom as shares of the image's sides.
    margin
        The side of the square that it sees, in longer sides of the box.

    Returns
    -------
    numpy.ndarray
        float32, [n].
    """
    crops = [crop(image, box, margin, engine.image_size) for box in boxes]
    return engine.window_log_odds(np.stack(crops))[:, 0, 0]


def crop(image: np.ndarray, box: np.ndarray, margin: float, size: int) -> np.ndarray:
    """A square around a box, scaled to a size; beyond the image its edges are repeated.

    Parameters are those of :func:`look_at`.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box * [width, height, width, height]
    half = max(1.0, margin * max(right - left, bottom - top) / 2)
    x, y = (left + right) / 2, (top + bottom) / 2
    left, top = int(math.floor(x - half)), int(math.floor(y - half))
    side = int(math.ceil(2 * half))
    part = image[max(0, top):top + side, max(0, left):left + side]
    outside = (max(0, -top), max(0, top + side - height), max(0, -left),
               max(0, left + side - width))
    if any(outside):
        part, outside = _shrunk(part, outside, side, size)
        above, below, before, after = outside
        part = np.pad(part, ((above, below), (before, after), (0, 0)), "edge")
    return resize(part, size, size)


def _shrunk(part, outside, side, size):
    """Scale a large part down before its edges are repeated, so that no huge image is made."""
    factor = 2 * size / side
    if factor >= 1:
        return part, outside
    sides = [max(1, int(round(each * factor))) for each in part.shape[:2]]
    return resize(part, *sides), [int(round(each * factor)) for each in outside]


def calibrated_detector(weights: typing.Mapping[str, np.ndarray], model_dir: str) -> str | None:
    """The path of the detector for a classifier: your own, or the released; None without any.

    Your own is passed over with a warning if it does not read.

    Parameters
    ----------
    weights
        The classifier's.
    model_dir
        Where your own detector is.
    """
    for path in (os.path.join(model_dir, OWN), RELEASED_DETECTOR):
        try:
            calibration = read_spec(path).calibration if os.path.exists(path) else None
        except UserError as error:
            if path == RELEASED_DETECTOR:
                raise
            warn("{}; passed over".format(error))
            continue
        if calibration and calibration.classifier == fingerprint(weights):
            return path
    return None


def open_finder(path: str, classifier: Engine, **options: typing.Any) -> FaceFinder:
    """The finder with the detector of a file, which is calibrated for the classifier's engine.

    ``options`` are those of :class:`darknet_face.detection.detector.OnePassDetector`.
    """
    detector = OnePassDetector.load(path, min_score=LEAST_SCORE, **options)
    return FaceFinder(detector, classifier, typing.cast(
        Calibration, read_spec(path).calibration))
