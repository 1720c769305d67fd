"""A video whose frames carry label, probability and boxes, written by OpenCV."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import typing

import numpy as np

from darknet_face.classify.annotated import with_answer
from darknet_face.classify.inputs import InputImage
from darknet_face.classify.predict import Row
from darknet_face.classify.tables import Output
from darknet_face.console import UserError
from darknet_face.images.resize import resize
from darknet_face.runtime.atomic_files import temporary_path
from darknet_face.runtime.safe_files import check_folder

# What OpenCV's FFmpeg writes, the best first: VP9 plays in browsers, MPEG-4 where VP9 is missing.
CODECS = {".mp4": ("vp09", "mp4v"), ".avi": ("MJPG",)}
TIME = re.compile(r"@([0-9.]+)s$")  # at the end of a frame's name
MOST_PER_SECOND = 120  # frames
LONGEST_GAP = 60  # seconds that the last frame is held at most


def video_name(text: str) -> str:
    """The argparse ``type`` for a video to write."""
    if os.path.splitext(text)[1].lower() not in CODECS:
        raise argparse.ArgumentTypeError(
            "{}: must end with {}".format(text, " or ".join(sorted(CODECS))))
    return text


class AnnotatedVideo(Output):
    """Writes a video of the classified frames, each with its answer.

    It plays as fast as the film: where frames are missing, the one before is held. The file gets
    its name when it is complete.

    Parameters
    ----------
    path
        See :func:`video_name`. An existing file is not replaced: it might be the film.
    rate
        Frames per second.
    """

    def __init__(self, path: str, rate: float) -> None:
        import cv2

        from darknet_face.classify.videos import READER

        self._opencv: typing.Any = cv2
        self._reader = READER
        if os.path.lexists(path):
            raise UserError("{}: exists; remove it or name another file".format(path))
        check_folder(os.path.dirname(path))
        self.path, self.rate = path, rate
        self._stack = contextlib.ExitStack()
        self._writer: typing.Any = None
        self._before: np.ndarray | None = None
        self._count = 0

    def write(self, image: InputImage, row: Row) -> None:
        drawn = with_answer(image.read(), row)
        if self._writer is None:
            self._open(*drawn.shape[:2])
        elif drawn.shape[:2] != self._size:
            drawn = resize(drawn, *self._size)
        self._hold(row["file"])
        self._before = np.ascontiguousarray(drawn[..., ::-1])
        self._add()

    def _hold(self, name: str) -> None:
        """Repeat the frame before until the time of this one."""
        time = TIME.search(name)
        due = round(float(time.group(1)) * self.rate) if time else 0
        most = self._count + int(LONGEST_GAP * self.rate)
        while self._before is not None and self._count < min(due, most):
            self._add()

    def _add(self) -> None:
        self._writer.write(self._before)
        self._count += 1

    def _open(self, height: int, width: int) -> None:
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        self._temporary = self._stack.enter_context(temporary_path(self.path))
        self._size = height, width
        for codec in CODECS[os.path.splitext(self.path)[1].lower()]:
            self._writer = self._opencv.VideoWriter(
                self._temporary, self._reader, self._opencv.VideoWriter.fourcc(*codec), self.rate,
                (width, height))
            if self._writer.isOpened():
                return
        raise UserError("{}: this OpenCV writes no such video; name one that ends with {}".format(
            self.path, " or ".join(sorted(CODECS))))

    def close(self) -> None:
        with self._stack:
            if not self._count:  # nothing was classified, or no codec: leave no file
                self._stack.pop_all().__exit__(UserError, UserError(""), None)
                return
            self._writer.release()
            if self._count_written() != self._count:
                raise UserError("{}: was not written whole; check the free disk space".format(
                    self.path), exit_code=1)

    def _count_written(self) -> int:
        """The frames in the file; OpenCV does not say whether it could write them."""
        capture = self._opencv.VideoCapture(self._temporary, self._reader)
        count = int(capture.get(self._opencv.CAP_PROP_FRAME_COUNT))
        capture.release()
        return count
