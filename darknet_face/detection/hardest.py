"""Copy the images without a face in which a detector is surest of one, to train on them more often.

    python -m darknet_face.detection.hardest negatives/train --out hard --sheet hard.png
    python train_detector.py .. --init-from detector.npz --negatives negatives/train hard hard hard

Look at the sheet first: in a large collection some of the hardest do show a face. Remove these from
both folders. The copies keep their names, so that a training holds out the same ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import typing

from darknet_face.console import HelpFormatter, UserError, cli, number_type, printable
from darknet_face.detection import LEAST_SCORE, default_detector, load
from darknet_face.detection.evaluate import images_in, score_images
from darknet_face.images.contact_sheets import (
    check_drawing,
    contact_sheet,
    image_name,
    save_image,
)
from darknet_face.images.decode import read_image
from darknet_face.images.resize import shrink
from darknet_face.runtime.atomic_files import staged
from darknet_face.runtime.session import explain_memory_errors

TILE = 120  # pixels
COLUMNS = 12


def find_hardest(detect: typing.Callable, folder: str, count: int) -> list[tuple[float, str]]:
    """The scores and paths of the images with the best boxes, the surest first.

    Parameters
    ----------
    detect
        See :func:`darknet_face.detection.load`.
    folder
        Searched with the folders in it; raises UserError if it holds no image.
    count
        How many images at most; those without any box are left out.
    """
    scored = [(score, path) for path, score in score_images(detect, images_in(folder)) if score > 0]
    return sorted(scored, key=lambda each: (-each[0], each[1]))[:count]


def copy_images(paths: typing.Sequence[str], folder: str, out: str) -> None:
    """Copy images of ``folder`` to the same places in ``out``: all of them or none."""
    with staged(out) as temporary:
        for path in paths:
            target = os.path.join(temporary, os.path.relpath(path, folder))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target)


def draw_sheet(hardest: typing.Sequence[tuple[float, str]], path: str) -> None:
    """Draw the images, in the same order, with their scores and names."""
    tiles = [shrink(read_image(each, least_size=TILE), TILE) for _, each in hardest]
    captions = ["{:.2f}\n{}".format(score, printable(os.path.basename(each)))
                for score, each in hardest]
    save_image(path, contact_sheet(
        tiles, captions, title="Images without a face in which the detector is surest of one",
        columns=COLUMNS, tile=TILE))


def _is_inside(path, folder):
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


@cli
@explain_memory_errors("use a smaller --image-size")
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Copy the images without a face in which a detector is surest of one.",
        formatter_class=HelpFormatter)
    parser.add_argument("folder", help="images without a face")
    parser.add_argument("--model", default=default_detector(),
                        help="a file of train_detector.py")
    parser.add_argument("--out", default="hard", help="folder for the copies; new or empty")
    parser.add_argument("--count", type=number_type(int, 1), default=500,
                        help="how many images to copy, the hardest first")
    parser.add_argument("--sheet", type=image_name, metavar="FILE",
                        help="also draw them, to look at")
    parser.add_argument("--image-size", type=number_type(int, 32, 2048),
                        help="longer side of the input, a multiple of 32 (default: the model's)")
    args = parser.parse_args()
    if args.image_size and args.image_size % 32:
        parser.error("--image-size is a multiple of 32")
    if os.path.isdir(args.out) and os.listdir(args.out):
        parser.error("--out {}: is not empty; name a new folder".format(printable(args.out)))
    places = [("--out", args.out)] + [("--sheet", args.sheet)] * bool(args.sheet)
    for option, path in places:
        if _is_inside(path, args.folder) or option == "--sheet" and _is_inside(path, args.out):
            parser.error("{} {}: is among images to train on; name another place".format(
                option, printable(path)))
    if args.sheet:
        check_drawing(args.sheet)
    with load(args.model, image_size=args.image_size, min_score=LEAST_SCORE) as detect:
        hardest = find_hardest(detect, args.folder, args.count)
    if not hardest:
        raise UserError("{}: no image in it decodes, or the detector finds nothing in any; there "
                        "is nothing to copy".format(args.folder))
    copy_images([path for _, path in hardest], args.folder, args.out)
    if args.sheet:
        draw_sheet(hardest, args.sheet)
        print("wrote {}".format(args.sheet))
    print("{}: {:,} images with scores from {:.3f} down to {:.3f}".format(
        args.out, len(hardest), hardest[0][0], hardest[-1][0]))


if __name__ == "__main__":
    main()
