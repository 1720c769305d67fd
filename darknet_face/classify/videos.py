"""Frames of video files and cameras, read by OpenCV."""

from __future__ import annotations

import os
import time
import typing

import cv2
import numpy as np

from darknet_face.classify.inputs import InputImage
from darknet_face.console import UserError, warn
from darknet_face.images.decode import BadImage, read_size
from darknet_face.images.resize import shrink

# OpenCV and FFmpeg stay quiet: this project reports a bad video itself, in one line. FFmpeg reads
# its level when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if hasattr(cv2.utils, "logging"):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
else:  # OpenCV 4.11
    cv2.setLogLevel(0)  # type: ignore[attr-defined]

LARGEST_FRAME = 1280  # longest side in pixels; dozens of frames are in memory at a time
MOST_FAILURES = 100  # frames in a row; then the rest of the video is given up

# OpenCV's other readers print to the terminal, or take film01.mp4 for a series of still images.
READER = (cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends()
          else cv2.CAP_ANY)

# FFmpeg goes by the content: a playlist named film.mp4 would open files of its own choice. These
# are its readers of darknet_face.images.formats.VIDEO_EXTENSIONS, in OpenCV's notation.
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
ONE_FILE = ("format_whitelist;mov,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,m4v,ogg"
            "|protocol_whitelist;file")
MOST_PER_SECOND = 120  # of frames: higher rates are a clock's, and the header's count is a guess
LONGEST_VIDEO = 1e6  # seconds: a later time is a damaged one


def video_frames(path: str, frames_per_second: float) -> typing.Iterator[InputImage]:
    """Yield frames of a video file, each labelled with its own time in the video.

    Parameters
    ----------
    frames_per_second
        How many frames to take from each second of video.

    Yields
    ------
    InputImage
        One with a :class:`BadImage` if the video has no readable frame, or from where on it is
        damaged. A still image with the name of a video is yielded as it is. A video with far
        fewer frames than its header promises is warned of.
    """
    if not os.path.isfile(path):
        cause = "not a regular file" if os.path.exists(path) else "no such file"
        yield InputImage(path, path, BadImage(cause))
        return
    if _is_still(path):
        yield InputImage(path, path, None)
        return
    capture = _open(path)
    rate, promised = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    frames = Frames(capture, 1 / frames_per_second, rate if 0 < rate < 1000 else 25.0)
    index, damage = None, None
    try:
        for index, seconds, frame in frames:
            yield InputImage("{}@{:.2f}s".format(path, seconds),
                             "{}-{:07d}.jpg".format(path, index), frame)
        if index is None:
            damage = BadImage("not a video that OpenCV reads")
        elif frames.grabbed < 0.9 * promised and rate <= MOST_PER_SECOND:
            warn("{}: ends at frame {:,} of about {:,.0f}; if it is cut off or damaged, fetch it "
                 "again".format(path, frames.grabbed, promised))
    except BadImage as error:
        damage = error
    if damage:
        yield InputImage(path, path, damage)


def _open(path: str) -> cv2.VideoCapture:
    """Open a video that is one file."""
    before = os.environ.get(OPTIONS)
    os.environ[OPTIONS] = ONE_FILE
    try:
        return cv2.VideoCapture(path, READER)
    finally:  # the options are those of other programs in this process again
        del os.environ[OPTIONS]
        if before is not None:
            os.environ[OPTIONS] = before


def _is_still(path: str) -> bool:
    """Whether a file is a still image by its content; FFmpeg would treat it as a video."""
    try:
        return bool(read_size(path))
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        return False


def camera_frames(number: int) -> typing.Iterator[InputImage]:
    """Yield the frames of a camera, by OpenCV's number, until it ends or the program is
    interrupted.

    Raises
    ------
    UserError
        If the camera does not open.
    """
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise UserError("camera {0}: does not open; check that it is connected, free, and that you "
                        "may read /dev/video{0}".format(number))
    start = time.strftime("%Y%m%d-%H%M%S")
    for index, _, frame in Frames(capture, 0):
        yield InputImage("camera {} frame {}".format(number, index),
                         "camera{}-{}-{:07d}.jpg".format(number, start, index), frame)


class Frames:
    """Iterates over the frames of an OpenCV capture that are due, then releases the capture.

    A frame that does not decode is replaced by the next one that does. Iteration yields the frame's
    number, from 0, its time in seconds, and its pixels, uint8, [height, width, 3], RGB; frames
    larger than :data:`LARGEST_FRAME` are scaled down. It raises BadImage after
    :data:`MOST_FAILURES` frames in a row that do not decode: on damaged files some decoders promise
    more frames for ever.

    Parameters
    ----------
    interval
        Seconds from one due frame to the next; 0 takes every frame.
    rate
        Frames per second, for frames that carry no time.

    Attributes
    ----------
    grabbed
        The number of frames passed so far.
    """

    def __init__(self, capture: typing.Any, interval: float, rate: float = 25.0) -> None:
        self.capture, self.interval, self.rate = capture, interval, rate
        self.grabbed = 0

    def __iter__(self) -> typing.Iterator[tuple[int, float, np.ndarray]]:
        due, failures = 0.0, 0
        seconds = -1 / self.rate
        try:
            while self.capture.grab():
                seconds = self._time(seconds)
                self.grabbed += 1
                if seconds < due - 0.5 / self.rate:
                    continue
                decoded, frame = self.capture.retrieve()
                if decoded and frame is not None and frame.size:
                    failures = 0
                    due += self.interval * max(1, (seconds - due) // (self.interval or 1) + 1)
                    yield self.grabbed - 1, seconds, _to_rgb(frame)
                else:
                    failures += 1
                    if failures == MOST_FAILURES:
                        raise BadImage("damaged: frames {} to {} do not decode; the rest is not "
                                       "read".format(self.grabbed - failures, self.grabbed - 1))
        finally:
            self.capture.release()

    def _time(self, before: float) -> float:
        """The time of the frame just grabbed, later than that of the one before.

        Raw streams and cameras give none; a damaged one may go backwards.
        """
        seconds = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return seconds if before < seconds < LONGEST_VIDEO else before + 1 / self.rate


def _to_rgb(frame: np.ndarray) -> np.ndarray:
    """A frame from OpenCV, BGR, as RGB of at most LARGEST_FRAME."""
    return shrink(frame, LARGEST_FRAME)[..., ::-1].copy()
