"""Find faces in an image by a trained one-pass detector.

    from darknet_face.detection import load

    detect = load("face_detector.npz")
    boxes, scores = detect(image)    # uint8, [height, width, 3], RGB
"""

from __future__ import annotations

import typing

import numpy as np

from darknet19 import STRIDE
from darknet_face.console import UserError
from darknet_face.detection import LEAST_SCORE, NMS_IOU
from darknet_face.detection.engines import open_network
from darknet_face.detection.model_file import Spec, read_detector
from darknet_face.images.resize import resize

MOST_CANDIDATES, MOST_FACES = 400, 200
NESTED = 0.8  # of two boxes one of which lies in the other by this share, the better is the face


class OnePassDetector:
    """Finds the faces of images. Several threads may use one at once.

    Parameters
    ----------
    weights, spec
        See :func:`darknet_face.detection.model_file.read_detector`.
    image_size
        The longer side that larger images are scaled down to; the spec's if absent. Smaller images
        keep their size.
    min_score
        Drop boxes with a lower score; the spec's threshold if absent.
    nms_iou
        Of two boxes with a higher IoU, drop the one with the lower score.
    precision, threads, engine
        See :func:`darknet_face.engines.engine.open_engine`.
    """

    def __init__(self, weights: dict, spec: Spec, image_size: int | None = None,
                 min_score: float | None = None, nms_iou: float = NMS_IOU,
                 precision: str = "float32", threads: int | None = None,
                 engine: str | None = None):
        self.image_size = image_size or spec.image_size
        self.min_score = spec.threshold if min_score is None else min_score
        self.nms_iou = nms_iou
        self._network: typing.Any = open_network(weights, spec, engine, precision, threads)

    @classmethod
    def load(cls, path: str, **options: typing.Any) -> OnePassDetector:
        """Read a file of train_detector.py; options as above."""
        detector = cls(*read_detector(path), **options)
        noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
        if not all(np.isfinite(each).all() for each in detector._run(noise)):
            raise UserError("{}: its answers are not finite numbers; train it again".format(path))
        return detector

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the faces of an image.

        Parameters
        ----------
        image
            uint8, [any height, any width, 3], RGB.

        Returns
        -------
        boxes
            float32, [n, 4], left, top, right, bottom as shares of the image's sides.
        scores
            float32, [n], best first.
        """
        height, width = image.shape[:2]
        scale = min(1.0, self.image_size / max(height, width))
        rows, columns = (max(1, int(round(side * scale))) for side in (height, width))
        if scale < 1:
            image = resize(image, rows, columns)
        boxes, scores = self._run(image)
        boxes, scores = suppress(boxes, scores, self.min_score, self.nms_iou)
        return np.clip(boxes / np.array([columns, rows, columns, rows], np.float32), 0, 1), scores

    def _run(self, image):
        """Boxes in pixels and scores of all cells; the image is filled up to multiples of 32."""
        rows, columns = image.shape[:2]
        filled = np.zeros((1, -(-rows // STRIDE) * STRIDE, -(-columns // STRIDE) * STRIDE, 3),
                          np.float32)
        filled[0, :rows, :columns] = image / np.float32(255)
        boxes, scores = self._network(filled)
        return boxes[0], scores[0]

    def __enter__(self) -> OnePassDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self._network = None  # frees the memory


def suppress(boxes: np.ndarray, scores: np.ndarray, min_score: float = LEAST_SCORE,
             nms_iou: float = NMS_IOU) -> tuple[np.ndarray, np.ndarray]:
    """Non-maximum suppression: of boxes that overlap or lie in each other the best stays.

    Parameters
    ----------
    boxes
        [n, 4], left, top, right, bottom in any unit.
    scores
        [n].

    Returns
    -------
    boxes, scores
        Those that stay, best first, at most MOST_FACES.
    """
    order = np.flatnonzero(scores >= min_score)
    order = order[np.argsort(-scores[order], kind="stable")][:MOST_CANDIDATES]
    boxes, scores = boxes[order], scores[order]
    areas = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1)
    alive = areas > 0
    kept: list[int] = []
    while alive.any() and len(kept) < MOST_FACES:
        index = int(alive.argmax())
        kept.append(index)
        common = np.maximum(np.minimum(boxes[:, 2:], boxes[index, 2:])
                            - np.maximum(boxes[:, :2], boxes[index, :2]), 0).prod(1)
        alive &= (common <= nms_iou * (areas + areas[index] - common)) & (
            common <= NESTED * np.minimum(areas, areas[index]))
        alive[index] = False
    return boxes[kept], scores[kept]
