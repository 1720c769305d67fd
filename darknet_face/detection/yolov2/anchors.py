"""Anchor sizes by k-means on the faces' sizes, with 1 - IoU as the distance.

    python -m darknet_face.detection.yolov2.anchors --wider-dir wider                   # the table
    python -m darknet_face.detection.yolov2.anchors --wider-dir wider --draw anchors.png

Source: Redmon & Farhadi, "YOLO9000: Better, Faster, Stronger", 2016, section 2, "Dimension
clusters". Euclidean distance would favour large boxes; 1 - IoU treats all sizes alike.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image, ImageDraw

from darknet_face.console import HelpFormatter, UserError, cli, number_type, warn
from darknet_face.detection.datasets import KEEP, Photograph, read_wider
from darknet_face.images.contact_sheets import (
    BLUE,
    GREEN,
    contact_sheet,
    image_name,
    save_image,
)
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.resize import resize

COUNT = 5  # as in the paper
ROUNDS = 300  # of k-means, at most


def size_iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU of boxes with one centre: [n, k], 0..1.

    Parameters
    ----------
    sizes
        [n, 2], widths and heights.
    anchors
        [k, 2], in the same unit.
    """
    overlap = np.minimum(sizes[:, None], anchors[None]).prod(-1)
    return overlap / (sizes.prod(-1)[:, None] + anchors.prod(-1)[None] - overlap)


def find_anchors(sizes: np.ndarray, count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Cluster sizes by k-means: float32, [count, 2], smallest area first.

    It stops when no size changes its cluster, or after :data:`ROUNDS`.

    Parameters
    ----------
    sizes
        [n, 2], widths and heights, as shares of the image's sides.
    count
        k; at most n.
    seed
        Draws the first centres among the sizes.

    Raises
    ------
    UserError
        With fewer distinct sizes than anchors.
    """
    distinct = np.unique(sizes, axis=0)
    if len(distinct) < count:
        raise UserError("{} distinct face sizes are too few for {} anchors; use more images"
                        .format(len(distinct), count))
    rng = np.random.RandomState(seed)
    anchors = distinct[rng.choice(len(distinct), count, replace=False)]
    nearest = None
    for _ in range(ROUNDS):
        previous, nearest = nearest, size_iou(sizes, anchors).argmax(1)
        if previous is not None and (nearest == previous).all():
            break
        anchors = np.stack([
            sizes[nearest == k].mean(0) if (nearest == k).any() else anchors[k]
            for k in range(count)])
    return anchors[anchors.prod(1).argsort()].astype(np.float32)


def mean_best_iou(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """The paper's measure of a set of anchors: each size's IoU with its nearest anchor, averaged"""
    return float(size_iou(sizes, anchors).max(1).mean())


def face_sizes(photographs: list[Photograph]) -> np.ndarray:
    """Widths and heights of all faces, as shares of the images' sides: float32 [n, 2]."""
    boxes = np.concatenate([each.boxes for each in photographs])
    return boxes[:, 2:] - boxes[:, :2]


def draw_anchors(photographs: list[Photograph], anchors: np.ndarray, size: int = 224
                 ) -> Image.Image:
    """A contact sheet of images with their faces in green and the nearest anchors in blue.

    Parameters
    ----------
    photographs
    anchors
        [k, 2], as shares of the images' sides.
    size
        Height and width of each image, in pixels.
    """
    tiles = []
    for each in photographs:
        try:
            tile = Image.fromarray(resize(read_image(each.path), size, size))
        except BadImage as error:
            warn("{}: {}; skipped".format(each.path, error))
            continue
        draw = ImageDraw.Draw(tile)
        nearest = anchors[size_iou(each.boxes[:, 2:] - each.boxes[:, :2], anchors).argmax(1)]
        centers = (each.boxes[:, :2] + each.boxes[:, 2:]) / 2
        for boxes, colour in ((each.boxes, GREEN), (np.concatenate(
                [centers - nearest / 2, centers + nearest / 2], 1), BLUE)):
            for box in boxes:
                draw.rectangle([float(corner) for corner in box * size], outline=colour, width=2)
        tiles.append(np.asarray(tile))
    if not tiles:
        raise UserError("none of the {} images to draw decodes; check the disk".format(
            len(photographs)))
    return contact_sheet(tiles, columns=4, tile=size,
                         title="Faces (green) and the nearest of the anchors (blue)")


@cli
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Find anchor sizes by k-means and print how well each number of them fits.",
        formatter_class=HelpFormatter)
    parser.add_argument("--wider-dir", default="wider", help="WIDER FACE as distributed")
    parser.add_argument("--keep", choices=KEEP, default="pruned",
                        help="which images: see datasets.py")
    parser.add_argument("--count", type=number_type(int, 1, 20), default=COUNT,
                        help="anchors to draw")
    parser.add_argument("--seed", type=number_type(int, 0, 2 ** 31), default=0)
    parser.add_argument("--draw", type=image_name, metavar="FILE",
                        help="draw the anchors over eight images")
    args = parser.parse_args()
    photographs = read_wider(args.wider_dir, "train", args.keep)
    sizes = face_sizes(photographs)
    print("{:,} faces in {:,} images".format(len(sizes), len(photographs)))
    for count in range(1, max(args.count, 9) + 1):
        anchors = find_anchors(sizes, count, args.seed)
        print("{} anchors: mean IoU {:.3f}: {}".format(
            count, mean_best_iou(sizes, anchors),
            "  ".join("{:.3f} x {:.3f}".format(*anchor) for anchor in anchors)))
    if args.draw:
        chosen = photographs[::max(1, len(photographs) // 8)][:8]
        save_image(args.draw, draw_anchors(
            chosen, find_anchors(sizes, args.count, args.seed)))
        print("wrote {}".format(args.draw))


if __name__ == "__main__":
    main()
