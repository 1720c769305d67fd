"""Find the pictures that inference.py is given: files, folders, patterns, lists and videos.

Pictures are found one at a time, so that a folder of 100,000 pictures takes no more memory than a
folder of ten.
"""

import glob
import importlib.util
import os
import sys

from classify.inputs import InputImage, digest
from classify.videos import VIDEO_EXTENSIONS, video_frames
from pictures.decode import BadImage, find_images
from utils import UserError

# Photographs in the scikit-image package: people and other things.
PHOTOGRAPHS = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
    "clock_motion.png", "coins.png", "horse.png", "hubble_deep_field.jpg", "moon.png", "grass.png",
)  # fmt: skip


def photographs():
    """The paths of :data:`PHOTOGRAPHS`."""
    package = importlib.util.find_spec("skimage").submodule_search_locations[0]
    return [os.path.join(package, "data", name) for name in PHOTOGRAPHS]


def check_names(names):
    """Check that at least one of the names exists, is a pattern or is ``-``.

    If some names exist, the missing ones are reported and counted later, like bad pictures.

    Raises
    ------
    UserError
        If none exists: the command line is wrong.
    """
    if not any(name == "-" or os.path.lexists(name) or glob.has_magic(name) for name in names):
        raise UserError("{}: no such file or folder; check the spelling".format(", ".join(names)))


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
        Real paths to leave out when folders are searched.
    report : callable of OSError, optional
        Called for a folder that cannot be listed.

    Yields
    ------
    InputImage
        Each with a ``place`` of its own.
    """
    taken = set()  # digests: the places of a million pictures would take 100 MB
    for image in _find(names, frames_per_second, exclude, report):
        stem, extension = os.path.splitext(image.place)
        number, place = 1, image.place
        while digest(place) in taken:
            number += 1
            place = "{}-{}{}".format(stem, number, extension)
        taken.add(digest(place))
        yield image._replace(place=place)


def _find(names, frames_per_second, exclude, report):
    for name in names:
        if name == "-":
            listed = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
            yield from _find((each for each in listed if each not in ("", "-")),
                             frames_per_second, exclude, report)
        elif "\0" in name:
            yield InputImage(name[:100], "zero byte", BadImage(
                "holds a zero byte, as no file's name does; list one name per line"))
        elif os.path.isdir(name):
            for path in find_images(name, exclude, report):
                yield InputImage(path, os.path.relpath(path, name), None)
        elif name.lower().endswith(VIDEO_EXTENSIONS):
            yield from video_frames(name, frames_per_second)
        elif glob.has_magic(name) and not os.path.lexists(name):
            found = sorted(glob.iglob(name, recursive=True))
            if not found:
                yield InputImage(name, os.path.basename(name), BadImage("no file matches"))
            yield from _once(_find((each for each in found if not glob.has_magic(each)
                                    or os.path.lexists(each)), frames_per_second, exclude, report))
        else:
            yield InputImage(name, os.path.basename(name), None)


def _once(images):
    """Drop repeated pictures.

    ``**`` matches folders as well as the files in them, and follows links that lead back up.
    """
    seen = set()
    for image in images:
        folder, name = os.path.split(image.name)
        place = digest(os.path.join(os.path.realpath(folder), name))
        if place not in seen:
            seen.add(place)
            yield image
