"""How well a detector finds the faces of WIDER FACE's validation images, by pycocotools.

    python -m darknet_face.detection.evaluate --wider-dir wider
    python -m darknet_face.detection.evaluate face_detector.npz --negatives negatives --plot pr.png

A detection is right if its IoU with a face that is not taken yet is at least 0.4 (AP40) or 0.5
(AP50). The average precision is COCO's: precision at 101 recalls, averaged. Faces of other sizes
than a row's, and those that the rule ignores (see datasets.py), count neither way.

With --negatives it also tells how many images with a face are found as such: an image's score is
that of its best box, and it is found if that is above the scores of all but 1 % (0.1 %) of the
negatives.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import typing

import numpy as np

from darknet_face.console import HelpFormatter, UserError, cli, number_type, progress, warn
from darknet_face.detection import LEAST_SCORE, default_detector, load
from darknet_face.detection.datasets import KEEP, Photograph, read_wider
from darknet_face.images.contact_sheets import (
    BLUE,
    CHART_STYLE,
    hexadecimal,
    image_name,
    save_chart,
)
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.find_images import find_images
from darknet_face.images.formats import EXTENSIONS
from darknet_face.runtime.session import explain_memory_errors

IOUS = 0.4, 0.5
LEAST_WIDTH = 0.05  # of the image's: the faces that a detector is measured by
GROUPS = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.5), (0.5, 1.01))  # widths, as shares
FALSE_POSITIVES = 0.01, 0.001
PUBLISHED_THRESHOLD = 0.1
# Of yogeesh-agarwal/Yolov2-Face_Detection, by its README. Its predictions are not published, so
# this code can't score them. Its images are WIDER FACE's whole validation set, pruned.
PUBLISHED = 77.2, 69.8

Truths = typing.Sequence[typing.Tuple[np.ndarray, np.ndarray]]
Found = typing.Sequence[typing.Tuple[np.ndarray, np.ndarray]]


def average_precision(truths: Truths, found: Found, ious: typing.Sequence[float] = IOUS
                      ) -> list[float]:
    """Average precision over images, for each IoU: 0..1; NaN if there is no face.

    Parameters
    ----------
    truths
        For each image, the faces and the ignored faces: [n, 4] and [m, 4], left, top, right,
        bottom, in any unit.
    found
        For each image, boxes [k, 4] and scores [k].
    ious
        What IoU makes a detection right.
    """
    return [float(each) for each in precision_recall(truths, found, ious).mean(1)]


def precision_recall(truths: Truths, found: Found, ious: typing.Sequence[float] = IOUS
                     ) -> np.ndarray:
    """The precision at 101 recalls from 0 to 1, for each IoU: [ious, 101]; see above."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: list[dict] = []
    results: list[dict] = []
    for image, ((faces, ignored), (boxes, scores)) in enumerate(zip(truths, found), 1):
        for group, crowd in ((faces, 0), (ignored, 1)):
            annotations += [dict(id=len(annotations) + k, image_id=image, category_id=1,
                                 bbox=box, area=box[2] * box[3], iscrowd=crowd)
                            for k, box in enumerate(_with_sizes(group), 1)]
        results += [dict(image_id=image, category_id=1, bbox=box, score=float(score))
                    for box, score in zip(_with_sizes(boxes), scores)]
    if not any(len(faces) for faces, _ in truths):
        return np.full((len(ious), 101), np.nan)
    if not results:
        return np.zeros((len(ious), 101))
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
        truth = COCO()
        truth.dataset = dict(images=[dict(id=k + 1) for k in range(len(truths))], info={},
                             annotations=annotations, categories=[dict(id=1, name="face")])
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array(ious)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, float("inf")]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU, recall, class, area range, number of detections]; -1 would mean "no face".
    return evaluation.eval["precision"][:, :, 0, 0, 0]


def _with_sizes(boxes):
    """COCO's boxes: left, top, width, height. Shares become ten-thousandths, as if pixels."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4) * 10000
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


def detect_all(detect: typing.Callable, photographs: typing.Sequence[Photograph]) -> tuple:
    """Run a detector on images. Those that do not decode are reported and skipped.

    Parameters
    ----------
    detect
        Takes uint8 [height, width, 3]; returns boxes [k, 4] and scores [k].
    photographs

    Returns
    -------
    truths, found : list
        For :func:`average_precision`.
    """
    truths, found = [], []
    for each in progress(photographs, desc="validation", leave=False):
        try:
            found.append(detect(read_image(each.path)))
            truths.append((each.boxes, each.ignored))
        except BadImage as error:
            warn("{}: {}; skipped".format(each.path, error))
    if not found:
        raise UserError("none of the {:,} images decodes; check the disk".format(
            len(photographs)))
    return truths, found


def best_scores(detect: typing.Callable, paths: typing.Sequence[str]) -> np.ndarray:
    """The best score in each image, 0 where nothing is found: float64, [images that decode]."""
    return np.array([score for _, score in score_images(detect, paths)], np.float64)


def score_images(detect: typing.Callable, paths: typing.Sequence[str]
                 ) -> typing.Iterator[tuple[str, float]]:
    """Yield the path of each image that decodes, and its best score: 0 where nothing is found."""
    for path in progress(paths, desc="negatives", leave=False):
        try:
            yield path, float(max(detect(read_image(path))[1], default=0.0))
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))


def at_least(found: Found, threshold: float) -> list:
    """The detections whose score is at least ``threshold``."""
    return [(boxes[scores >= threshold], scores[scores >= threshold]) for boxes, scores in found]


def of_width(truths: Truths, low: float, high: float = 2.0) -> list:
    """The same truths, with the faces of other widths (shares of the image's) ignored."""
    selected = []
    for faces, ignored in truths:
        wide = (faces[:, 2] - faces[:, 0] >= low) & (faces[:, 2] - faces[:, 0] < high)
        selected.append((faces[wide], np.concatenate([ignored, faces[~wide]])))
    return selected


def image_recall(truths: Truths, found: Found, negatives: np.ndarray, false_positives: float,
                 low: float = LEAST_WIDTH, high: float = 2.0) -> tuple[float, int]:
    """The share of images with a face that are found as such, and how many these are.

    Parameters
    ----------
    truths, found
        See :func:`average_precision`; boxes as shares.
    negatives
        See :func:`best_scores`.
    false_positives
        The share of the negatives that may score above the threshold.
    low, high
        Of the images whose widest face has such a width.
    """
    threshold = np.sort(negatives)[::-1][int(false_positives * len(negatives))]
    scores = [max(scores, default=0.0) for (faces, _), (_, scores) in zip(truths, found)
              if len(faces) and low <= (faces[:, 2] - faces[:, 0]).max() < high]
    return (float(np.mean(np.array(scores, np.float64) > threshold)) if scores else float("nan"),
            len(scores))


def images_in(folder: str) -> list[str]:
    """All images in a folder and the folders in it; raises UserError if there is none."""
    found = list(find_images(folder))
    if not found:
        raise UserError("{}: no image in it ({}, ..)".format(folder, EXTENSIONS[0]))
    return found


def plot_precision_recall(path: str, curves: dict[str, np.ndarray]) -> None:
    """Draw precision over recall.

    Parameters
    ----------
    path
        The image to write.
    curves
        The precision at 101 recalls, by label.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(7, 4.6))
        axes = figure.add_subplot(1, 1, 1)
        for shade, (label, precision) in enumerate(curves.items()):
            axes.plot(np.linspace(0, 1, len(precision)), precision, label=label,
                      color=hexadecimal(BLUE), alpha=1 / (1 + shade))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
                 title="Detected faces, IoU 0.5")
        axes.legend(loc="lower left")
        figure.tight_layout()
        save_chart(path, figure, 110)


def _print_table(truths, found, negatives):
    print("{:<34}{:>7}{:>8}{:>8}".format("", "faces", "AP40", "AP50") + ("{:>9}{:>10}{:>10}".format(
        "images", "at 1 %", "at 0.1 %") if len(negatives) else ""))
    rows = [("faces from 5 % of the width", LEAST_WIDTH, 2.0)]
    rows += [("{:.0%} to {:.0%}".format(low, high) if high <= 1 else "over {:.0%}".format(low),
              low, high) for low, high in GROUPS] + [("all faces", 0.0, 2.0)]
    for name, low, high in rows:
        selected = of_width(truths, low, high)
        line = "{:<34}{:7,d}{:8.3f}{:8.3f}".format(
            name, sum(len(faces) for faces, _ in selected), *average_precision(selected, found))
        if len(negatives):
            recalls = [image_recall(truths, found, negatives, share, low, high)
                       for share in FALSE_POSITIVES]
            line += "{:9,d}{:10.3f}{:10.3f}".format(recalls[0][1], *[each for each, _ in recalls])
        print(line)


@cli
@explain_memory_errors("use a smaller --image-size")
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure a detector on WIDER FACE's validation images.",
        formatter_class=HelpFormatter)
    parser.add_argument("model", nargs="?", default=default_detector(),
                        help="a file of train_detector.py")
    parser.add_argument("--wider-dir", default="wider", help="WIDER FACE as distributed")
    parser.add_argument("--keep", choices=KEEP, default="all",
                        help="which images: see datasets.py")
    parser.add_argument("--negatives", nargs="+", default=[], metavar="DIR",
                        help="folders with images without a face: tell how many images with a face "
                             "are found at 1 %% and 0.1 %% false positives")
    parser.add_argument("--image-size", type=number_type(int, 32, 2048),
                        help="longer side of the input, a multiple of 32 (default: the model's)")
    parser.add_argument("--plot", type=image_name, metavar="FILE",
                        help="draw the precision-recall curve")
    parser.add_argument("--published", action="store_true",
                        help="add the figures of a published detector, of more images")
    args = parser.parse_args()
    if args.image_size and args.image_size % 32:
        parser.error("--image-size is a multiple of 32")
    photographs = read_wider(args.wider_dir, "val", args.keep)
    paths = [path for folder in args.negatives for path in images_in(folder)]
    with load(args.model, image_size=args.image_size, min_score=LEAST_SCORE) as detect:
        truths, found = detect_all(detect, photographs)
        negatives = best_scores(detect, paths)
    print("{}: {:,} images with {:,} faces, {:,} negatives".format(
        os.path.basename(args.model), len(truths), sum(len(faces) for faces, _ in truths),
        len(negatives)))
    _print_table(truths, found, negatives)
    if args.published:
        pruned = average_precision(truths, at_least(found, PUBLISHED_THRESHOLD))
        print("of scores from {}: AP40 {:.1f}, AP50 {:.1f}; a published detector, on more images: "
              "{} and {}".format(PUBLISHED_THRESHOLD, *[100 * each for each in pruned],
                                 *PUBLISHED))
    if args.plot:
        plot_precision_recall(args.plot, {
            "faces from {:.0%} of the width".format(low):
            precision_recall(of_width(truths, low), found, (0.5,))[0] for low in (0.05, 0.1, 0.2)})
        print("wrote {}".format(args.plot))


if __name__ == "__main__":
    main()
