"""Average precision of a detector, by pycocotools.

    python -m darknet_face.detection.evaluate --wider-dir wider
    python -m darknet_face.detection.evaluate saved_models/yolov2_face.pb --image-size 416

A detection is right if its IoU with a face that is not taken yet is at least 0.4 (AP40) or 0.5
(AP50). The average precision is COCO's: precision at 101 recalls, averaged. Faces that the rule
ignores (see photographs.py) count neither way.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os

import numpy as np

from darknet_face.console import HelpFormatter, UserError, cli, number_type, progress, warn
from darknet_face.detection.detector import DEFAULT, DEFAULT_SIZE, Detector
from darknet_face.detection.photographs import KEEP, read_wider
from darknet_face.images.decode import BadImage, read_image
from darknet_face.runtime.session import explain_memory_errors

IOUS = 0.4, 0.5
PUBLISHED_THRESHOLD = 0.1
# Of yogeesh-agarwal/Yolov2-Face_Detection, by its README. Its predictions are not published, so
# this code can't score them. Its photographs are WIDER FACE's whole validation set, pruned.
PUBLISHED = 77.2, 69.8


def average_precision(truths, found, ious=IOUS):
    """Average precision over photographs.

    Parameters
    ----------
    truths : sequence of (numpy.ndarray, numpy.ndarray)
        For each photograph, the faces and the ignored faces: [n, 4] and [m, 4], left, top, right,
        bottom, in any unit.
    found : sequence of (numpy.ndarray, numpy.ndarray)
        For each photograph, boxes [k, 4] and scores [k].
    ious : sequence of float
        What IoU makes a detection right.

    Returns
    -------
    list of float
        For each IoU, 0..1; NaN if there is no face.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for image, ((faces, ignored), (boxes, scores)) in enumerate(zip(truths, found), 1):
        for group, crowd in ((faces, 0), (ignored, 1)):
            annotations += [dict(id=len(annotations) + k, image_id=image, category_id=1,
                                 bbox=box, area=box[2] * box[3], iscrowd=crowd)
                            for k, box in enumerate(_with_sizes(group), 1)]
        results += [dict(image_id=image, category_id=1, bbox=box, score=float(score))
                    for box, score in zip(_with_sizes(boxes), scores)]
    if not any(len(faces) for faces, _ in truths):
        return [float("nan")] * len(ious)
    if not results:
        return [0.0] * len(ious)
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
    return [float(each) for each in evaluation.eval["precision"][:, :, 0, 0, 0].mean(1)]


def _with_sizes(boxes):
    """COCO's boxes: left, top, width, height. Shares become ten-thousandths, as if pixels."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4) * 10000
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


def detect_all(detect, photographs):
    """Run a detector on photographs. Those that do not decode are reported and left out.

    Parameters
    ----------
    detect : callable
        Takes uint8 [height, width, 3]; returns boxes [k, 4] and scores [k].
    photographs : list of Photograph

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
        raise UserError("none of the {:,} photographs decodes; check the disk".format(
            len(photographs)))
    return truths, found


def at_least(found, threshold):
    """The detections whose score is at least ``threshold``."""
    return [(boxes[scores >= threshold], scores[scores >= threshold]) for boxes, scores in found]


@cli
@explain_memory_errors("use a smaller --image-size")
def main():
    parser = argparse.ArgumentParser(
        description="Print a detector's average precision on WIDER FACE's validation photographs.",
        formatter_class=HelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT, help="a frozen graph of train.py")
    parser.add_argument("--wider-dir", default="wider", help="WIDER FACE as distributed")
    parser.add_argument("--keep", choices=KEEP, default="pruned",
                        help="which photographs: see photographs.py")
    parser.add_argument("--image-size", type=number_type(int, 32, 2048), default=DEFAULT_SIZE,
                        help="stretch photographs to this height and width, a multiple of 32")
    args = parser.parse_args()
    if args.image_size % 32:
        parser.error("--image-size is a multiple of 32")
    photographs = read_wider(args.wider_dir, "val", args.keep)
    with Detector(args.model, args.image_size) as detect:
        truths, found = detect_all(detect, photographs)
    print("{}: {:,} faces in {:,} photographs, input {size} x {size}".format(
        os.path.basename(args.model), sum(len(faces) for faces, _ in truths), len(truths),
        size=args.image_size))
    print("{:<58} {:>6} {:>6}".format("", "AP40", "AP50"))
    for name, values in (
            ("all detections", average_precision(truths, found)),
            ("detections of at least {}".format(PUBLISHED_THRESHOLD),
             average_precision(truths, at_least(found, PUBLISHED_THRESHOLD)))):
        print("{:<58} {:6.1f} {:6.1f}".format(name, *(100 * each for each in values)))
    print("{:<58} {:6.1f} {:6.1f}".format(
        "published detector, of at least 0.1, on more photographs", *PUBLISHED))


if __name__ == "__main__":
    main()
