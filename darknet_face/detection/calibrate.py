"""Fit how the scores of a detector and of the classifier become probabilities.

    python -m darknet_face.detection.calibrate face_detector.npz --wider-dir wider \\
        --faces celeba/val utkface/val --negatives negatives/val

The images must be in neither the detector's nor the classifier's training. The result is written
into the detector's file, with a threshold for the detector alone, and answers by the detector use
it. It belongs to this classifier: calibrate again after training either.

An image's score is that of its best box. A logistic regression joins the log-odds of the detector
with those of the classifier, which sees the box with a margin. A second one joins these with the
best of a sliding window over the whole image, for the images that are still in doubt. The bias is
then set so that a probability of 0.5 or more is as rare among the negatives as HALF says. The
threshold of the detector alone is that of 1 % false positives.

The table tells which share of the images with a face is found at 1 % and 0.1 % false positives. For
each half of the images it takes a calibration that was fitted on the other half.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import typing

import numpy as np

from darknet_face.classify.sliding_window import CERTAIN, SlidingWindow, sigmoid
from darknet_face.console import HelpFormatter, UserError, cli, number_type, progress, warn
from darknet_face.detection import DEFAULT
from darknet_face.detection.calibration import MARGIN, Answer, Calibration, log_odds
from darknet_face.detection.confirm import look_at
from darknet_face.detection.datasets import read_wider
from darknet_face.detection.detector import LEAST_SCORE, OnePassDetector
from darknet_face.detection.evaluate import FALSE_POSITIVES, GROUPS, images_in
from darknet_face.detection.model_file import read_detector, write_detector
from darknet_face.engines.engine import Engine, open_engine
from darknet_face.images.contact_sheets import image_name
from darknet_face.images.decode import BadImage, read_image
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights.arrays import fingerprint
from darknet_face.weights.model_file import WORD, read_model

LEAST_IMAGES = 20  # of each class
LEAST_IN_DOUBT = 10  # of each class, to fit what a sliding window adds
SURE = 0.9  # share of the negatives that are in no doubt after the look at boxes
LOST = 0.002  # share of the images with a face that may be given up unseen
# Share of the negatives with a probability of 0.5 or more. Negatives of a validation are small
# images of single objects, which are easier than photographs of everyday life.
HALF = 0.0025
OTHERS = 0.02  # the same, of the detector alone, for further boxes where one face is certain
NEGATIVES = "negatives"


class Scores(typing.NamedTuple):
    """The log-odds of an image.

    Attributes
    ----------
    group
        Its name.
    detected, seen
        Of its best boxes, by the detector and by the classifier, each [n].
    whole
        Of the best window over the whole image, after each scale of the sliding window, [scales].
        An image that is too small for the larger scales has fewer, as has one whose best window is
        certain.
    """

    group: str
    detected: np.ndarray
    seen: np.ndarray
    whole: np.ndarray


def measure(detector: OnePassDetector, engine: Engine, images: list[tuple[str, str]],
            margin: float, most_boxes: int) -> list[Scores]:
    """The scores of images.

    Parameters
    ----------
    detector, engine
    images
        Each a path and the name of its group.
    margin, most_boxes
        See :class:`darknet_face.detection.calibration.Calibration`.
    """
    scores = []
    sliding_window = SlidingWindow(engine)
    for path, group in progress(images, desc="looking", unit="image"):
        try:
            image = read_image(path)
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            continue
        boxes, found = (each[:most_boxes] for each in detector(image))
        seen = look_at(engine, image, boxes, margin) if len(boxes) else np.zeros(0)
        scores.append(Scores(group, log_odds(found), seen, _slide(sliding_window, image)))
    return scores


def _slide(sliding_window, image):
    """The log-odds of the best window so far, after each scale."""
    best = []
    for window in sliding_window.best_of_each_scale(image):
        best.append(window.probability)
        if window.probability >= CERTAIN:
            break
    return log_odds(np.maximum.accumulate(best))


def fit(scores: list[Scores], margin: float, classifier: str) -> Calibration:
    """Fit a calibration.

    Parameters
    ----------
    scores
    margin
        With which they were measured.
    classifier
        See :class:`darknet_face.detection.calibration.Calibration`.
    """
    is_face = np.array([each.group != NEGATIVES for each in scores])
    alone = _fit(scores, is_face, [each.detected[:, None] for each in scores])
    together = _fit(scores, is_face, [np.stack([each.detected, each.seen], 1) for each in scores])
    by_detector = np.array([_best(each.detected[:, None], alone) for each in scores])
    calibration = Calibration(
        alone=(alone[0], alone[1]), together=(together[0], together[1], together[2]),
        margin=margin, most_boxes=max(1, max(len(each.detected) for each in scores)),
        hopeless=float(np.quantile(by_detector[is_face], LOST)),
        certain=float(by_detector[~is_face].max()) + 1.0,
        whole=(0.0, 1.0, 0.0), unlikely=0.0, likely=0.0,
        others=max(0.0, -float(np.quantile(by_detector[~is_face], 1 - OTHERS))),
        classifier=classifier)
    calibration = _with_whole(scores, is_face, calibration)
    answers = [answer(each, calibration).odds for each, face in zip(scores, is_face) if not face]
    return calibration.lowered(float(np.quantile(answers, 1 - HALF)))


def _with_whole(scores, is_face, calibration):
    """Add the sliding window, for the images that the boxes leave in doubt."""
    from sklearn.linear_model import LogisticRegression

    joined = np.array([answer(each, calibration).odds for each in scores])
    unlikely, likely = np.quantile(joined[~is_face], SURE), joined[~is_face].max() + 1.0
    doubt = (joined > unlikely) & (joined < likely)
    if min(is_face[doubt].sum(), (~is_face)[doubt].sum()) < LEAST_IN_DOUBT:
        return calibration
    features = np.stack([joined, [each.whole[-1] for each in scores]], 1)
    model = LogisticRegression(class_weight="balanced", C=10.0).fit(features[doubt], is_face[doubt])
    factors = np.maximum(model.coef_[0], 0)
    # As before the window, the share HALF of the negatives is above 0: both can be compared.
    highest = np.sort((features @ factors)[doubt & ~is_face])[::-1]
    zero = highest[min(int(HALF * (~is_face).sum()), len(highest) - 1)]
    return dataclasses.replace(
        calibration, whole=(-float(zero), *map(float, factors)), unlikely=float(unlikely),
        likely=float(likely))


def _fit(scores, is_face, features):
    """The bias and the factors of a logistic regression of each image's best box."""
    from sklearn.linear_model import LogisticRegression

    empty = np.full(features[0].shape[1], log_odds(LEAST_SCORE))
    features = [each if len(each) else empty[None] for each in features]
    factors = [0.0] + [1.0] * len(empty)
    for _ in range(5):  # the best box depends on the factors
        chosen = np.stack([each[np.argmax(each @ factors[1:])] for each in features])
        model = LogisticRegression(class_weight="balanced", C=10.0).fit(chosen, is_face)
        factors = [0.0, *map(float, np.maximum(model.coef_[0], 0))]
    best = np.array([_best(each, factors) for each in features])
    return [-float(np.quantile(best[~is_face], 1 - HALF)), *factors[1:]]


def _best(features, factors):
    """The log-odds of the best box of an image."""
    if not len(features):
        features = np.full((1, len(factors) - 1), log_odds(LEAST_SCORE))
    return float((features @ factors[1:]).max() + factors[0])


def answer(scores: Scores, calibration: Calibration) -> Answer:
    """What :class:`darknet_face.detection.confirm.FaceFinder` answers."""
    return calibration.join(scores.detected, lambda chosen: scores.seen[chosen], scores.whole,
                            log_odds(LEAST_SCORE))


def threshold_alone(scores: list[Scores]) -> float:
    """The score of the detector that 1 % of the negatives exceed."""
    best = [max(each.detected, default=log_odds(LEAST_SCORE))
            for each in scores if each.group == NEGATIVES]
    return round(float(sigmoid(np.quantile(best, 1 - FALSE_POSITIVES[0]))), 4)


def check_enough(scores: list[Scores]) -> None:
    """Raise UserError for too few images of a class."""
    negatives = sum(each.group == NEGATIVES for each in scores)
    for count, what in ((len(scores) - negatives, "images with a face"), (negatives, "negatives")):
        if count < LEAST_IMAGES:
            raise UserError("only {} {}; a calibration needs at least {}".format(
                count, what, LEAST_IMAGES))


def crossed(scores: list[Scores], margin: float) -> list[tuple[list[Scores], Calibration]]:
    """Each half of the images, with a calibration that was fitted on the other half."""
    halves = scores[::2], scores[1::2]
    return [(half, fit(other, margin, "")) for half, other in (halves, halves[::-1])]


def format_table(parts: list[tuple[list[Scores], Calibration]]) -> str:
    """Recall by group at two rates of false positives: of each answer alone, and of both.

    Each part has thresholds of its own, so that calibrations need not agree.
    """
    # Of each image of a group, by answer, whether it is found at each rate.
    found: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    looks: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for scores, calibration in parts:
        answers = [answer(each, calibration) for each in scores]
        odds = np.array([
            (_best(each.detected[:, None], calibration.alone), each.whole[-1], together.odds)
            for each, together in zip(scores, answers)])
        negatives = np.sort(odds[[each.group == NEGATIVES for each in scores]], 0)[::-1]
        thresholds = [negatives[int(rate * len(negatives))] for rate in FALSE_POSITIVES]
        for each, row, together in zip(scores, odds, answers):
            looks[each.group != NEGATIVES].append((together.looks, together.scales))
            if each.group != NEGATIVES:
                found[each.group].append(np.array([row > least for least in thresholds]))
    lines = [("{:<34}{:>7}" + 3 * "{:>18}").format(
        "found at 1 % (0.1 %)", "images", "detector alone", "sliding window", "together")]
    for name, rows in sorted(found.items()):
        lines.append("{:<34}{:7,d}".format(name, len(rows)) + "".join(
            "{:>18}".format("{:.1f} ({:.1f})".format(*shares))
            for shares in 100 * np.mean(rows, 0).T))
    for what, faces, negatives in zip(("boxes that the classifier sees", "scales of the window"),
                                      np.mean(looks[True], 0), np.mean(looks[False], 0)):
        lines.append("{}: {:.2f} per image with a face, {:.2f} per negative".format(
            what, faces, negatives))
    return "\n".join(lines)


def draw_reliability(path: str, parts: list[tuple[list[Scores], Calibration]]) -> None:
    """Draw how often images with a probability show a face; parts as for :func:`format_table`."""
    from darknet_face.evaluation.charts import save_reliability

    odds = [answer(each, calibration).odds for scores, calibration in parts for each in scores]
    save_reliability(path, np.array([
        each.group != NEGATIVES for scores, _ in parts for each in scores]), sigmoid(odds))


def _images(args):
    """All images, each with its group."""
    images = []
    for each in read_wider(args.wider_dir, "val", "all") if args.wider_dir else []:
        if len(each.boxes):
            width = (each.boxes[:, 2] - each.boxes[:, 0]).max()
            low, high = next(each for each in ((0, GROUPS[0][0]),) + GROUPS if width < each[1])
            images.append((each.path, "WIDER FACE, width {:2.0f} to {:3.0f} %".format(
                100 * low, min(100, 100 * high))))
    for folder in args.faces:
        images += [(path, os.path.basename(os.path.normpath(folder)))
                   for path in images_in(folder)]
    return images + [(path, NEGATIVES) for folder in args.negatives for path in images_in(folder)]


@cli
@explain_memory_errors("use a smaller --image-size")
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit how the scores of a detector and of the classifier become probabilities.",
        formatter_class=HelpFormatter)
    parser.add_argument("detector", nargs="?", default=DEFAULT,
                        help="a file of train_detector.py (.npz), which is written anew")
    parser.add_argument("--weights", default=WORD, help="the classifier")
    parser.add_argument("--wider-dir", help="WIDER FACE as distributed: its validation images")
    parser.add_argument("--faces", nargs="+", default=[], metavar="DIR",
                        help="folders of images with a face")
    parser.add_argument("--negatives", nargs="+", required=True, metavar="DIR",
                        help="folders of images without a face")
    parser.add_argument("--margin", type=number_type(float, 1, 10), default=MARGIN,
                        help="the side of what the classifier sees, in longer sides of the box")
    parser.add_argument("--boxes", type=number_type(int, 1, 100), default=3,
                        help="at how many boxes of an image the classifier looks")
    parser.add_argument("--reliability", type=image_name, metavar="PNG",
                        help="draw how often images with a probability show a face")
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    args = parser.parse_args()
    if not args.detector.lower().endswith(".npz"):
        parser.error("a calibration is stored in an .npz")
    weights, spec = read_detector(args.detector)
    model = read_model(args.weights)
    images = _images(args)
    with OnePassDetector(weights, spec, min_score=LEAST_SCORE) as detector, open_engine(
            model.weights, model.image_size) as engine:
        scores = measure(detector, engine, images, args.margin, args.boxes)
    check_enough(scores)
    parts = crossed(scores, args.margin)
    print(format_table(parts))
    if args.reliability:
        draw_reliability(args.reliability, parts)
    calibration = fit(scores, args.margin, fingerprint(model.weights))
    if not args.dry_run:
        write_detector(args.detector, weights, dataclasses.replace(
            spec, calibration=calibration, threshold=threshold_alone(scores)))
        print("wrote {}".format(args.detector))


if __name__ == "__main__":
    main()
