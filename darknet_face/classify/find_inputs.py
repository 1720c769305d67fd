"""Find the pictures that inference.py is given: files, folders, patterns, lists and videos.

Pictures are found one at a time, so that a folder of 100,000 pictures takes no more memory than a
folder of ten.
"""

from __future__ import annotations

import glob
import itertools
import os
import sys

from darknet_face.classify.inputs import InputImage, digest
from darknet_face.classify.videos import video_frames
from darknet_face.console import UserError
from darknet_face.images.file_lists import read_names
from darknet_face.images.find_images import find_images
from darknet_face.images.formats import VIDEO_EXTENSIONS, BadImage

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs such a cell as a formula


def check_names(names, output_folders=()):
    """Check the names on the command line before anything is written.

    At least one must exist, be a pattern or be ``-``. If some names exist, the missing ones are
    reported and counted later, like bad pictures.

    Parameters
    ----------
    names : list of str
    output_folders : collection of str
        Folders that the results go to. No name may lie in one: each run would find more pictures.

    Raises
    ------
    UserError
        If no name exists, or if one lies in an output folder.
    """
    if not any(name == "-" or os.path.lexists(name) or glob.has_magic(name) for name in names):
        raise UserError("{}: no such file or folder; check the spelling".format(", ".join(names)))
    for name in names:
        for folder in output_folders:
            if name != "-" and "\0" not in name and is_below(_without_pattern(name), [folder]):
                raise UserError("{}: lies in {}, where results go; name another folder for them"
                                .format(name, folder))


def _without_pattern(name):
    """The folder from which a pattern is searched; a name that exists as it is."""
    while glob.has_magic(name) and not os.path.lexists(name):
        name = os.path.dirname(name)
    return name


def is_below(path, folders):
    """Whether a path is one of some folders or lies in one, links resolved."""
    if not folders:
        return False
    path = os.path.join(os.path.realpath(path), "")
    return any(path.startswith(os.path.join(os.path.realpath(each), "")) for each in folders)


def find_inputs(names, frames_per_second=1.0, exclude=(), report=None):
    """Yield the pictures that the names stand for.

    Parameters
    ----------
    names : iterable of str
        Image files; videos; folders, which are searched with their subfolders; patterns with
        ``*``, ``?``, ``[]`` and ``**``; ``-`` for a list of names on standard input, one per line.
    frames_per_second : float
        How many frames to take from each second of video.
    exclude : collection of str
        Real paths of files and folders to leave out of folders, patterns and lists.
    report : callable of (str, str), optional
        Called for what is passed over: see :func:`darknet_face.images.find_images.find_images`.

    Yields
    ------
    InputImage
        Each with an ``output_name`` of its own. A name that a spreadsheet would run as a formula
        gets ``./`` in front.
    """
    taken = set()  # digests: the places of a million pictures would take 100 MB
    for image in _find(names, frames_per_second, exclude, report):
        stem, extension = os.path.splitext(image.output_name)
        number, place = 1, image.output_name
        while digest(place) in taken:
            number += 1
            place = "{}-{}{}".format(stem, number, extension)
        taken.add(digest(place))
        name = os.path.join(".", image.name) if image.name.startswith(
            FORMULA_STARTS) else image.name
        yield image._replace(name=name, output_name=place)


def _find(names, frames_per_second, exclude, report):
    for name in names:
        if name == "-":
            yield from _find(_listed(exclude, report), frames_per_second, exclude, report)
        elif "\0" in name:
            yield InputImage(name[:100], "zero byte", BadImage(
                "holds a zero byte, as no file's name does; list one name per line"))
        elif os.path.isdir(name):
            for path in find_images(name, exclude, report):
                yield InputImage(path, os.path.relpath(path, name), None)
        elif name.lower().endswith(VIDEO_EXTENSIONS) and (
                os.path.lexists(name) or not glob.has_magic(name)):
            yield from video_frames(name, frames_per_second)
        elif glob.has_magic(name) and not os.path.lexists(name):
            yield from _find_pattern(name, frames_per_second, exclude, report)
        else:
            yield InputImage(name, os.path.basename(name), None)


def _listed(exclude, report):
    """The names on standard input."""
    for name in read_names(sys.stdin.buffer):
        if "\0" not in name and is_below(name, exclude):
            _report_result(name, report)
        elif name != "-":
            yield name


def _report_result(name, report):
    """Report a picture that is passed over since this program made it."""
    if report:
        report(name, "among the results")


def _find_pattern(pattern, frames_per_second, exclude, report):
    """The pictures that a pattern matches, each once.

    ``**`` matches folders as well as the files in them.
    """
    found, seen = None, set()
    for found in _matches(pattern, report):
        if not os.path.lexists(found):
            continue
        if is_below(found, exclude):
            if not os.path.isdir(found):
                _report_result(found, report)
            continue
        for image in _find([found], frames_per_second, exclude, report):
            folder, name = os.path.split(image.name)
            place = digest(os.path.join(os.path.realpath(folder), name))
            if place not in seen:
                seen.add(place)
                yield image
    if found is None:
        yield InputImage(pattern, os.path.basename(pattern), BadImage("no file matches"))


def _matches(pattern, report):
    """The paths that a pattern matches, in sorted order within each folder.

    Unlike :func:`glob.glob`, ``**`` enters each folder once. Two links to their own folder would
    otherwise stand for 2^40 paths.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from sorted(glob.iglob(pattern))
        return
    position = parts.index("**")
    start = os.sep.join(parts[:position] + [""])
    rest = list(itertools.dropwhile(lambda part: part == "**", parts[position:]))
    for folder in _folders_below(sorted(glob.iglob(start)) if start else [""], report):
        yield from _matches(os.path.join(glob.escape(folder), *(rest or ["*"])), report)


def _folders_below(folders, report):
    """Some folders and those below them, each once, without hidden ones."""
    entered = set()
    waiting = list(reversed(folders))
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder or os.curdir)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder or os.curdir) as entries:
                names = sorted(entry.name for entry in entries if os.path.isdir(entry.path))
        except OSError as error:
            if report:
                report(folder, "unreadable folder: {}".format(error.strerror))
            continue
        yield folder
        waiting.extend(os.path.join(folder, name) for name in reversed(names)
                       if not name.startswith("."))
