"""Fit how the scores of a detector and of the classifier become probabilities.

    python -m darknet_face.detection.calibrate face_detector.npz --wider-dir wider \\
        --faces celeba/val utkface/val --negatives negatives/val

The images must be in neither the detector's nor the classifier's training. The result is written
into the detector's file, with the threshold of the detector alone, and answers with
``--search detector`` use it. It belongs to this classifier: calibrate again after training either.

An image's score is that of its best box. A logistic regression joins the log-odds of the detector
with those of the classifier, which sees the box with a margin. A second one joins these with the
best of a sliding window over the whole image, for the images that are still in doubt. The bias is
then set so that 1 % of the negatives have a probability of 0.5 or more. The table tells which share
of the images with a face is found at 1 % and 0.1 % false positives.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing

import numpy as np

from darknet_face.classify.sliding_window import SlidingWindow, sigmoid
from darknet_face.console import HelpFormatter, UserError, cli, number_type, progress, warn
from darknet_face.detection import DEFAULT
from darknet_face.detection.calibration import Calibration, log_odds
from darknet_face.detection.confirm import WHOLE_SCALES, look_at
from darknet_face.detection.datasets import read_wider
from darknet_face.detection.detector import LEAST_SCORE, OnePassDetector
from darknet_face.detection.evaluate import FALSE_POSITIVES, GROUPS, images_in
from darknet_face.detection.model_file import read_detector, write_detector
from darknet_face.engines.engine import Engine, open_engine
from darknet_face.images.decode import BadImage, read_image
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights.arrays import fingerprint
from darknet_face.weights.model_file import WORD, read_model

LEAST_IMAGES = 20  # of each class
DOUBT = 0.6  # share of the negatives that are in no doubt after the look at boxes
LOST = 0.002  # share of the images with a face that may be given up unseen
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
        Of the best window over the whole image.
    """

    group: str
    detected: np.ndarray
    seen: np.ndarray
    whole: float


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
    sliding_window = SlidingWindow(engine, WHOLE_SCALES)
    for path, group in progress(images, desc="looking", unit="image"):
        try:
            image = read_image(path)
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            continue
        boxes, found = (each[:most_boxes] for each in detector(image))
        seen = look_at(engine, image, boxes, margin) if len(boxes) else np.zeros(0)
        scores.append(Scores(group, log_odds(found), seen,
                             float(log_odds(sliding_window(image).probability))))
    return scores


def fit(scores: list[Scores], margin: float, classifier: str) -> Calibration:
    """Fit a calibration.

    Parameters
    ----------
    scores
    margin
        With which they were measured.
    classifier
        See :class:`darknet_face.detection.calibration.Calibration`.

    Raises
    ------
    UserError
        For too few images of a class.
    """
    is_face = np.array([each.group != NEGATIVES for each in scores])
    for count, what in ((is_face.sum(), "images with a face"), ((~is_face).sum(), "negatives")):
        if count < LEAST_IMAGES:
            raise UserError("only {} {}; a calibration needs at least {}".format(
                count, what, LEAST_IMAGES))
    alone = _fit(scores, is_face, [each.detected[:, None] for each in scores])
    together = _fit(scores, is_face, [np.stack([each.detected, each.seen], 1) for each in scores])
    by_detector = np.array([_best(each.detected[:, None], alone) for each in scores])
    calibration = Calibration(
        alone=(alone[0], alone[1]), together=(together[0], together[1], together[2]),
        margin=margin, most_boxes=max(1, max(len(each.detected) for each in scores)),
        hopeless=float(np.quantile(by_detector[is_face], LOST)),
        certain=float(by_detector[~is_face].max()) + 1.0,
        whole=(0.0, 1.0, 0.0), unlikely=0.0, likely=0.0, classifier=classifier)
    calibration = _with_whole(scores, is_face, calibration)
    answers = [answer(each, calibration).odds for each, face in zip(scores, is_face) if not face]
    return calibration.lowered(float(np.quantile(answers, 1 - FALSE_POSITIVES[0])))


def _with_whole(scores, is_face, calibration):
    """Add the sliding window, for the images that the boxes leave in doubt."""
    from sklearn.linear_model import LogisticRegression

    joined = np.array([answer(each, calibration).odds for each in scores])
    unlikely, likely = np.quantile(joined[~is_face], DOUBT), joined[~is_face].max() + 1.0
    doubt = (joined > unlikely) & (joined < likely)
    if min(is_face[doubt].sum(), (~is_face)[doubt].sum()) < LEAST_IMAGES:
        return calibration
    features = np.stack([joined, [each.whole for each in scores]], 1)
    model = LogisticRegression(class_weight="balanced", C=10.0).fit(features[doubt], is_face[doubt])
    factors = np.maximum(model.coef_[0], 0)
    # As before the window, 1 % of the negatives are above 0 and the highest is 1 below "likely", so
    # that both can be compared with images that were in no doubt.
    raw = np.sort((features @ factors)[doubt & ~is_face])[::-1]
    zero = raw[min(int(FALSE_POSITIVES[0] * (~is_face).sum()), len(raw) - 1)]
    scale = (likely - 1) / (raw[0] - zero) if raw[0] > zero and likely > 1 else 1.0
    bias, factors = -scale * zero, scale * factors
    return dataclasses.replace(
        calibration, whole=(float(bias), float(factors[0]), float(factors[1])),
        unlikely=float(unlikely), likely=float(likely))


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
    return [-float(np.quantile(best[~is_face], 1 - FALSE_POSITIVES[0])), *factors[1:]]


def _best(features, factors):
    """The log-odds of the best box of an image."""
    if not len(features):
        features = np.full((1, len(factors) - 1), log_odds(LEAST_SCORE))
    return float((features @ factors[1:]).max() + factors[0])


class Answer(typing.NamedTuple):
    """An image's log-odds, at how many boxes the classifier looked, whether a window slid."""

    odds: float
    boxes: int
    windows: int


def answer(scores: Scores, calibration: Calibration) -> Answer:
    """What :class:`darknet_face.detection.confirm.FaceFinder` answers."""
    joined = calibration.alone[0] + calibration.alone[1] * scores.detected
    chosen = calibration.uncertain(joined)
    bias, of_detector, of_classifier = calibration.together
    joined[chosen] = (bias + of_detector * scores.detected[chosen]
                      + of_classifier * scores.seen[chosen])
    best = float(joined.max()) if len(joined) else _best(np.zeros((0, 1)), calibration.alone)
    if not calibration.unlikely < best < calibration.likely:
        return Answer(best, len(chosen), 0)
    return Answer(float(np.dot(calibration.whole, (1.0, best, scores.whole))), len(chosen), 1)


def format_table(scores: list[Scores], calibration: Calibration) -> str:
    """Recall by group at two rates of false positives, by the detector alone and confirmed."""
    groups = np.array([each.group for each in scores])
    alone = np.array([_best(each.detected[:, None], calibration.alone) for each in scores])
    confirmed, looks, windows = np.array([answer(each, calibration) for each in scores]).T
    lines = ["{:<34}{:>7}{:>18}{:>18}".format("found at 1 % (0.1 %)", "images", "detector alone",
                                             "confirmed")]
    for name in sorted(set(groups) - {NEGATIVES}):
        line = "{:<34}{:7,d}".format(name, int((groups == name).sum()))
        for odds in (alone, confirmed):
            negatives = np.sort(odds[groups == NEGATIVES])[::-1]
            line += "{:>18}".format("{:.1f} ({:.1f})".format(*[
                100 * np.mean(odds[groups == name] > negatives[int(rate * len(negatives))])
                for rate in FALSE_POSITIVES]))
        lines.append(line)
    for what, counts in (("boxes that the classifier sees", looks),
                         ("images that it slides over", windows)):
        lines.append("{}: {:.2f} per image with a face, {:.2f} per negative".format(
            what, counts[groups != NEGATIVES].mean(), counts[groups == NEGATIVES].mean()))
    return "\n".join(lines)


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
    parser.add_argument("--margin", type=number_type(float, 1, 10), default=1.8,
                        help="the side of what the classifier sees, in longer sides of the box")
    parser.add_argument("--boxes", type=number_type(int, 1, 100), default=2,
                        help="at how many boxes of an image the classifier looks")
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
    calibration = fit(scores, args.margin, fingerprint(model.weights))
    print(format_table(scores, calibration))
    if not args.dry_run:
        threshold = float(sigmoid(-calibration.alone[0] / max(calibration.alone[1], 1e-3)))
        write_detector(args.detector, weights, dataclasses.replace(
            spec, calibration=calibration, threshold=round(threshold, 4)))
        print("wrote {}".format(args.detector))


if __name__ == "__main__":
    main()
