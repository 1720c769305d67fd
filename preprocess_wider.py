"""Cut images with known face boxes into crops: faces in their surroundings, and no faces.

    python preprocess_wider.py                            # WIDER FACE in data/wider_face
    python preprocess_wider.py --wider-dir ~/wider_face   # or elsewhere
    python preprocess_wider.py --name masked --train-images masked/train \\
        --train-boxes masked/train_boxes.txt --test-images masked/val \\
        --test-boxes masked/val_boxes.txt --train-only 'augmented_*'

WIDER FACE is taken as it is distributed: ``WIDER_train/images``, ``WIDER_val/images`` and
``wider_face_split/wider_face_{train,val}_bbx_gt.txt``. Its training images are split into
training and validation; its validation images are for the tests. The crops are square JPEGs
in ``data/NAME/``, and their lists are ``data/NAME_{faces,others}_{train,val,test}.pickle``, which
``train.py --sources celeba NAME`` reads. No image has crops in two splits. Images that the boxes
name but that are missing, such as a half that was not downloaded, are skipped.
"""

from __future__ import annotations

import argparse
import collections
import os
from typing import Dict, List, Sequence, Tuple

from utils import HelpFormatter, UserError, cli, number_type, progress, warn

# What is missing outside the environment is said by then.
# isort: split
import numpy as np

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.images.contact_sheets import save_image
from darknet_face.images.crops import STORED_SIDE, face_crops, face_free_windows
from darknet_face.images.decode import BadImage, read_image, upright_size
from darknet_face.images.file_lists import SPLITS, new_source_name, save_source_list
from darknet_face.images.reader import map_in_threads
from darknet_face.images.resize import resize
from darknet_face.images.wider_face import BoxFiles, Face, LabelledImage, find_labelled_images
from darknet_face.runtime.atomic_files import temporary_folder
from darknet_face.runtime.safe_files import sha256

FOLDERS = ("faces", "others")  # of the crops, by class

Crops = Dict[Tuple[str, int], List[str]]  # paths by split and class


def cut(labelled: LabelledImage, folder: str, options: argparse.Namespace) -> list[list[str]]:
    """Cut one image and write its crops.

    Returns
    -------
    list of list of str
        The paths of the crops with faces, and of those without.

    Raises
    ------
    BadImage
        When the image does not decode.
    """
    image = read_image(labelled.path)
    rng = np.random.RandomState(labelled.seed)
    boxes = _scaled(labelled, image.shape)
    usable = [face for face in boxes
              if face.is_valid and min(face.width, face.height) >= options.min_face
              and (face.is_hard or not options.hard_only)]
    found = (face_crops(image.shape, usable, rng, options.crops_per_face, options.most_crops,
                        options.cut),
             face_free_windows(image.shape, boxes, rng, options.windows))
    written = []
    for kind, squares in zip(FOLDERS, found):
        paths = []
        for number, (left, top, side) in enumerate(squares):
            crop = image[top:top + side, left:left + side]
            small = min(side, STORED_SIDE)
            path = os.path.join(folder, labelled.split, kind, "{}-{:02d}.jpg".format(
                labelled.stem, number))
            save_image(path, resize(crop, small, small))
            paths.append(path)
        written.append(paths)
    return written


def _scaled(labelled: LabelledImage, shape: Sequence[int]) -> list[Face]:
    """The boxes in pixels of the decoded image, which is smaller than a stored one of 100 MP."""
    scale = shape[0] / upright_size(labelled.path)[1]
    if scale == 1:
        return labelled.boxes
    return [Face(*(int(round(scale * side)) for side in face[:4]), *face[4:])
            for face in labelled.boxes]


def cut_all(images: Sequence[LabelledImage], folder: str,
            options: argparse.Namespace) -> tuple[Crops, int]:
    """Cut all images; report and count those that do not decode.

    Equal crops (of white paper, say) are written once.

    Returns
    -------
    crops, bad
        ``bad`` is how many did not decode.
    """
    crops = collections.defaultdict(list)
    seen = set()
    bad = 0

    def attempt(image):
        try:
            return cut(image, folder, options)
        except BadImage as error:
            return error

    with progress(total=len(images), desc="cutting", unit="image") as bar:
        for image, outcome in zip(images, map_in_threads(attempt, images)):
            bar.update()
            if isinstance(outcome, BadImage):
                warn("{}: {}; skipped".format(image.path, outcome))
                bad += 1
                continue
            for label, paths in enumerate(outcome):
                for path in paths:
                    digest = sha256(path)
                    if digest in seen:
                        os.remove(path)
                    else:
                        seen.add(digest)
                        crops[image.split, label].append(path)
    return crops, bad


def put_in_place(crops: Crops, temporary: str, folder: str) -> Crops:
    """Move the crops to their folder: only now do they replace those of an earlier run."""
    moved = collections.defaultdict(list)
    for key, paths in crops.items():
        for path in paths:
            target = os.path.join(folder, os.path.relpath(path, temporary))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                os.replace(path, target)
            except OSError as error:
                error.filename = target  # the other name is a temporary one
                raise
            moved[key].append(target)
    return moved


def write_lists(crops: Crops, options: argparse.Namespace) -> None:
    """Write the lists of every split and class that has crops; remove older ones of the others."""
    for split in SPLITS:
        for label in range(len(CLASS_NAMES)):
            save_source_list(crops[split, label], options.data_dir, options.name, label, split)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Cut images with known face boxes into crops with and without faces, and "
                    "list them as a source for train.py.",
        formatter_class=HelpFormatter)
    count = number_type(int, 0, 1000)
    parser.add_argument("--data-dir", default="data", help="where the crops and lists go")
    parser.add_argument("--name", default="wider", type=new_source_name,
                        help="of the source: the crops' folder and the beginning of the lists' "
                             "names")
    parser.add_argument("--wider-dir", metavar="DIR",
                        help="WIDER FACE as distributed (default: wider_face in the data folder)")
    for split, official in (("train", "training and validation"), ("test", "test")):
        parser.add_argument("--{}-images".format(split), metavar="DIR",
                            help="images for {} (default: WIDER FACE's)".format(official))
        parser.add_argument("--{}-boxes".format(split), metavar="TXT",
                            help="their boxes: name, count, then a line 'x y w h ..' for each "
                                 "face (default: WIDER FACE's)")
    parser.add_argument("--val-size", type=number_type(float, 0, 0.9), default=0.12,
                        help="share of the training images that is for validation")
    parser.add_argument("--train-only", metavar="PATTERN", default="",
                        help="images whose names match are used for training or not at all")
    parser.add_argument("--min-face", type=number_type(int, 4, 4096), default=14, metavar="PX",
                        help="least width and height of a face that is cut out")
    parser.add_argument("--hard-only", action="store_true",
                        help="cut out only faces that the boxes call occluded or in an atypical "
                             "pose")
    parser.add_argument("--cut", type=number_type(float, 0, 0.5), default=0.0, metavar="SHARE",
                        help="a crop may cut off up to this share of its face's width, and of its "
                             "height")
    parser.add_argument("--crops-per-face", type=count, default=2,
                        help="crops of each face, framed at random")
    parser.add_argument("--most-crops", type=count, default=24,
                        help="most crops with faces from one image; the largest faces first")
    parser.add_argument("--windows", type=count, default=14,
                        help="most face-free windows from one image")
    return parser


@cli
def main() -> None:
    options = _parser().parse_args()
    images = find_labelled_images(
        options.wider_dir or os.path.join(options.data_dir, "wider_face"), options.val_size,
        BoxFiles(options.train_images, options.train_boxes, options.test_images,
                 options.test_boxes), options.train_only)
    with temporary_folder(options.data_dir, options.name) as temporary:
        crops, bad = cut_all(images, temporary, options)
        if not crops["train", FACE]:
            raise UserError("no usable face among the training images; lower --min-face, or "
                            "see --hard-only, --most-crops and --val-size")
        crops = put_in_place(crops, temporary, os.path.join(options.data_dir, options.name))
    write_lists(crops, options)
    for split in SPLITS:
        print("{}: {:,} images, {}".format(
            split, sum(each.split == split for each in images), ", ".join(
                "{:,} {}".format(len(crops[split, label]), name)
                for label, name in enumerate(CLASS_NAMES))))
    if bad:
        print("skipped {:,} images that do not decode".format(bad))


if __name__ == "__main__":
    main()
