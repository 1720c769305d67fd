"""Frames of video files and cameras, read by OpenCV."""

from __future__ import annotations

import os
import time

import cv2

from darknet_face.classify.inputs import InputImage
from darknet_face.console import UserError, warn
from darknet_face.images.decode import BadImage, read_size, resize

# OpenCV and FFmpeg stay quiet: this project reports a bad video itself, in one line. FFmpeg reads
# its level when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if hasattr(cv2.utils, "logging"):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
else:  # OpenCV 4.11
    cv2.setLogLevel(0)

LARGEST_FRAME = 1280  # longest side in pixels; dozens of frames are in memory at a time
MOST_FAILURES = 100  # frames in a row; then the rest of the video is given up

# OpenCV's other readers print to the terminal, or take film01.mp4 for a series of still pictures.
READER = (cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends()
          else cv2.CAP_ANY)

# FFmpeg goes by the content: a playlist named film.mp4 would open files of its own choice. These
# are its readers of darknet_face.images.formats.VIDEO_EXTENSIONS, in OpenCV's notation.
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
ONE_FILE = ("format_whitelist;mov,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,m4v,ogg"
            "|protocol_whitelist;file")
MOST_PER_SECOND = 120  # of frames: higher rates are a clock's, and the header's count is a guess


def video_frames(path, frames_per_second):
    """Yield frames of a video file.

    Parameters
    ----------
    path : str
    frames_per_second : float
        How many frames to take from each second of video.

    Yields
    ------
    InputImage
        One with a :class:`BadImage` if the video has no readable frame, or from where on it is
        damaged. A still picture with the name of a video is yielded as it is. A video with far
        fewer frames than its header promises is warned of.
    """
    output_name = os.path.basename(path)
    if not os.path.isfile(path):
        cause = "not a regular file" if os.path.exists(path) else "no such file"
        yield InputImage(path, output_name, BadImage(cause))
        return
    if _is_still(path):
        yield InputImage(path, output_name, None)
        return
    capture = _open(path)
    rate, promised = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate = rate if 0 < rate < 1000 else 25.0
    step = max(1, int(round(rate / frames_per_second)))
    index = None
    try:
        for index, frame in read_frames(capture, step):
            yield InputImage("{}@{:.2f}s".format(path, index / rate),
                             "{}-{:07d}.jpg".format(output_name, index), frame)
        damage = None if index is not None else BadImage("not a video that OpenCV reads")
        if not damage and index + step < 0.9 * promised and rate <= MOST_PER_SECOND:
            warn("{}: ends at frame {:,} of about {:,.0f}; if it is cut off or damaged, fetch it "
                 "again".format(path, index, promised))
    except BadImage as error:
        damage = error
    if damage:
        yield InputImage(path, output_name, damage)


def _open(path):
    """Open a video that is one file."""
    before = os.environ.get(OPTIONS)
    os.environ[OPTIONS] = ONE_FILE
    try:
        return cv2.VideoCapture(path, READER)
    finally:  # the options are those of other programs in this process again
        del os.environ[OPTIONS]
        if before is not None:
            os.environ[OPTIONS] = before


def _is_still(path):
    """Whether a file is a still picture by its content; FFmpeg would treat it as a video."""
    try:
        return bool(read_size(path))
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        return False


def camera_frames(number):
    """Yield the frames of a camera until it ends or the program is interrupted.

    Parameters
    ----------
    number : int
        OpenCV's number of the camera.

    Yields
    ------
    InputImage

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
    for index, frame in read_frames(capture, 1):
        yield InputImage("camera {} frame {}".format(number, index),
                         "camera{}-{}-{:07d}.jpg".format(number, start, index), frame)


def read_frames(capture, step):
    """Yield every ``step``-th frame of an OpenCV capture, then release the capture.

    A frame that does not decode is replaced by the next one that does.

    Yields
    ------
    index : int
        The frame's number, from 0.
    frame : numpy.ndarray
        uint8, [height, width, 3], RGB. Frames larger than :data:`LARGEST_FRAME` are scaled down.

    Raises
    ------
    BadImage
        After :data:`MOST_FAILURES` frames in a row that do not decode: on damaged files some
        decoders promise more frames for ever.
    """
    try:
        index, due, failures = 0, 0, 0
        while capture.grab():
            if index >= due:
                decoded, frame = capture.retrieve()
                if decoded and frame is not None and frame.size:
                    failures, due = 0, due + step * ((index - due) // step + 1)
                    yield index, _to_rgb(frame)
                else:
                    failures += 1
                    if failures == MOST_FAILURES:
                        raise BadImage("damaged: frames {} to {} do not decode; the rest is not "
                                       "read".format(index - failures + 1, index))
            index += 1
    finally:
        capture.release()


def _to_rgb(frame):
    """A frame from OpenCV, BGR, as RGB of at most LARGEST_FRAME."""
    scale = min(1.0, LARGEST_FRAME / max(frame.shape[:2]))
    height, width = (max(1, int(round(side * scale))) for side in frame.shape[:2])
    return resize(frame, height, width)[..., ::-1].copy()
