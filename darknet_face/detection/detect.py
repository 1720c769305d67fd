"""Find faces in images and videos: draw their boxes, and write them as JSON.

    python -m darknet_face.detection.detect photo.jpg pictures/ --out found
    python -m darknet_face.detection.detect film.mp4 --fps 2 --out found

For ``photo.jpg`` it writes ``found/photo.jpg``, with the boxes, and ``found/photo.jpg.json``:
``{"name": .., "width": .., "height": .., "faces": [{"score": .., "box": [left, top, right,
bottom]}, ..]}``, in pixels of the upright image, best first.
"""

from __future__ import annotations

import argparse
import os
import typing

import numpy as np
from PIL import Image, ImageDraw

from darknet_face.classify.find_inputs import check_names, find_inputs
from darknet_face.classify.outputs import ONE_IMAGE_ERRORS
from darknet_face.console import HelpFormatter, UserError, cli, number_type, printable, warn
from darknet_face.detection import default_detector, load
from darknet_face.detection.detector import NMS_IOU
from darknet_face.engines.engine import add_engine_argument
from darknet_face.images.contact_sheets import (
    GREEN,
    check_drawing,
    font,
    mark_drawing,
    save_image,
)
from darknet_face.images.find_images import Skipped
from darknet_face.images.formats import EXTENSIONS, BadImage
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_replaceable, is_json_with
from darknet_face.runtime.session import PRECISIONS, explain_memory_errors


def describe(name: str, shape: tuple, boxes: np.ndarray, scores: np.ndarray) -> dict:
    """What the JSON of an image holds: see the head of this file."""
    height, width = shape[:2]
    return {"name": name, "width": width, "height": height, "faces": [
        {"score": round(float(score), 4),
         "box": [round(float(corner) * side, 1)
                 for corner, side in zip(box, (width, height, width, height))]}
        for box, score in zip(boxes, scores)]}


def draw(pixels: np.ndarray, faces: list[dict]) -> Image.Image:
    """Draw faces into an image.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, [height, width, 3].
    faces : list of dict
        See :func:`describe`.

    Returns
    -------
    PIL.Image.Image
    """
    image = Image.fromarray(pixels)
    pen, line = ImageDraw.Draw(image), max(1, int(round(max(image.size) / 250)))
    for face in faces:
        left, top, right, bottom = face["box"]
        pen.rectangle([left, top, right, bottom], outline=GREEN, width=line)
        pen.text((left + line + 1, top + line), "{:.2f}".format(face["score"]), fill=GREEN,
                 font=font(max(9, 4 * line + 4)))
    return image


def detect_faces(detect: typing.Callable, images: typing.Iterable, out: str) -> tuple:
    """Detect the faces of images and write the results; bad images are reported and skipped.

    Parameters
    ----------
    detect : callable
        See :func:`darknet_face.detection.load`.
    images : iterable of darknet_face.classify.inputs.InputImage
    out : str
        The folder for the results.

    Returns
    -------
    images, faces, bad : int
    """
    count = faces = bad = 0
    for each in images:
        try:
            pixels = each.read()
        except BadImage as error:
            warn("{}: {}; skipped".format(printable(each.name), error))
            bad += 1
            continue
        record = describe(each.name, pixels.shape, *detect(pixels))
        try:
            _write(os.path.join(out, each.drawing_name), pixels, record)
        except OSError as error:
            if error.errno not in ONE_IMAGE_ERRORS:
                raise
            warn("{}: {}: {}; skipped".format(
                printable(each.name), error.filename or "results", error.strerror))
            bad += 1
            continue
        count, faces = count + 1, faces + len(record["faces"])
        print("{:3d} faces  {}".format(len(record["faces"]), printable(each.name)))
    return count, faces, bad


def _write(path, pixels, record):
    """Write an image with its faces, and their JSON; neither replaces anything else."""
    if not os.path.isdir(path):  # a folder is in the way of this image alone
        check_drawing(path)
        check_replaceable(path + ".json", lambda name: is_json_with(name, ["name", "faces"]),
                          "a result of this program")
    write_json(path + ".json", record)  # first: its name is longer, and may be too long
    save_image(path, mark_drawing(draw(pixels, record["faces"])))


@cli
@explain_memory_errors("use a smaller --image-size")
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Find faces in images and videos.", formatter_class=HelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME",
                        help="images ({}, ..), videos, folders, patterns, or - for a list"
                        .format(EXTENSIONS[0]))
    parser.add_argument("--model", default=default_detector(),
                        help="a file of train_detector.py, of either head")
    parser.add_argument("--out", default="found", help="folder for the results")
    parser.add_argument("--threshold", type=number_type(float, 0, 1),
                        help="lowest score of a face (default: the model's, or 0.4)")
    parser.add_argument("--nms-iou", type=number_type(float, 0, 1), default=NMS_IOU,
                        help="of two boxes that overlap more than this, keep the better")
    parser.add_argument("--image-size", type=number_type(int, 32, 2048),
                        help="scale larger images down to this longer side, a multiple of 32; the "
                             "yolov2 head stretches all to it (default: the model's)")
    parser.add_argument("--fps", type=number_type(float, 0.001, 1000), default=1.0,
                        help="frames to take from each second of video")
    add_engine_argument(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="bfloat16 is faster on processors that have it")
    args = parser.parse_args()
    if args.image_size and args.image_size % 32:
        parser.error("--image-size is a multiple of 32")
    check_names(args.names, [args.out])
    skipped = Skipped()
    images = find_inputs(args.names, args.fps, {os.path.realpath(args.out)}, skipped.add)
    with load(args.model, image_size=args.image_size, min_score=args.threshold,
              nms_iou=args.nms_iou, precision=args.precision, engine=args.engine) as detect:
        count, faces, bad = detect_faces(detect, images, args.out)
    print("found {:,} faces in {:,} images{}{}; results in {}".format(
        faces, count, ", skipped {:,} bad ones".format(bad) if bad else "",
        ", skipped {}".format(skipped) if len(skipped) else "", args.out))
    if not count:
        raise UserError("no image decoded; check the names")


if __name__ == "__main__":
    main()
