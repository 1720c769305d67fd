"""Classify images by the detector, a sliding window or a single pass, on one rank or several.

Each function yields pairs of a batch's results and of its images that could not be read:

- a list of (InputImage, row); a row is a dict with ``file``, ``class``, ``face_probability``,
  the box in whole pixels of the image, ``x``, ``y``, ``width`` and ``height``, None for a single
  pass and where nothing is found, ``probability``, that of the class, ``faces``, their number, and
  ``boxes``, a list of dicts with the box in pixels and the ``probability`` of each; these two are
  None where no detector was asked;
- a list of (InputImage, cause).
"""

from __future__ import annotations

import itertools
import typing

import numpy as np

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.inputs import InputImage
from darknet_face.images.reader import read_ahead, read_batches
from darknet_face.runtime import distributed

BOX = ("x", "y", "width", "height")  # the keys of a box, in pixels
PER_ROUND = 64  # images per rank between two exchanges of results

Row = typing.Dict[str, typing.Any]
Batches = typing.Iterator[typing.Tuple[
    typing.List[typing.Tuple[InputImage, Row]], typing.List[typing.Tuple[InputImage, str]]]]


def classify_single_pass(classifier: typing.Any, images: typing.Iterable[InputImage],
                         batch_size: int, threshold: float = 0.5) -> Batches:
    """Classify images as they come, each stretched to the network's input.

    Parameters
    ----------
    classifier
        :class:`darknet_face.engines.tensorflow_classifier.Classifier`
    images
        At most a few batches are read ahead.
    threshold
        An image is called a face if its probability of FACE is at least this.
    """
    for good, pixels, bad in read_batches(
            images, batch_size, classifier.image_size, read=InputImage.read):
        yield [(image, _row(image, float(probabilities[FACE]), threshold))
               for image, probabilities in zip(good, classifier(pixels) if good else ())], bad


def _row(image: InputImage, probability: float, threshold: float,
         box: typing.Sequence[int | None] = (None, None, None, None),
         boxes: list[dict[str, typing.Any]] | None = None) -> Row:
    """The row of an image with its probability of FACE."""
    is_face = probability >= threshold
    return {"file": image.name, "class": CLASS_NAMES[FACE if is_face else 1 - FACE],
            "face_probability": probability,
            **dict(zip(BOX, box)),
            "probability": probability if is_face else 1 - probability,
            "faces": None if boxes is None else len(boxes), "boxes": boxes}


def classify_by_sliding_window(sliding_window: typing.Any, images: typing.Iterable[InputImage],
                               batch_size: int, threshold: float = 0.5,
                               tight_boxes: bool = False) -> Batches:
    """Classify images by their most probable window, as they come.

    Parameters
    ----------
    sliding_window
        :class:`darknet_face.classify.sliding_window.SlidingWindow`
    batch_size
        How many images to search together, and how many to read meanwhile.
    threshold
        See :func:`classify_single_pass`.
    tight_boxes
        Look for a smaller box where the search stopped early: see
        :meth:`darknet_face.classify.sliding_window.SlidingWindow.tighten`.
    """
    read = read_ahead(images, InputImage.read, ahead=batch_size)
    for chunk in iter(lambda: list(itertools.islice(read, batch_size)), []):
        good = [(image, pixels) for image, pixels, _ in chunk if pixels is not None]
        windows = sliding_window.find([pixels for _, pixels in good])
        if tight_boxes:
            windows = [sliding_window.tighten(pixels, window)
                       for (_, pixels), window in zip(good, windows)]
        yield ([(image, _row(image, window.probability, threshold, [
            int(round(each * image.reduction(pixels))) for each in window[1:5]]))
                for (image, pixels), window in zip(good, windows)],
               [(image, cause or "") for image, pixels, cause in chunk if pixels is None])


def classify_by_detector(find_faces: typing.Callable[[np.ndarray], tuple[float, list[typing.Any]]],
                         images: typing.Iterable[InputImage], batch_size: int,
                         threshold: float = 0.5) -> Batches:
    """Classify images by the faces in them, as they come.

    Parameters
    ----------
    find_faces
        :class:`darknet_face.detection.confirm.FaceFinder`
    batch_size
        How many images to read ahead.
    threshold
        See :func:`classify_single_pass`; also which faces are counted.
    """
    for image, pixels, cause in read_ahead(images, InputImage.read, ahead=batch_size):
        if pixels is None:
            yield [], [(image, cause or "")]
            continue
        probability, faces = find_faces(pixels)
        scale = image.reduction(pixels)
        sides = pixels.shape[1] * scale, pixels.shape[0] * scale
        boxes = [_in_pixels(face, *sides) for face in faces]
        best = [boxes[0][name] for name in BOX] if boxes else [None] * len(BOX)
        yield [(image, _row(image, probability, threshold, best, [
            each for each in boxes if each["probability"] >= threshold]))], []


def _in_pixels(face: typing.Any, width: float, height: float) -> dict[str, typing.Any]:
    """A :class:`darknet_face.detection.confirm.Face` in whole pixels of its image."""
    left, right = (int(round(each * width)) for each in (face.left, face.right))
    top, bottom = (int(round(each * height)) for each in (face.top, face.bottom))
    return {"x": left, "y": top, "width": right - left, "height": bottom - top,
            "probability": face.probability}


def predict_on_all_ranks(predict: typing.Callable[[typing.Iterable[InputImage]], Batches],
                         images: typing.Iterable[InputImage]) -> Batches:
    """Classify images on all ranks. Rank 0 hands them out and collects the results.

    ``images`` is used on rank 0 only, so that each image is classified once even if the ranks'
    folders differ. Rank 0 yields all results in the order of ``images``, the others nothing.
    """
    waiting = iter(images if distributed.rank() == 0 else ())
    while True:
        shares = distributed.from_first(
            [list(itertools.islice(waiting, PER_ROUND)) for _ in range(distributed.size())])
        if not shares[0]:
            return
        mine = list(predict(shares[distributed.rank()]))
        for results in distributed.gather(mine):
            if distributed.rank() == 0:
                yield from results
