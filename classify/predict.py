"""Classify pictures batch by batch, on one process or shared among ranks."""

import itertools

from classify.inputs import InputImage
from pictures.classes import CLASS_NAMES, FACE
from pictures.reader import read_batches
from runtime import distributed

BATCHES_PER_ROUND = 4  # batches per rank between two exchanges of results


def classify_images(classifier, images, batch_size, threshold=0.5):
    """Classify pictures as they come.

    Parameters
    ----------
    classifier : model.classifier.Classifier
    images : iterable of InputImage
        At most a few batches are read ahead.
    batch_size : int
    threshold : float
        A picture is called a face if its probability of FACE is at least this.

    Yields
    ------
    results : list of (InputImage, dict)
        The pictures of a batch, each with its row: ``file``, ``class``, ``probability`` (of that
        class) and ``face_probability``.
    bad : list of (InputImage, str)
        The pictures of the batch that did not decode, each with the cause.
    """
    for good, pixels, bad in read_batches(
            images, batch_size, classifier.image_size, read=InputImage.read):
        results = []
        for image, probabilities in zip(good, classifier(pixels) if good else ()):
            index = FACE if float(probabilities[FACE]) >= threshold else 1 - FACE
            results.append((image, {
                "file": image.name, "class": CLASS_NAMES[index],
                "probability": float(probabilities[index]),
                "face_probability": float(probabilities[FACE])}))
        yield results, bad


def classify_on_all_ranks(classifier, images, batch_size, threshold=0.5):
    """Classify pictures on all ranks. Rank 0 hands them out and collects the results.

    Parameters
    ----------
    classifier, batch_size, threshold
        See :func:`classify_images`.
    images : iterable of InputImage
        Used on rank 0 only, so that each picture is classified once even if the ranks' folders
        differ.

    Yields
    ------
    results, bad
        On rank 0 as :func:`classify_images`, in the order of ``images``. On other ranks nothing.
    """
    per_rank = batch_size * BATCHES_PER_ROUND
    images = iter(images if distributed.rank() == 0 else ())
    while True:
        shares = distributed.from_first(
            [list(itertools.islice(images, per_rank)) for _ in range(distributed.size())])
        if not shares[0]:
            return
        mine = list(classify_images(
            classifier, shares[distributed.rank()], batch_size, threshold))
        for results in distributed.gather(mine):
            if distributed.rank() == 0:
                yield from results
