"""Classify pictures by one look or by searching them, on one process or shared among ranks."""

from __future__ import annotations

import itertools

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.inputs import InputImage
from darknet_face.images.reader import read_ahead, read_batches
from darknet_face.runtime import distributed

PER_ROUND = 64  # pictures per rank between two exchanges of results


def classify_images(classifier, images, batch_size, threshold=0.5):
    """Classify pictures as they come.

    Parameters
    ----------
    classifier : darknet_face.engines.tensorflow_classifier.Classifier
    images : iterable of InputImage
        At most a few batches are read ahead.
    batch_size : int
    threshold : float
        A picture is called a face if its probability of FACE is at least this.

    Yields
    ------
    results : list of (InputImage, dict)
        The pictures of a batch, each with its row: ``file``, ``class``, ``probability`` (of that
        class), ``face_probability``, and ``x``, ``y``, ``width`` and ``height``, which are None.
    bad : list of (InputImage, str)
        The pictures of the batch that did not decode, each with the cause.
    """
    for good, pixels, bad in read_batches(
            images, batch_size, classifier.image_size, read=InputImage.read):
        yield [(image, _row(image, float(probabilities[FACE]), threshold))
               for image, probabilities in zip(good, classifier(pixels) if good else ())], bad


def _row(image, probability, threshold, box=(None,) * 4):
    """The row of a picture with its probability of FACE."""
    is_face = probability >= threshold
    row = {"file": image.name, "class": CLASS_NAMES[FACE if is_face else 1 - FACE],
           "probability": probability if is_face else 1 - probability,
           "face_probability": probability}
    row.update(zip(("x", "y", "width", "height"), box))
    return row


def search_images(search, images, batch_size, threshold=0.5, fine_places=False):
    """Classify pictures by their most probable window, as they come.

    Parameters
    ----------
    search : darknet_face.classify.sliding_window.WindowSearch
    images, threshold
        See :func:`classify_images`.
    batch_size : int
        How many pictures to search together, and how many to read meanwhile.
    fine_places : bool
        Look for a smaller place where the search stopped early: see
        :meth:`darknet_face.classify.sliding_window.WindowSearch.refine`.

    Yields
    ------
    results, bad
        As :func:`classify_images`. ``x``, ``y``, ``width`` and ``height`` are the window's, in
        whole pixels of the picture.
    """
    read = read_ahead(images, InputImage.read, ahead=batch_size)
    for chunk in iter(lambda: list(itertools.islice(read, batch_size)), []):
        good = [(image, pixels) for image, pixels, _ in chunk if pixels is not None]
        findings = search.find([pixels for _, pixels in good])
        if fine_places:
            findings = [search.refine(pixels, finding)
                        for (_, pixels), finding in zip(good, findings)]
        yield ([(image, _row(image, finding.probability, threshold, _whole_pixels(finding)))
                for (image, _), finding in zip(good, findings)],
               [(image, cause) for image, pixels, cause in chunk if pixels is None])


def _whole_pixels(finding):
    return [int(round(value)) for value in (
        finding.left, finding.top, finding.width, finding.height)]


def predict_on_all_ranks(predict, images):
    """Classify pictures on all ranks. Rank 0 hands them out and collects the results.

    Parameters
    ----------
    predict : callable
        Yields results and bad pictures for an iterable of InputImage, as :func:`classify_images`.
    images : iterable of InputImage
        Used on rank 0 only, so that each picture is classified once even if the ranks' folders
        differ.

    Yields
    ------
    results, bad
        On rank 0 as :func:`classify_images`, in the order of ``images``. On other ranks nothing.
    """
    images = iter(images if distributed.rank() == 0 else ())
    while True:
        shares = distributed.from_first(
            [list(itertools.islice(images, PER_ROUND)) for _ in range(distributed.size())])
        if not shares[0]:
            return
        mine = list(predict(shares[distributed.rank()]))
        for results in distributed.gather(mine):
            if distributed.rank() == 0:
                yield from results
