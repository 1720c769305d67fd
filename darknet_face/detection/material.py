"""What training scenes are made of, gathered from folders: photographs, crops of faces, negatives.

A share of the negatives is held out for the validation, by the hashes of their names.
"""

from __future__ import annotations

import collections
import os
import typing

from darknet_face.console import UserError
from darknet_face.detection.datasets import Photograph, read_photographs, read_wider
from darknet_face.detection.evaluate import images_in
from darknet_face.images.wider_face import name_hash
from darknet_face.runtime.safe_files import open_regular

# Where a face is in CelebA's aligned images, as WIDER FACE would mark it (looked up by eye).
CELEBA_BOX = (0.24, 0.30, 0.76, 0.86)
WIDER_SHARE = 3.0  # of the photographs, against 1 for each of the further collections
HELD_OUT = 0.06  # of the negatives
HELD_OUT_CROPS = 0.15

# Crops of faces that lie at a known place. paths: of the images. box: the face, as shares of the
# image's sides. aligned: whether eyes and mouth are where CelebA has them, for drawn masks.
Crops = collections.namedtuple("Crops", "paths box aligned", defaults=(False,))


class Material(typing.NamedTuple):
    """What scenes are made of.

    Attributes
    ----------
    photographs
        Lists of Photograph, each with its share.
    crops
        Taken equally often.
    negatives
        Paths of images without a face.
    """

    photographs: list[tuple[list[Photograph], float]]
    crops: list[Crops]
    negatives: list[str]

    def describe(self) -> str:
        """One line on what there is."""
        return "{} images with boxes, {} crops of faces, {:,} negatives".format(
            " + ".join("{:,}".format(len(group)) for group, _ in self.photographs) or "no",
            " + ".join("{:,}".format(len(each.paths)) for each in self.crops) or "no",
            len(self.negatives))


class Validation(typing.NamedTuple):
    """Images with boxes, and paths of images without a face."""

    photographs: list[Photograph]
    negatives: list[str]


def gather(wider_dir: str | None, also: typing.Sequence[tuple[str, str]] = (),
           celeba_dir: str | None = None,
           crops: typing.Sequence[tuple[str, tuple[float, float, float, float]]] = (),
           negatives: typing.Sequence[str] = (),
           validation: tuple[str, str] | None = None) -> tuple[Material, Validation]:
    """Gather training and validation images.

    Parameters
    ----------
    wider_dir
        WIDER FACE as distributed, or None to do without.
    also
        Further images: their folder, and their boxes as
        :func:`darknet_face.detection.datasets.read_photographs` takes them.
    celeba_dir
        CelebA as distributed: the training part of its aligned images.
    crops
        Folders of crops of faces, with the face's place in each: left, top, right, bottom as
        shares of the sides.
    negatives
        Folders of images without a face.
    validation
        Images and boxes to validate on; if absent, WIDER FACE's validation part.

    Raises
    ------
    UserError
        Where something named is missing, or there is nothing to train or to validate on.
    """
    photographs = [(read_wider(wider_dir, "train", "all"), WIDER_SHARE)] if wider_dir else []
    photographs += [(read_photographs(*each, "all"), 1.0) for each in also]
    aligned = [Crops(_celeba_training_images(celeba_dir), CELEBA_BOX, True)] if celeba_dir else []
    loose = [Crops([path for path in images_in(folder) if not is_held_out(path, HELD_OUT_CROPS)],
                   box) for folder, box in crops]
    faces = [each for each in aligned + loose if each.paths]
    paths = [path for folder in negatives for path in images_in(folder)]
    backgrounds = [path for path in paths if not is_held_out(path, HELD_OUT)]
    if not photographs and not (faces and backgrounds):
        raise UserError("nothing to train on; name images with boxes by --wider-dir or --also, or "
                        "crops of faces by --celeba-dir or --crops together with --negatives")
    if validation:
        measured = read_photographs(*validation, "all")
    elif wider_dir:
        measured = read_wider(wider_dir, "val", "all")
    else:
        raise UserError("nothing to validate on; name images with boxes by --validation")
    if not any(len(each.boxes) for each in measured):
        raise UserError("no face in the validation images; name others by --validation")
    return (Material(photographs, faces, backgrounds),
            Validation(measured, [path for path in dict.fromkeys(paths)  # a folder named twice
                                  if is_held_out(path, HELD_OUT)]))


def is_held_out(path: str, share: float) -> bool:
    """Whether an image belongs to the share that is kept out of training, by its name's hash."""
    return name_hash(os.path.basename(path)) < share * 2 ** 32


def _celeba_training_images(folder):
    path = os.path.join(folder, "list_eval_partition.txt")
    try:
        with open_regular(path, "r", encoding="utf-8") as stream:
            lines = [line.split() for line in stream]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("{}: {}; name CelebA's folder by --celeba-dir".format(
            path, getattr(error, "strerror", error)))
    names = [line[0] for line in lines
             if line[1:] == ["0"] and os.path.basename(line[0]) == line[0]]
    images = os.path.join(folder, "img_align_celeba")
    paths = [os.path.join(images, name) for name in names]
    if not any(os.path.exists(path) for path in paths):
        raise UserError("{}: none of the {:,} training images of {} is in it".format(
            images, len(names), path))
    return paths
