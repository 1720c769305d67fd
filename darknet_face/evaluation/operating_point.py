"""Choose the threshold of a model on validation images, for a given rate of false positives.

``train.py --at-fpr 0.01`` and ``extract_weights.py --at-fpr 0.01`` store the choice with the model.
Test images have no part in it, so the rate measured on them is a fair one.

One threshold serves a single pass and the sliding window. The best of many windows scores higher
than a single pass, so a bias is subtracted from the log-odds of windows: the smallest one with
which no more than the given rate of the non-faces reach the threshold by sliding window either.
"""

from __future__ import annotations

import math
import typing

import numpy as np

from darknet_face.classes import FACE
from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.console import progress, warn
from darknet_face.engines.engine import open_engine
from darknet_face.evaluation.metrics import score_split, threshold_at
from darknet_face.images.decode import read_image
from darknet_face.images.reader import read_ahead
from darknet_face.runtime import distributed
from darknet_face.weights.metadata import LARGEST_BIAS

if typing.TYPE_CHECKING:
    from darknet_face.images.file_lists import Split

BATCH = 16  # images in a run
MOST_SEARCHED = 1000  # non-faces: a sliding window takes 20 times as long as a single pass
LARGEST_LOG_ODDS = 20.0  # of a threshold; beyond it float32 probabilities are 0 or 1


def choose_operating_point(weights: typing.Any, image_size: int, split: Split, rate: float
                           ) -> dict[str, typing.Any]:
    """Choose the threshold and the bias of the sliding window. Ranks share the images.

    Parameters
    ----------
    weights
    image_size
    split
        Validation images.
    rate
        The largest share of the non-faces, 0..0.5, that may be called a face.

    Returns
    -------
    dict
        ``threshold`` and ``search_bias``, as in :mod:`darknet_face.weights.metadata`. Empty if no
        threshold keeps the rate and finds a face; a warning says so.

    Raises
    ------
    UserError
        If no image of a class decodes.
    """
    with open_engine(weights, image_size) as engine:
        return _choose(engine, split, rate)


def _choose(engine, split, rate):
    scores = score_split(engine, split, BATCH, "choosing the threshold")
    point = best_threshold(scores.labels, scores.face_probabilities, rate)
    non_faces = int(np.sum(scores.labels))
    if distributed.rank() == 0:
        _warn_of_few(non_faces, rate)
    if point["threshold"] is None:
        if distributed.rank() == 0:
            warn("--at-fpr {:g}: no threshold keeps this rate and finds a face, since non-faces "
                 "have the highest scores of all validation images; none is stored".format(rate))
        return {}
    windows = best_windows(SlidingWindow(engine), split.negatives)
    bias = bias_of_search(windows, point["threshold"], rate)
    if distributed.rank() == 0:
        print("threshold {threshold:g}: finds {recall:.4f} of the validation faces at a "
              "false-positive rate of {false_positive_rate:.4f}; search bias {bias:.2f}".format(
                  bias=bias, **point), flush=True)
    return {"threshold": point["threshold"], "search_bias": bias}


def best_threshold(labels: np.ndarray, face_probabilities: np.ndarray, rate: float
                  ) -> dict[str, typing.Any]:
    """The threshold that finds most faces at a given rate of false positives.

    Of those that find equally many, the one with the fewest false positives is taken: a model that
    makes no mistakes gets a threshold between its classes, however large the rate.

    Returns
    -------
    dict
        As :func:`darknet_face.evaluation.metrics.threshold_at`; the threshold is None if it would
        find no face.
    """
    point = threshold_at(labels, face_probabilities, rate)
    is_face = np.asarray(labels) == FACE
    face_probabilities = np.asarray(face_probabilities)
    if not point["recall"]:
        return dict(point, threshold=None)
    lowest = min(value for value in face_probabilities[is_face] if value >= point["threshold"])
    needed = float((face_probabilities[~is_face] >= lowest).mean())
    return dict(threshold_at(labels, face_probabilities, needed), target=rate)


def _warn_of_few(non_faces, rate):
    if non_faces * rate < 1:
        needed = "; it needs at least {:,}".format(math.ceil(1 / rate)) if rate else ""
        warn("--at-fpr {:g}: {:,} validation non-faces are too few for this rate{}; the threshold "
             "is one that none of them reaches".format(rate, non_faces, needed))


def bias_of_search(log_odds: typing.Sequence[float], threshold: float, rate: float) -> float:
    """The smallest bias with which at most a share of the non-faces reaches the threshold.

    Parameters
    ----------
    log_odds
        Of each non-face's best window, without a bias.
    threshold
        0..1.
    rate
        0..0.5.

    Returns
    -------
    float
        At least 0, with two decimals; 0 if the rate is kept without a bias.
    """
    from scipy.special import logit

    if not len(log_odds):
        return 0.0
    highest = np.sort(log_odds)[::-1][int(rate * len(log_odds))]  # the first one to stay below
    wanted = np.clip(logit(threshold), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
    return float(np.clip((math.floor((highest - wanted) * 100) + 1) / 100, 0, LARGEST_BIAS))


def best_windows(search: SlidingWindow, paths: typing.Sequence[str]) -> list[float]:
    """The log-odds of each image's best window; images that do not decode are skipped."""
    paths = paths[::math.ceil(len(paths) / MOST_SEARCHED)]
    mine = paths[distributed.rank()::distributed.size()]
    found = []
    with progress(total=len(mine), desc="searching", unit="image", leave=False) as bar:
        for _, image, _ in read_ahead(mine, read_image):
            if image is not None:
                found.append(max(float(each.max()) for _, each in search.log_odds_maps(image)))
            bar.update()
    return [value for share in distributed.gather(found) for value in share]
