"""How well faces are found in whole images, by the width of the widest face.

    python -m darknet_face.evaluation.photographs --weights released \\
        --wider-dir data/wider_face --sources celeba masked utkface

Images with known boxes (WIDER FACE) are grouped by the width of their widest face as a share of
the image's. An image counts as found when its best window scores above a threshold; the threshold
is the one that a given share of the face-free images of the ``--sources`` exceeds.
"""

from __future__ import annotations

import argparse
import collections
import os
import typing

import numpy as np

from darknet_face.classify.sliding_window import add_sliding_window_arguments, open_sliding_window
from darknet_face.console import HelpFormatter, UserError, cli, progress, warn
from darknet_face.evaluation.metrics import interval
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.file_lists import load_source
from darknet_face.images.wider_face import find_labelled_images
from darknet_face.options import (
    add_data_argument,
    add_sources_argument,
)
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_json
from darknet_face.runtime.session import explain_memory_errors

if typing.TYPE_CHECKING:
    from darknet_face.classify.sliding_window import SlidingWindow

# The ends of the groups: the width of the widest face as a share of the image's.
WIDTHS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.01)
RATES = (0.01, 0.001)  # of false positives

Picture = collections.namedtuple("Picture", "path group is_face")


def photographs_by_width(wider_dir: str, split: str, val_size: float = 0.12
                        ) -> list[tuple[str, int]]:
    """WIDER FACE's images, each with the width of its widest face in pixels.

    Images without a usable face are skipped.
    """
    pictures = []
    for photograph in find_labelled_images(wider_dir, val_size):
        widths = [face.width for face in photograph.boxes if face.is_valid]
        if photograph.split == split and widths:
            pictures.append((photograph.path, max(widths)))
    return pictures


def group_of(share: float) -> str | None:
    """The name of a width's group, or None for faces that are too small."""
    for low, high in zip(WIDTHS, WIDTHS[1:]):
        if low < share <= high:
            return "widest face {:.0f} to {:.0f} % of the width".format(100 * low,
                                                                       100 * min(high, 1))
    return None


GROUPS = [group_of(high) for high in WIDTHS[1:]]


def score(search: SlidingWindow, pictures: list[Picture], wide_photographs: list[tuple[str, int]]
         ) -> list[tuple[Picture, list[float]]]:
    """The log-odds of the best window of every image at every scale.

    Parameters
    ----------
    search
    pictures
    wide_photographs
        As :func:`photographs_by_width` gives them.

    Returns
    -------
    list of (Picture, list of float)
        For each scale the highest log-odds so far; images that do not decode are skipped, and so
        are those whose widest face is narrower than the first of :data:`WIDTHS`.
    """
    scores = []
    everything = [(each.path, each, None) for each in pictures] + [
        (path, None, width) for path, width in wide_photographs]
    for path, picture, width in progress(everything, desc="searching", unit="image"):
        try:
            image = read_image(path)
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            continue
        if picture is None:
            group = group_of(width / image.shape[1])
            if group is None:
                continue
            picture = Picture(path, group, True)
        found = {scale: float(log_odds.max()) for scale, log_odds in search.log_odds_maps(image)}
        best = np.maximum.accumulate([found.get(scale, -np.inf) for scale in search.scales])
        scores.append((picture, best.tolist()))
    return scores


def summarise(scores: list[tuple[Picture, list[float]]], scales: typing.Sequence[float]
              ) -> list[dict[str, typing.Any]]:
    """What is found at each rate of false positives, for each group and number of scales.

    Returns
    -------
    list of dict
        ``zooms`` (the scales), ``rate``, ``threshold`` (a probability) and ``groups``: of each its
        name, ``pictures``, ``found`` and the 95 % ``interval`` of the share.
    """
    groups = sorted({picture.group for picture, _ in scores if picture.is_face},
                    key=lambda group: (group in GROUPS, GROUPS.index(group) if group in GROUPS
                                       else 0, group))
    rows = []
    for count in range(1, len(scales) + 1):
        face_free = np.array([best[count - 1] for picture, best in scores if not picture.is_face])
        for rate in RATES:
            threshold = np.sort(face_free)[::-1][int(rate * len(face_free))]
            row: dict[str, typing.Any] = {"zooms": list(scales[:count]), "rate": rate,
                   "threshold": float(1 / (1 + np.exp(-threshold))), "groups": []}
            for group in groups:
                values = np.array([best[count - 1] for picture, best in scores
                                   if picture.is_face and picture.group == group])
                found = int((values > threshold).sum())
                row["groups"].append({
                    "name": group, "pictures": len(values), "found": found,
                    "interval": interval(found, len(values))})
            rows.append(row)
    return rows


def format_rows(rows: typing.Any) -> str:
    """The rows of :func:`summarise` as text."""
    lines = []
    for row in rows:
        lines.append("scales {}, at {:g} % false positives (threshold {:.3f}):".format(
            ", ".join("{:g}".format(scale) for scale in row["zooms"]), 100 * row["rate"],
            row["threshold"]))
        lines += ["  {:<42} {:5.1f} %  ({:.1f} to {:.1f}; {} of {})".format(
            group["name"], 100.0 * group["found"] / group["pictures"],
            100 * group["interval"][0], 100 * group["interval"][1],
            group["found"], group["pictures"]) for group in row["groups"]]
    return "\n".join(lines)


def _parser():
    parser = argparse.ArgumentParser(
        description="Measure how well faces are found in whole photographs, by their size.",
        formatter_class=HelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--wider-dir", metavar="DIR", help="WIDER FACE as distributed")
    add_sources_argument(
        parser, "lists whose non-faces set the threshold and whose faces are measured too")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--json", metavar="FILE", help="write the metrics here too")
    add_sliding_window_arguments(parser)
    return parser


@cli
@explain_memory_errors("use smaller --scales or a smaller --image-size")
def main() -> None:
    options = _parser().parse_args()
    if options.json:
        check_json(options.json, ["split", "rows"], "a file of metrics")
    search = open_sliding_window(options)
    pictures = []
    for name in options.sources:
        faces, others = load_source(options.data_dir, name, options.split)
        pictures += [Picture(path, name, True) for path in faces]
        pictures += [Picture(path, os.path.basename(os.path.dirname(path)), False)
                     for path in others]
    wide = photographs_by_width(options.wider_dir, options.split) if options.wider_dir else []
    if not any(not picture.is_face for picture in pictures):
        raise UserError("no face-free images in {}; name more --sources".format(
            ", ".join(options.sources)))
    scores = score(search, pictures, wide)
    if not any(not picture.is_face for picture, _ in scores):
        raise UserError("none of the face-free images of {} decodes; check the lists".format(
            ", ".join(options.sources)))
    rows = summarise(scores, search.scales)
    print(format_rows(rows))
    if options.json:
        write_json(options.json, {"split": options.split, "rows": rows})


if __name__ == "__main__":
    main()
