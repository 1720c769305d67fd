"""How well faces are found in whole images, by the width of the widest face.

    python -m darknet_face.evaluation.photographs --weights released \\
        --wider-dir data/wider_face --sources celeba masked utkface

Images with known boxes (WIDER FACE) are grouped by the width of their widest face as a share of
the image's. An image counts as found when its score is above a threshold; the threshold is the one
that a given share of the face-free images of the ``--sources`` exceeds. The score is that of the
best window, after each scale of the sliding window, and that of the detector with the classifier,
where one is calibrated for the weights.
"""

from __future__ import annotations

import argparse
import collections
import os
import typing

import numpy as np

from darknet_face.classify.sliding_window import (
    SlidingWindow,
    add_sliding_window_arguments,
    open_sliding_window,
    sigmoid,
)
from darknet_face.console import HelpFormatter, UserError, cli, progress, warn
from darknet_face.detection import DETECTOR
from darknet_face.detection.calibration import log_odds
from darknet_face.detection.confirm import FaceFinder, calibrated_detector, open_finder
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
from darknet_face.weights.model_file import choose_model

# The ends of the groups: the width of the widest face as a share of the image's.
WIDTHS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.01)
RATES = (0.01, 0.001)  # of false positives

Image = collections.namedtuple("Image", "path group is_face")


def photographs_by_width(wider_dir: str, split: str) -> list[tuple[str, int]]:
    """WIDER FACE's images, each with the width of its widest face in pixels.

    Images without a usable face are skipped.
    """
    images = []
    for photograph in find_labelled_images(wider_dir):
        widths = [face.width for face in photograph.boxes if face.is_valid]
        if photograph.split == split and widths:
            images.append((photograph.path, max(widths)))
    return images


def group_of(share: float) -> str | None:
    """The name of a width's group, or None for faces that are too small."""
    for low, high in zip(WIDTHS, WIDTHS[1:]):
        if low < share <= high:
            return "widest face {:.0f} to {:.0f} % of the width".format(100 * low,
                                                                       100 * min(high, 1))
    return None


GROUPS = [group_of(high) for high in WIDTHS[1:]]


def score(search: SlidingWindow, find_faces: FaceFinder | None, images: list[Image],
          wide_photographs: list[tuple[str, int]]) -> list[tuple[Image, list[float]]]:
    """The log-odds of every image, by each way of looking.

    Parameters
    ----------
    search
    find_faces
        The detector with the classifier, if there is one.
    images
    wide_photographs
        As :func:`photographs_by_width` gives them.

    Returns
    -------
    list of (Image, list of float)
        For each scale that of the best window so far, then that of the detector. Images that do
        not decode are skipped, and so are those whose widest face is narrower than the first of
        :data:`WIDTHS`.
    """
    scores = []
    everything = [(each.path, each, None) for each in images] + [
        (path, None, width) for path, width in wide_photographs]
    for path, image, width in progress(everything, desc="searching", unit="image"):
        try:
            pixels = read_image(path)
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            continue
        if image is None:
            group = group_of(width / pixels.shape[1])
            if group is None:
                continue
            image = Image(path, group, True)
        found = {scale: float(best.max()) for scale, best in search.log_odds_maps(pixels)}
        odds = np.maximum.accumulate([found.get(scale, -np.inf) for scale in search.scales])
        scores.append((image, odds.tolist() + (
            [float(log_odds(find_faces(pixels)[0]))] if find_faces else [])))
    return scores


def summarise(scores: list[tuple[Image, list[float]]], scales: typing.Sequence[float]
              ) -> list[dict[str, typing.Any]]:
    """What is found at each rate of false positives, for each group and way of looking.

    Returns
    -------
    list of dict
        ``search`` ("4" or "detector"), ``zooms`` (the scales, or None), ``rate``, ``threshold`` (a
        probability) and ``groups``: of each its name, ``pictures``, ``found`` and the 95 %
        ``interval`` of the share.
    """
    groups = sorted({image.group for image, _ in scores if image.is_face},
                    key=lambda group: (group in GROUPS, GROUPS.index(group) if group in GROUPS
                                       else 0, group))
    rows = []
    for way in range(len(scores[0][1])):
        zooms = list(scales[:way + 1]) if way < len(scales) else None
        face_free = np.array([odds[way] for image, odds in scores if not image.is_face])
        for rate in RATES:
            threshold = np.sort(face_free)[::-1][int(rate * len(face_free))]
            row: dict[str, typing.Any] = {
                "search": "{:g}".format(max(zooms)) if zooms else DETECTOR, "zooms": zooms,
                "rate": rate, "threshold": float(sigmoid(threshold)), "groups": []}
            for group in groups:
                values = np.array([odds[way] for image, odds in scores
                                   if image.is_face and image.group == group])
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
        way = "scales " + ", ".join(map("{:g}".format, row["zooms"])) if row["zooms"] else (
            "detector and classifier")
        lines.append("{}, at {:g} % false positives (threshold {:.3f}):".format(
            way, 100 * row["rate"], row["threshold"]))
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


def _open(options):
    """The sliding window, and the detector with the classifier: None if none is calibrated."""
    model = choose_model("saved_models", options.weights, options.image_size)
    search = open_sliding_window(options, model)
    detector = calibrated_detector(model.weights, "saved_models")
    return search, open_finder(
        detector, search.engine, engine=options.engine,
        precision=options.precision) if detector else None


@cli
@explain_memory_errors("use smaller --scales or a smaller --image-size")
def main() -> None:
    options = _parser().parse_args()
    if options.json:
        check_json(options.json, ["split", "rows"], "a file of metrics")
    images = []
    for name in options.sources:
        faces, others = load_source(options.data_dir, name, options.split)
        images += [Image(path, name, True) for path in faces]
        images += [Image(path, os.path.basename(os.path.dirname(path)), False)
                   for path in others]
    wide = photographs_by_width(options.wider_dir, options.split) if options.wider_dir else []
    if not any(not image.is_face for image in images):
        raise UserError("no face-free images in {}; name more --sources".format(
            ", ".join(options.sources)))
    search, find_faces = _open(options)
    scores = score(search, find_faces, images, wide)
    if not any(not image.is_face for image, _ in scores):
        raise UserError("none of the face-free images of {} decodes; check the lists".format(
            ", ".join(options.sources)))
    rows = summarise(scores, search.scales)
    print(format_rows(rows))
    if options.json:
        write_json(options.json, {"split": options.split, "rows": rows})


if __name__ == "__main__":
    main()
