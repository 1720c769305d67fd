"""Folders of pictures by class, as ``--faces DIR`` and ``--non-faces DIR`` name them."""

from __future__ import annotations

import collections
import os

from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import UserError
from darknet_face.images.find_images import Skipped, find_images
from darknet_face.images.formats import EXTENSIONS

OPTIONS = {FACE: "--faces", NON_FACE: "--non-faces"}


def add_folder_arguments(parser):
    """Add the two options of every script that takes folders of pictures by class."""
    parser.add_argument(OPTIONS[FACE], nargs="+", metavar="DIR",
                        help="folders with pictures of faces")
    parser.add_argument(OPTIONS[NON_FACE], nargs="+", metavar="DIR",
                        help="folders with pictures of anything else")


def find_files(folders, counted, drawing=None):
    """Find the picture files of each class.

    A folder of one class inside a folder of the other belongs to its own class alone.

    Parameters
    ----------
    folders : dict of int to list of str
        By class.
    counted : Skipped
        Counts what is passed over.
    drawing : str, optional
        A picture that this script draws: not one of the pictures.

    Returns
    -------
    dict of int to list of str
        Each file once, also if two folders lead to it.

    Raises
    ------
    UserError
        Something that is not a folder, a folder of both classes, or a class without pictures.
    """
    check_folders(folders)
    roots = {label: {os.path.realpath(name) for name in names} for label, names in folders.items()}
    found = {}
    for label, names in folders.items():
        exclude = set().union(*(roots[each] for each in roots if each != label))
        if drawing:
            exclude.add(os.path.realpath(drawing))
        files = collections.OrderedDict()  # by real path
        skipped = Skipped()
        for name in names:
            for path in find_images(name, exclude, skipped.add):
                files.setdefault(os.path.realpath(path), path)
        if not files:
            raise UserError("{}: no pictures in it{}; {} needs folders with pictures ({})".format(
                ", ".join(names), ", only {}".format(skipped) if skipped else "",
                OPTIONS[label], " ".join(EXTENSIONS)))
        counted.update(skipped)
        found[label] = list(files.values())
    return found


def check_folders(folders):
    """Check the folders on the command line; raises UserError."""
    owners = {}
    for label, names in folders.items():
        for name in names:
            if not os.path.lexists(name):
                raise UserError("{} {}: no such folder; check the spelling".format(
                    OPTIONS[label], name))
            if not os.path.isdir(name):
                raise UserError("{} {}: not a folder; name the folder that the pictures are in"
                                .format(OPTIONS[label], name))
            if owners.setdefault(os.path.realpath(name), label) != label:
                raise UserError("{}: given as {} and as {}; each class needs folders of its own"
                                .format(name, *OPTIONS.values()))
