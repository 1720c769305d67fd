"""Folders of images by class, as ``--faces DIR`` and ``--non-faces DIR`` name them."""

from __future__ import annotations

import argparse
import collections
import os
from typing import Mapping, Sequence

from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import UserError
from darknet_face.images.file_lists import SPLITS
from darknet_face.images.find_images import Skipped, find_images
from darknet_face.images.formats import EXTENSIONS

OPTIONS = {FACE: "--faces", NON_FACE: "--non-faces"}

# What the folders of the splits are called, and those of the faces among the classes.
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"),
                 "test": ("test", "testing")}
FACE_FOLDERS = ("face", "faces")


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two options of every script that takes folders of images by class."""
    parser.add_argument(OPTIONS[FACE], nargs="+", metavar="DIR",
                        help="folders with images of faces")
    parser.add_argument(OPTIONS[NON_FACE], nargs="+", metavar="DIR",
                        help="folders with images of anything else")


def find_files(folders: Mapping[int, Sequence[str]], skipped: Skipped,
               drawing: str | None = None) -> dict[int, list[str]]:
    """Find the image files of each class.

    A folder of one class inside a folder of the other belongs to its own class alone.

    Parameters
    ----------
    folders
        By class.
    skipped
        Counts what is skipped.
    drawing
        An image that this script draws: not one of the images.

    Returns
    -------
    dict of int to list of str
        Each file once, also if two folders lead to it.

    Raises
    ------
    UserError
        Something that is not a folder, a folder of both classes, or a class without images.
    """
    check_folders(folders)
    roots = {label: {os.path.realpath(name) for name in names} for label, names in folders.items()}
    found = {}
    for label, names in folders.items():
        exclude = set().union(*(roots[each] for each in roots if each != label))
        if drawing:
            exclude.add(os.path.realpath(drawing))
        files: dict[str, str] = collections.OrderedDict()  # by real path
        skipped_here = Skipped()
        for name in names:
            for path in find_images(name, exclude, skipped_here.add):
                files.setdefault(os.path.realpath(path), path)
        if not files:
            raise UserError("{}: no images in it{}; {} needs folders with images ({})".format(
                ", ".join(names), ", only {}".format(skipped_here) if skipped_here else "",
                OPTIONS[label], " ".join(EXTENSIONS)))
        skipped.update(skipped_here)
        found[label] = list(files.values())
    return found


def check_folders(folders: Mapping[int, Sequence[str]]) -> None:
    """Check the folders on the command line; raises UserError."""
    owners: dict[str, int] = {}
    for label, names in folders.items():
        for name in names:
            if not os.path.lexists(name):
                raise UserError("{} {}: no such folder; check the spelling".format(
                    OPTIONS[label], name))
            if not os.path.isdir(name):
                raise UserError("{} {}: not a folder; name the folder that the images are in"
                                .format(OPTIONS[label], name))
            if owners.setdefault(os.path.realpath(name), label) != label:
                raise UserError("{}: given as {} and as {}; each class needs folders of its own"
                                .format(name, *OPTIONS.values()))


def find_split_folders(root: str, faces: Sequence[str] | None,
                       non_faces: Sequence[str] | None) -> dict[str, dict[int, list[str]]]:
    """The folders of each split and class in ``root/{train,val,test}/{class}``.

    Parameters
    ----------
    root
    faces, non_faces
        The names of the classes' folders. Without them, "face" and "faces" are faces and all
        others are non-faces.

    Returns
    -------
    dict of str to dict of int to list of str
        There may be no "val".

    Raises
    ------
    UserError
        No folder of training or testing, or of a class.
    """
    if not os.path.isdir(root):
        raise UserError("--split-folders {}: no such folder; check the spelling".format(root))
    found = {}
    for split in SPLITS:
        inside = [path for path in (os.path.join(root, name) for name in SPLIT_FOLDERS[split])
                  if os.path.isdir(path)]
        if not inside and split != "val":
            raise UserError("{}: no folder {} in it; name its folders by --faces and --non-faces "
                            "without --split-folders, and they are divided by content".format(
                                root, " or ".join(SPLIT_FOLDERS[split])))
        if inside:
            found[split] = _class_folders(inside[0], faces, non_faces)
    return found


def _class_folders(folder: str, faces: Sequence[str] | None,
                   non_faces: Sequence[str] | None) -> dict[int, list[str]]:
    """The folders of each class in the folder of a split."""
    names = sorted(name for name in os.listdir(folder)
                   if not name.startswith(".") and os.path.isdir(os.path.join(folder, name)))
    is_face = {name: name in faces if faces else
               name not in non_faces if non_faces else name.lower() in FACE_FOLDERS
               for name in names}
    by_class = {FACE: [name for name in names if is_face[name]],
                NON_FACE: [name for name in names if not is_face[name]
                           and (not non_faces or name in non_faces)]}
    for label, of_class in by_class.items():
        if not of_class:
            raise UserError("{}: has the folders {}, and none of them is for {}; name it after "
                            "{}".format(folder, ", ".join(names) or "(none)", OPTIONS[label],
                                        OPTIONS[label]))
    return {label: [os.path.join(folder, name) for name in of_class]
            for label, of_class in by_class.items()}
