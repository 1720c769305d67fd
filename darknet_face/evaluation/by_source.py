"""Mistakes by dataset, and the scores of the answers that a user gets.

One number over all images hides a dataset on which the classifier fails. So each one gets rows of
its own. A dataset may have faces or non-faces alone.
"""

from __future__ import annotations

import itertools
import typing

from darknet_face.classes import FACE, NON_FACE
from darknet_face.classify.inputs import InputImage
from darknet_face.classify.predict import BOX
from darknet_face.console import printable, progress, warn
from darknet_face.evaluation.metrics import Scores, interval, scores_of
from darknet_face.images.file_lists import Split
from darknet_face.runtime import distributed

if typing.TYPE_CHECKING:
    from darknet_face.classify.api import FaceModel


def union(splits: typing.Mapping[str, Split]) -> Split:
    """All images of several datasets as one :class:`darknet_face.images.file_lists.Split`."""
    return Split(*[tuple(itertools.chain(*columns)) for columns in zip(*splits.values())])


def mistakes_by_source(scores: Scores, splits: typing.Mapping[str, Split], threshold: float = 0.5
                       ) -> list[dict[str, typing.Any]]:
    """Count the mistakes in each dataset of ``splits``.

    Returns
    -------
    list of dict
        For each dataset and class that it has: ``source``, ``class``, ``pictures`` (those that
        decoded), ``mistakes``, ``rate`` and its 95 % ``interval``.
    """
    called_face = dict(zip(scores.paths, scores.face_probabilities >= threshold))
    rows: list[dict[str, typing.Any]] = []
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


def format_by_source(rows: typing.Iterable[typing.Mapping[str, typing.Any]]) -> str:
    """The rows as text, one line each."""
    lines = ["{:<16} {:<10} {:>8} {:>9} {:>8}   {}".format(
        "dataset", "class", "images", "mistakes", "rate", "95 % interval")]
    lines += ["{source:<16} {class:<10} {pictures:>8,} {mistakes:>9,} {rate:>8.4f}   "
              "{0:.4f} to {1:.4f}".format(*row["interval"], **row) for row in rows]
    return "\n".join(lines)


def score_as_answered(model: FaceModel, split: Split) -> Scores:
    """Classify a split's images as a call of the model does. Ranks share the images.

    Raises
    ------
    UserError
        If no image of a class decodes.
    """
    mine = split.paths[distributed.rank()::distributed.size()]
    found, boxes = {}, {}
    with progress(total=len(mine), desc=model.method, unit="image", leave=False) as bar:
        for results, bad in model.stream(InputImage(path, path, None) for path in mine):
            for image, cause in bad:
                warn("{}: {}; skipped".format(printable(image.name), cause))
            for image, row in results:
                found[image.name] = row["face_probability"]
                boxes[image.name] = tuple(row[name] for name in BOX)
            bar.update(len(results) + len(bad))
    for others, other_boxes in distributed.gather((found, boxes)):
        found.update(others)
        boxes.update(other_boxes)
    return scores_of(found, split)._replace(boxes=boxes)
