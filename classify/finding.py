"""Where inference.py's pictures come from: files, folders, globs, lists, videos, cameras.

Everything is found lazily, one picture at a time, so that a folder of 100,000 or an endless camera
costs no more memory than a folder of ten.
"""

import collections
import glob
import hashlib
import os
import sys
import time

import cv2

from pictures.decode import VIDEO_EXTENSIONS, BadImage, find_images, read_image, resize
from pictures.lists import read_names
from utils import UserError

# What does not open is reported here, once. FFmpeg's level is read when a video is first opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

LARGEST_FRAME = 1280  # a video's frames are shrunk to this, since some dozens are held at a time


class Picture(collections.namedtuple("Picture", "name place content")):
    """A picture to classify.

    Parameters
    ----------
    name : str
        The file's path; of a video's frame the path, ``@`` and the time.
    place : str
        A relative path for what is made of it; unique within a run.
    content : None, numpy.ndarray or BadImage
        None: read it from the file; an array: a video's frame, uint8, [height, width, 3], RGB;
        BadImage: why there is none.
    """

    def read(self, least_size=None):
        """The picture: uint8, [height, width, 3], RGB; raises BadImage.

        For ``least_size`` see :func:`pictures.decode.read_image`.
        """
        if isinstance(self.content, BadImage):
            raise self.content
        if self.content is None:
            return read_image(self.name, least_size=least_size)
        return self.content


def check_names(names):
    """Make sure that something named on the command line is there.

    Raises
    ------
    UserError
        When nothing is: a wrong command line. One missing name among others is reported and
        counted like a picture that does not decode.
    """
    if not any(name == "-" or os.path.lexists(name) or glob.has_magic(name) for name in names):
        raise UserError("{}: no such file or folder; check the spelling".format(", ".join(names)))


def find_pictures(names, frames_per_second=1.0, exclude=(), report=None):
    """Yield the pictures that names stand for.

    Parameters
    ----------
    names : iterable of str
        Files; folders, searched with all below them for picture files; patterns with ``*``, ``?``,
        ``[]`` and ``**``; videos; ``-`` for such names on standard input, one a line.
    frames_per_second : float
        How many frames to take from a second of video.
    exclude : collection of str
        Real paths that are left out when folders are searched.
    report : callable of (str, str), optional
        Called for what is passed over in folders: see :func:`pictures.decode.find_images`.

    Yields
    ------
    Picture
    """
    taken = set()  # of digests, since the names of a million pictures would be 100 MB
    for picture in _find(names, frames_per_second, exclude, report):
        stem, extension = os.path.splitext(picture.place)
        number, place = 1, picture.place
        while digest(place) in taken:
            number += 1
            place = "{}-{}{}".format(stem, number, extension)
        taken.add(digest(place))
        yield picture._replace(place=place)


def _find(names, frames_per_second, exclude, report):
    for name in names:
        if name == "-":
            yield from _find((each for each in read_names(sys.stdin.buffer) if each != "-"),
                             frames_per_second, exclude, report)
        elif "\0" in name:
            yield Picture(name[:100], "zero byte", BadImage(
                "holds a zero byte, as no file's name does; list one name a line"))
        elif os.path.isdir(name):
            for path in find_images(name, exclude, report):
                yield Picture(path, os.path.relpath(path, name), None)
        elif name.lower().endswith(VIDEO_EXTENSIONS):
            yield from _video(name, frames_per_second)
        elif glob.has_magic(name) and not os.path.lexists(name):
            found = sorted(glob.iglob(name, recursive=True))
            if not found:
                yield Picture(name, os.path.basename(name), BadImage("no file matches"))
            yield from _once(_find((each for each in found if not glob.has_magic(each)
                                    or os.path.lexists(each)), frames_per_second, exclude, report))
        else:
            yield Picture(name, os.path.basename(name), None)


def _once(pictures):
    """Pictures without those that come again.

    ``**`` finds folders as well as what lies in them, and follows links that lead back up.
    """
    seen = set()
    for picture in pictures:
        folder, name = os.path.split(picture.name)
        place = digest(os.path.join(os.path.realpath(folder), name))
        if place not in seen:
            seen.add(place)
            yield picture


def _video(path, frames_per_second):
    """Some frames of a video file."""
    if not os.path.isfile(path):
        yield Picture(path, os.path.basename(path), BadImage("no such file"))
        return
    capture = cv2.VideoCapture(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else 25.0
    step = max(1, int(round(rate / frames_per_second)))
    index = None
    for index, frame in read_frames(capture, step):
        place = "{}-{:07d}.jpg".format(os.path.basename(path), index)
        yield Picture("{}@{:.2f}s".format(path, index / rate), place, frame)
    if index is None:
        yield Picture(path, os.path.basename(path), BadImage("not a video that OpenCV reads"))


def camera(number):
    """Yield the pictures of a camera, one after the other, until it ends or is interrupted.

    Raises
    ------
    UserError
        When the camera does not open.
    """
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise UserError("camera {0}: does not open; check that it is connected, free, and that you "
                        "may read /dev/video{0}".format(number))
    start = time.strftime("%Y%m%d-%H%M%S")
    for index, frame in read_frames(capture, 1):
        yield Picture("camera {} frame {}".format(number, index),
                      "camera{}-{}-{:07d}.jpg".format(number, start, index), frame)


def read_frames(capture, step):
    """Yield every ``step``-th frame of an OpenCV capture with its number, and release it.

    Yields
    ------
    index : int
    frame : numpy.ndarray
        uint8, [height, width, 3], RGB; longer sides above :data:`LARGEST_FRAME` are shrunk.
    """
    try:
        index = 0
        while capture.grab():
            if index % step == 0:
                decoded, frame = capture.retrieve()
                if decoded:
                    scale = min(1.0, LARGEST_FRAME / max(frame.shape[:2]))
                    height, width = (max(1, int(round(side * scale))) for side in frame.shape[:2])
                    yield index, resize(frame, height, width)[..., ::-1].copy()
            index += 1
    finally:
        capture.release()


def digest(text):
    """64 bits that stand for a name in a set of very many."""
    content = os.fsencode(text)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
