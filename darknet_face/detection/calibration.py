"""How the scores of the detector and of the classifier become the probability of a face.

Stored with the detector: see :mod:`darknet_face.detection.model_file`.
"""

from __future__ import annotations

import dataclasses
import typing

import numpy as np

from darknet_face.console import UserError

LARGEST_WEIGHT = 1e3
MARGIN = 1.8  # where no calibration says otherwise: see Calibration


class Answer(typing.NamedTuple):
    """What is joined of an image, in log-odds.

    ``odds`` is that it shows a face; ``boxes`` those of each box, [n], before the window slides.
    ``looks`` tells at how many boxes the classifier looked, ``scales`` at how many the window slid.
    """

    odds: float
    boxes: np.ndarray
    looks: int
    scales: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How scores become the probability of a face. Log-odds are natural logarithms.

    Attributes
    ----------
    alone
        Of the detector: a bias, and the factor of its log-odds.
    together
        Of both: a bias, and the factors of the detector's and of the classifier's log-odds.
    margin
        The side of what the classifier sees, in longer sides of the box.
    most_boxes
        How many boxes the classifier looks at, the best first.
    hopeless, certain
        The classifier looks at boxes between these log-odds of the detector alone.
    whole
        Of a sliding window over the whole image: a bias, and the factors of the boxes' log-odds
        and of the best window's.
    unlikely, likely
        The window slides if the log-odds of the boxes are between these, at one scale after the
        other until the log-odds so far are ``likely``.
    others
        Added to the log-odds of all boxes but the best, up to those of the best: where one face is
        certain, more of them are likely.
    classifier
        Tells its weights from others: see :func:`darknet_face.weights.arrays.fingerprint`.
    """

    alone: tuple[float, float]
    together: tuple[float, float, float]
    margin: float
    most_boxes: int
    hopeless: float
    certain: float
    whole: tuple[float, float, float]
    unlikely: float
    likely: float
    others: float
    classifier: str

    def lowered(self, odds: float) -> Calibration:
        """The same with all answers lower by some log-odds."""
        return dataclasses.replace(
            self, alone=(self.alone[0] - odds, *self.alone[1:]),
            together=(self.together[0] - odds, *self.together[1:]),
            whole=(self.whole[0] - odds + self.whole[1] * odds, *self.whole[1:]),
            hopeless=self.hopeless - odds, certain=self.certain - odds,
            unlikely=self.unlikely - odds, likely=self.likely - odds)

    def uncertain(self, alone: np.ndarray) -> np.ndarray:
        """Which boxes the classifier looks at, by the detector's log-odds alone, best first."""
        if not len(alone) or alone[0] >= self.certain:
            return np.zeros(0, int)
        return np.flatnonzero(alone[:self.most_boxes] > self.hopeless)

    def join(self, detected: np.ndarray, look: typing.Callable[[np.ndarray], np.ndarray],
             windows: typing.Iterable[float], missing: float) -> Answer:
        """Join what the detector, the classifier and the sliding window say of an image.

        Parameters
        ----------
        detected
            The detector's log-odds of all boxes, best first, [n].
        look
            Gives the classifier's log-odds of the boxes of these indices.
        windows
            The best window's log-odds at each scale; asked only as long as there is a doubt.
        missing
            Stands for the detector's log-odds where there is no box.
        """
        boxes = self.alone[0] + self.alone[1] * detected
        chosen = self.uncertain(boxes)
        if len(chosen):
            bias, of_detector, of_classifier = self.together
            boxes[chosen] = bias + of_detector * detected[chosen] + of_classifier * look(chosen)
        best = float(boxes.max()) if len(boxes) else self.alone[0] + self.alone[1] * missing
        odds, seen = best, []
        remaining = iter(windows)
        while self.unlikely < best and odds < self.likely:
            window = next(remaining, None)
            if window is None:
                break
            seen.append(window)
            odds = float(np.dot(self.whole, (1.0, best, max(seen))))
        return Answer(odds, boxes, len(chosen), len(seen))

    @classmethod
    def parse(cls, value: typing.Any, path: str) -> Calibration:
        """Make one from a file's metadata; raises UserError for anything unusable."""
        try:
            fields = {each.name: value[each.name] for each in dataclasses.fields(cls)}
            numbers = [*fields["alone"], *fields["together"], *fields["whole"], *(
                fields[name] for name in (
                    "margin", "hopeless", "certain", "unlikely", "likely", "others"))]
            good = (len(fields["alone"]) == 2
                    and len(fields["together"]) == len(fields["whole"]) == 3
                    and all(isinstance(each, (int, float)) and abs(each) <= LARGEST_WEIGHT
                            for each in numbers)
                    and 1 <= fields["margin"] <= 10 and type(fields["most_boxes"]) is int
                    and 1 <= fields["most_boxes"] <= 100
                    and isinstance(fields["classifier"], str))
        except (TypeError, KeyError):
            good = False
        if not good or set(value) != set(fields):
            raise UserError("{}: no usable calibration; run python -m "
                            "darknet_face.detection.calibrate again".format(path))
        return cls(**dict(fields, **{
            name: tuple(fields[name]) for name in ("alone", "together", "whole")}))


def log_odds(probability: typing.Any) -> typing.Any:
    """Of a probability, a number or an array, 1e-6 from 0 and 1 at least."""
    clipped = np.clip(np.asarray(probability, np.float64), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))
