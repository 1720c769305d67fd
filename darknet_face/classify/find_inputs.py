"""Find the images that a user names: files, folders, patterns, lists and videos.

Images are found one at a time, so that a folder of 100,000 images takes no more memory than a
folder of ten.
"""

from __future__ import annotations

import glob
import itertools
import os
import sys
import typing

from darknet_face.classify.inputs import InputImage, digest
from darknet_face.console import UserError
from darknet_face.images.file_lists import read_names
from darknet_face.images.find_images import find_images
from darknet_face.images.formats import VIDEO_EXTENSIONS, BadImage
from darknet_face.runtime.safe_files import check_folder

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs such a cell as a formula

Report = typing.Callable[[str, str], typing.Any]


def check_names(names: typing.Sequence[str], output_folders: typing.Collection[str] = ()) -> None:
    """Check the names on the command line before anything is written.

    At least one must exist, be a pattern or be ``-``. If some names exist, the missing ones are
    reported and counted later, like bad images.

    Parameters
    ----------
    output_folders
        Folders that the results go to. No name may lie in one: each run would find more images.

    Raises
    ------
    UserError
        If no name exists, if one lies in an output folder, or if that can't be a folder.
    """
    if not any(name == "-" or os.path.lexists(name) or glob.has_magic(name) for name in names):
        raise UserError("{}: no such file or folder; check the spelling".format(", ".join(names)))
    for folder in output_folders:
        check_folder(folder)
    for name in names:
        for folder in output_folders:
            if name != "-" and "\0" not in name and is_below(_without_pattern(name), [folder]):
                raise UserError("{}: lies in {}, where results go; name another folder for them"
                                .format(name, folder))


def _without_pattern(name: str) -> str:
    """The folder from which a pattern is searched; a name that exists as it is."""
    while glob.has_magic(name) and not os.path.lexists(name):
        name = os.path.dirname(name)
    return name


def is_below(path: str, folders: typing.Collection[str]) -> bool:
    """Whether a path is one of some folders or lies in one, links resolved."""
    if not folders:
        return False
    path = os.path.join(os.path.realpath(path), "")
    return any(path.startswith(os.path.join(os.path.realpath(each), "")) for each in folders)


def find_inputs(names: typing.Iterable[str], frames_per_second: float = 1.0,
                exclude: typing.Collection[str] = (), report: Report | None = None
                ) -> typing.Iterator[InputImage]:
    """Yield the images that the names stand for.

    Parameters
    ----------
    names
        Image files; videos; folders, which are searched with their subfolders; patterns with
        ``*``, ``?``, ``[]`` and ``**``; ``-`` for a list of names on standard input, one per line.
    frames_per_second
        How many frames to take from each second of video.
    exclude
        Real paths of files and folders to skip in folders, patterns and lists.
    report
        Called with a path and a reason for what is skipped: see
        :func:`darknet_face.images.find_images.find_images`.

    Yields
    ------
    InputImage
        Each with an ``output_name`` of its own: its path below the folder that all names share. A
        name that a spreadsheet would run as a formula gets ``./`` in front.
    """
    names = list(names)
    shared = _shared_folder(names)
    taken: set[int] = set()  # digests: the names of a million images would take 100 MB
    for image in _find(names, frames_per_second, exclude, report):
        image = image._replace(output_name=_below(shared, image.output_name))
        number = 1
        stem, extension = os.path.splitext(image.output_name)
        while digest(image.drawing_name) in taken:
            number += 1
            image = image._replace(output_name="{}-{}{}".format(stem, number, extension))
        taken.add(digest(image.drawing_name))
        starts_formula = image.name.startswith(FORMULA_STARTS)
        yield image._replace(name=os.path.join(".", image.name) if starts_formula else image.name)


def _shared_folder(names: typing.Iterable[str]) -> str:
    """The deepest folder that all named files and folders lie in; listed ones do not count."""
    folders = []
    for name in names:
        if name != "-" and "\0" not in name:
            path = _without_pattern(name)
            folders.append(os.path.abspath(path if os.path.isdir(path or os.curdir)
                                           else os.path.dirname(path)))
    if len({os.path.splitdrive(folder)[0] for folder in folders}) > 1:
        return ""  # of several drives of Windows
    return os.path.commonpath(folders) if folders else os.getcwd()


def _below(folder: str, path: str) -> str:
    """A relative path without ``..``: from the folder if the path lies in it, else from the root.

    A drive of Windows becomes a folder.
    """
    path = os.path.abspath(path)
    if folder and path.startswith(os.path.join(folder, "")):
        return os.path.relpath(path, folder)
    drive, rest = os.path.splitdrive(path)
    return os.path.join(drive.replace(":", "").strip("\\"), rest.lstrip(os.sep))


def _find(names: typing.Iterable[str], frames_per_second: float,
          exclude: typing.Collection[str], report: Report | None
          ) -> typing.Iterator[InputImage]:
    """The images, each with the path of its file, or of the frame beside it, as output name."""
    for name in names:
        if name == "-":
            yield from _find(_listed(exclude, report), frames_per_second, exclude, report)
        elif "\0" in name:
            yield InputImage(name[:100], "zero byte", BadImage(
                "holds a zero byte, as no file's name does; list one name per line"))
        elif os.path.isdir(name):
            for path in find_images(name, exclude, report):
                yield InputImage(path, path, None)
        elif name.lower().endswith(VIDEO_EXTENSIONS) and (
                os.path.lexists(name) or not glob.has_magic(name)):
            yield from _frames(name, frames_per_second)
        elif glob.has_magic(name) and not os.path.lexists(name):
            yield from _find_pattern(name, frames_per_second, exclude, report)
        else:
            yield InputImage(name, name, None)


def _frames(name: str, frames_per_second: float) -> typing.Iterator[InputImage]:
    try:
        from darknet_face.classify.videos import video_frames
    except ModuleNotFoundError:
        yield InputImage(name, name, BadImage(
            "a video; to read it: pip install opencv-python-headless"))
        return
    yield from video_frames(name, frames_per_second)


def _listed(exclude: typing.Collection[str], report: Report | None) -> typing.Iterator[str]:
    """The names on standard input."""
    for name in read_names(sys.stdin.buffer):
        if "\0" not in name and is_below(name, exclude):
            _report_result(name, report)
        elif name != "-":
            yield name


def _report_result(name: str, report: Report | None) -> None:
    """Report an image that is skipped since this program made it."""
    if report:
        report(name, "among the results")


def _find_pattern(pattern: str, frames_per_second: float, exclude: typing.Collection[str],
                  report: Report | None) -> typing.Iterator[InputImage]:
    """The images that a pattern matches, each once.

    ``**`` matches folders as well as the files in them.
    """
    found = None
    seen: set[int] = set()
    for found in _matches(pattern, report):
        if not os.path.lexists(found):
            continue
        if is_below(found, exclude):
            if not os.path.isdir(found):
                _report_result(found, report)
            continue
        for image in _find([found], frames_per_second, exclude, report):
            folder, name = os.path.split(image.name)
            path = digest(os.path.join(os.path.realpath(folder), name))
            if path not in seen:
                seen.add(path)
                yield image
    if found is None:
        yield InputImage(pattern, pattern, BadImage("no file matches"))


def _matches(pattern: str, report: Report | None) -> typing.Iterator[str]:
    """The paths that a pattern matches, in sorted order within each folder.

    Unlike :func:`glob.glob`, ``**`` enters each folder once. Two links to their own folder would
    otherwise stand for 2^40 paths.
    """
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        yield from sorted(glob.iglob(pattern))
        return
    position = parts.index("**")
    start = os.sep.join(parts[:position] + [""])
    rest = list(itertools.dropwhile(lambda part: part == "**", parts[position:]))
    for folder in _folders_below(sorted(glob.iglob(start)) if start else [""], report):
        yield from _matches(os.path.join(glob.escape(folder), *(rest or ["*"])), report)


def _folders_below(folders: list[str], report: Report | None) -> typing.Iterator[str]:
    """Some folders and those below them, each once, without hidden ones."""
    entered: set[tuple[int, int]] = set()
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
