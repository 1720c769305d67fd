"""Metrics for each source of test pictures, and for answers found by searching the pictures.

One number over all pictures hides a source on which the classifier fails. So each source (see
:mod:`darknet_face.training.mixture`) gets a row of its own. A source may have faces or non-faces
alone.
"""

from __future__ import annotations

import itertools

from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import printable, progress, warn
from darknet_face.evaluation.metrics import interval, scores_of
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import Split
from darknet_face.images.reader import read_ahead
from darknet_face.runtime import distributed


def union(splits):
    """All pictures of several sources as one :class:`darknet_face.images.file_lists.Split`."""
    return Split(*[tuple(itertools.chain(*columns)) for columns in zip(*splits.values())])


def mistakes_by_source(scores, splits, threshold=0.5):
    """Count the mistakes in each source.

    Parameters
    ----------
    scores : darknet_face.evaluation.metrics.Scores
    splits : dict of str to darknet_face.images.file_lists.Split
        The sources by name.
    threshold : float

    Returns
    -------
    list of dict
        For each source and class that it has: ``source``, ``class``, ``pictures`` (those that
        decoded), ``mistakes``, ``rate`` and its 95 % ``interval``.
    """
    called_face = dict(zip(scores.paths, scores.face_probabilities >= threshold))
    rows = []
    for name, split in splits.items():
        for label, class_name in ((FACE, "faces"), (NON_FACE, "non-faces")):
            answers = [called_face[path] for path in split[label] if path in called_face]
            if answers:
                mistakes = sum(bool(answer) != (label == FACE) for answer in answers)
                rows.append({
                    "source": name, "class": class_name, "pictures": len(answers),
                    "mistakes": mistakes, "rate": mistakes / len(answers),
                    "interval": interval(mistakes, len(answers))})
    return rows


def format_by_source(rows):
    """The rows as text, one line each."""
    lines = ["{:<16} {:<10} {:>8} {:>9} {:>8}   {}".format(
        "source", "class", "pictures", "mistakes", "rate", "95 % interval")]
    lines += ["{source:<16} {class:<10} {pictures:>8,} {mistakes:>9,} {rate:>8.4f}   "
              "{0:.4f} to {1:.4f}".format(*row["interval"], **row) for row in rows]
    return "\n".join(lines)


def score_by_search(search, split):
    """Classify a split's pictures by their most probable window. Ranks share the pictures.

    Parameters
    ----------
    search : darknet_face.classify.sliding_window.SlidingWindow
    split : darknet_face.images.file_lists.Split

    Returns
    -------
    Scores

    Raises
    ------
    UserError
        If no image of a class decodes.
    """
    mine = split.paths[distributed.rank()::distributed.size()]
    found = {}
    with progress(total=len(mine), desc="searching", unit="image", leave=False) as bar:
        for path, image, cause in read_ahead(mine, read_image):
            if image is None:
                warn("{}: {}; skipped".format(printable(path), cause))
            else:
                found[path] = search(image).probability
            bar.update()
    for others in distributed.gather(found):
        found.update(others)
    return scores_of(found, split)
