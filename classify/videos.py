"""Frames of video files and cameras, read by OpenCV."""

import os
import time

import cv2

from classify.inputs import InputImage
from pictures.decode import BadImage, resize
from utils import UserError

# OpenCV and FFmpeg stay quiet: this project reports a bad video itself, in one line. FFmpeg reads
# its level when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

VIDEO_EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
LARGEST_FRAME = 1280  # longest side in pixels; dozens of frames are in memory at a time


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
        One with a :class:`BadImage` if the video has no readable frame.
    """
    if not os.path.isfile(path):
        yield InputImage(path, os.path.basename(path), BadImage("no such file"))
        return
    capture = cv2.VideoCapture(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else 25.0
    step = max(1, int(round(rate / frames_per_second)))
    index = None
    for index, frame in read_frames(capture, step):
        place = "{}-{:07d}.jpg".format(os.path.basename(path), index)
        yield InputImage("{}@{:.2f}s".format(path, index / rate), place, frame)
    if index is None:
        yield InputImage(path, os.path.basename(path), BadImage("not a video that OpenCV reads"))


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

    Yields
    ------
    index : int
        The frame's number, from 0.
    frame : numpy.ndarray
        uint8, [height, width, 3], RGB. Frames larger than :data:`LARGEST_FRAME` are scaled down.
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
