"""The one-pass detector as ONNX, of two layouts and two sizes, checked by ONNX Runtime.

Boxes are decoded; non-maximum suppression is left to the caller, as
:func:`darknet_face.detection.detector.suppress` does it.
"""

from __future__ import annotations

import os
import typing

import numpy as np

from darknet19 import STRIDE
from darknet_face.console import UserError
from darknet_face.detection import LEAST_SCORE
from darknet_face.detection.engines import open_network
from darknet_face.detection.model_file import OUTPUTS, read_detector
from darknet_face.detection.onnx_graph import detector_model
from darknet_face.engines.onnx_runtime import open_session
from darknet_face.exporters.compare import check_difference
from darknet_face.images.reader import read_batches
from darknet_face.runtime.atomic_files import staged, write_atomically

FILES = {"NHWC": "darknet19_detector.onnx", "NCHW": "darknet19_detector_nchw.onnx"}
HALF = "darknet19_detector_half.onnx"  # NCHW, kernels stored as float16
SCORE_BOUND = 1e-5
BOX_BOUND = 1e-3  # of a corner, in longer sides of the box, where the score is not negligible


def export_detector(path: str, images: typing.Sequence[str], out: str,
                    names: typing.Collection[str] = tuple(FILES.values())) -> float:
    """Write the models into a folder.

    Parameters
    ----------
    path
        A file of train_detector.py.
    images
        Paths of images to compare on, half of them stretched to another size.
    out
    names
        Of :data:`FILES` and :data:`HALF`: what to write.

    Returns
    -------
    float
        The largest difference in score from TensorFlow's.

    Raises
    ------
    UserError
        With exit code 1, and nothing written, where a difference is larger than it may be.
        :data:`HALF` of a file whose kernels float16 would round.
    """
    weights, spec = read_detector(path)
    kernels = [array for array in weights.values() if array.ndim == 4]
    if HALF in names and any((each != each.astype(np.float16)).any() for each in kernels):
        raise UserError("{}: float16 would round its kernels; name the .npz of the same "
                        "detector".format(path))
    expected = open_network(weights, spec, "tensorflow")
    batches = []
    for part, size in ((images[::2], spec.image_size), (images[1::2], spec.image_size // 2)):
        size = max(STRIDE, size // STRIDE * STRIDE)
        for good, pixels, _ in read_batches(part, 4, size):
            if good:
                scaled = pixels / np.float32(255)
                batches.append((scaled, expected(scaled)))
    if not batches:
        raise UserError("none of the {} images to compare on could be read".format(len(images)))
    properties = {
        "input_range": "0..1", "input_colours": "RGB", "size_multiple": str(STRIDE),
        "image_size": str(spec.image_size), "threshold": str(spec.threshold),
        "preprocessing": "RGB, longer side scaled down to {}, padded to multiples of {} at the "
                         "right and at the bottom, divided by 255".format(spec.image_size, STRIDE),
        "boxes": "left, top, right, bottom in pixels of the input; suppress overlaps yourself"}
    largest = 0.0
    for layout, name in [*FILES.items(), ("NCHW", HALF)]:
        if name not in names:
            continue
        with staged(out) as folder:
            temporary = os.path.join(folder, name)
            with write_atomically(temporary) as stream:
                stream.write(detector_model(
                    weights, layout, dict(properties, input_layout=layout), name == HALF))
            largest = max(largest, _check(name, open_session(temporary), layout, batches))
        print("wrote {}: ONNX Runtime agrees within {:.1e}".format(
            os.path.join(out, name), largest))
    return largest


def _check(name, session, layout, batches):
    largest = 0.0
    for images, (boxes, scores) in batches:
        given = images if layout == "NHWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        found_boxes, found_scores = session.run(list(OUTPUTS), {"input": given})
        difference = float(np.abs(found_scores - scores).max())
        check_difference(name, "ONNX Runtime's score", difference, SCORE_BOUND)
        sides = np.maximum((boxes[..., 2:] - boxes[..., :2]).max(-1, keepdims=True), 1.0)
        distance = (np.abs(found_boxes - boxes) / sides)[scores > LEAST_SCORE]
        check_difference(name, "ONNX Runtime's box", float(distance.max(initial=0)),
                         BOX_BOUND)
        largest = max(largest, difference)
    return largest
