"""Face detectors: where the faces are and how many.

    from darknet_face.detection import load

    detect = load()                  # the newest one here, otherwise the released one
    boxes, scores = detect(image)    # uint8, [height, width, 3], RGB
"""

from __future__ import annotations

import os
import typing

from darknet_face.console import UserError
from darknet_face.weights.model_file import RELEASED

LEAST_SCORE = 0.01  # boxes of less say nothing
NMS_IOU = 0.45  # of two boxes that overlap by more, the better stays
YOLOV2_THRESHOLD = 0.4  # of its scores, which are no probabilities
DETECTOR = "detector"  # the value of the option --search that asks for one
OWN = "face_detector.npz"  # what train_detector.py writes into saved_models
DEFAULT = os.path.join("saved_models", OWN)
RELEASED_DETECTOR = os.path.join(os.path.dirname(RELEASED), "darknet19_detector.npz")


def default_detector() -> str:
    """The path of your own detector in ``saved_models``, or of the released one."""
    return DEFAULT if os.path.exists(DEFAULT) else RELEASED_DETECTOR


def load(path: str | None = None, **options: typing.Any) -> typing.Any:
    """Load a detector of either kind.

    Parameters
    ----------
    path
        A file that train_detector.py wrote: an ``.npz``, or a frozen graph of either head. If
        absent, your own in ``saved_models``, or the released one.
    options
        image_size, min_score, nms_iou, precision, engine: see
        :class:`darknet_face.detection.detector.OnePassDetector`.

    Returns
    -------
    OnePassDetector or darknet_face.detection.yolov2.detector.Detector
        Called with an image (uint8, [height, width, 3], RGB) it returns the boxes (float32, [n, 4],
        left, top, right, bottom as shares of the image's sides) and scores (float32, [n], best
        first). Use it as a context manager, or keep it.

    Raises
    ------
    darknet_face.console.UserError
        Missing, damaged or another file.
    """
    from darknet_face.detection.detector import OnePassDetector
    from darknet_face.detection.yolov2.detector import Detector, is_detector

    path = path or default_detector()
    if path.lower().endswith(".pb") and is_detector(path):
        given = {name: value for name, value in options.items() if value is not None}
        if given.pop("engine", "tensorflow") != "tensorflow":
            raise UserError("{}: the yolov2 head needs --engine tensorflow".format(path))
        return Detector(path, **dict({"min_score": YOLOV2_THRESHOLD}, **given))
    return OnePassDetector.load(path, **options)
