"""The report of an evaluation: ``report.json`` for programs, ``index.html`` for people.

The page is one file with its charts and images inside. It opens without a network, on light and
dark screens. It shows the metrics, the curves behind them and the misclassified images, the most
confident mistakes first, each beside its heat map; a click opens the image where it lies. The
template is ``report.html.j2``.
"""

from __future__ import annotations

import base64
import math
import os
import pathlib
import typing
import urllib.parse

import jinja2
import numpy as np
from markupsafe import Markup
from scipy.special import logit

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.annotated import draw_boxes
from darknet_face.classify.heatmaps import FaceMapper, overlay
from darknet_face.console import UserError, printable, progress, warn
from darknet_face.evaluation.charts import draw_charts, to_svg
from darknet_face.evaluation.metrics import TABLE, Scores, format_metric, format_threshold
from darknet_face.evaluation.provenance import Provenance
from darknet_face.images.contact_sheets import BLUE, encode, scale_to
from darknet_face.images.decode import BadImage, read_image, reduction
from darknet_face.images.file_lists import relative_to_data
from darknet_face.runtime.atomic_files import write_atomically, write_json
from darknet_face.runtime.safe_files import (
    check_json,
    check_replaceable,
    relative_to_here,
    starts_with,
)

MOST_MISTAKES = 24  # images shown per kind of mistake
CLOSE_CALLS = 12
CLOSE = 2.0  # in log-odds: from 0.12 to 0.88 with a threshold of 0.5
TILE = 176  # height and width of an image in the report, in pixels

# How the page starts, so that a later report knows that it may replace it.
PAGE_START = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Face or non-face: evaluation</title>
"""

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))), autoescape=True,
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
TEMPLATES.filters["printable"] = printable
TEMPLATES.filters["threshold"] = format_threshold


def check_report_folder(folder: str) -> None:
    """Check that the report replaces nothing but an earlier report.

    Raises
    ------
    UserError
        If its folder is a file, or has an ``index.html`` or ``report.json`` of another kind.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError("{}: not a folder; name another for the report".format(folder))
    check_replaceable(os.path.join(folder, "index.html"),
                      lambda path: starts_with(path, PAGE_START), "a report of this program")
    check_json(os.path.join(folder, "report.json"), ["model", "figures"],
               "a report of this program")


class Judgement(typing.NamedTuple):
    """The answers of one way of judging the test images.

    Attributes
    ----------
    title
        Which way.
    scores
    metrics
        From :func:`darknet_face.evaluation.metrics.measure_scores`, with ``at_false_positive_rate``
        and ``robustness`` where they were measured.
    """

    title: str
    scores: Scores
    metrics: dict[str, typing.Any]


def write_report(folder: str, model: str, judgements: typing.Sequence[Judgement],
                 mapper: FaceMapper | None = None, provenance: Provenance | None = None) -> None:
    """Write ``report.json`` and ``index.html``.

    Parameters
    ----------
    folder
        Made if it does not exist.
    model
        The model's name.
    judgements
        The first is shown in full: charts and mistakes. The last has the metrics of
        ``report.json``.
    mapper
        Makes the heat map beside each image.
    provenance
        Adds the numbers of images and the training curve, and makes file names relative to the
        folder of the lists.
    """
    check_report_folder(folder)
    provenance = provenance or Provenance()
    judged_by, scores, metrics = judgements[0]
    mistakes, close_calls = find_mistakes(scores, metrics["threshold"])
    data_dir = provenance.data_dir
    write_json(os.path.join(folder, "report.json"), {
        "model": model, "data_dir": None if data_dir is None else relative_to_here(data_dir),
        "figures": judgements[-1].metrics, "judged_by": judged_by, "pictures": {
            split: {"faces": faces, "non_faces": non_faces}
            for split, faces, non_faces in provenance.pictures},
        "history": [_without_gaps(row) for row in provenance.history],
        "mistakes": [_describe(scores, index, data_dir) for rows in mistakes for index in rows]})
    page = _page(folder, model, judgements, (mistakes, close_calls), mapper, provenance)
    with write_atomically(os.path.join(folder, "index.html"), "w", encoding="utf-8") as stream:
        stream.write(page)


def find_mistakes(scores: Scores, threshold: float
                  ) -> tuple[tuple[list[int], list[int]], list[int]]:
    """The misclassified images, and those that nearly were.

    Returns
    -------
    mistakes
        Positions in ``scores`` of the false positives and of the false negatives, the most
        confident first.
    close_calls
        The right answers within :data:`CLOSE` of the threshold, the closest first.
    """
    probabilities = scores.face_probabilities
    called_face = probabilities >= threshold
    is_face = scores.labels == FACE
    order = np.argsort(probabilities, kind="stable")
    false_positives = [int(i) for i in order[::-1] if called_face[i] and not is_face[i]]
    missed = [int(i) for i in order if is_face[i] and not called_face[i]]
    distances = np.abs(_log_odds(probabilities) - _log_odds(threshold))
    close = [int(i) for i in np.argsort(distances, kind="stable")
             if called_face[i] == is_face[i] and distances[i] <= CLOSE]
    return (false_positives, missed), close[:CLOSE_CALLS]


def _log_odds(probabilities: typing.Any) -> np.ndarray:
    return logit(np.clip(probabilities, 1e-9, 1 - 1e-9))


def _without_gaps(row):
    """A row of the history without the columns that it lacks."""
    return {name: value for name, value in row.items() if not math.isnan(value)}


def _shown_name(path, data_dir):
    """An image's name in the report: relative to the lists' folder or to the current one."""
    if data_dir is not None:
        name = relative_to_data(path, data_dir)
        if not os.path.isabs(name):
            return name
    return relative_to_here(path)


def _describe(scores, index, data_dir):
    return {"file": _shown_name(scores.paths[index], data_dir),
            "class": CLASS_NAMES[scores.labels[index]],
            "face_probability": float(scores.face_probabilities[index])}


def _page(folder: str, model: str, judgements: typing.Sequence[Judgement], found: typing.Any,
          mapper: FaceMapper | None, provenance: Provenance) -> str:
    """The page of a folder as text; ``found`` is what :func:`find_mistakes` returned."""
    (false_positives, missed), close_calls = found
    judged_by, scores, metrics = judgements[0]
    robustness = judgements[-1].metrics.get("robustness", ())
    charts = draw_charts(scores, dict(metrics, robustness=robustness), provenance.history,
                         provenance.epoch)
    sections = [(title, name, indices) for title, name, indices in (
        ("False positives: non-faces called a face", "false-positives", false_positives),
        ("False negatives: missed faces", "missed-faces", missed),
        ("Correct, but close to the threshold", "close-calls", close_calls)) if indices]
    faces = int((scores.labels == FACE).sum())
    page = TEMPLATES.get_template("report.html.j2").render(
        model=model, judged_by=judged_by, metrics=metrics, faces=faces,
        non_faces=metrics["images"] - faces,
        rows=_metric_rows(metrics), pictures=provenance.pictures, mistakes=(
            len(false_positives), len(missed)), has_maps=bool(mapper), has_boxes=bool(scores.boxes),
        charts=[{"name": name, "caption": caption,
                 "svg": Markup(to_svg(chart, "chart-" + name, caption))}
                for name, caption, chart in charts],
        sections=[_section(*section, scores, mapper, provenance.data_dir, folder)
                  for section in sections],
        by_source=[(each.title, each.metrics["by_source"]) for each in judgements
                   if "by_source" in each.metrics],
        others=[(each.title, _metric_rows(each.metrics)) for each in judgements[1:]],
        corrupted=_robustness_rows(robustness), corrupted_by=judgements[-1].title,
        columns=[title for _, title in TABLE])
    return PAGE_START + page


def _metric_rows(metrics):
    """The table of metrics: pairs of title and value."""
    rows = [(title, format_metric(metrics[name])) for name, title in TABLE]
    rows.insert(1, ("accuracy, 95 % interval",
                    "{:.4f} to {:.4f}".format(*metrics["accuracy_interval"])))
    rows.append(("expected calibration error",
                 format_metric(metrics["calibration"]["expected_calibration_error"])))
    if "at_false_positive_rate" in metrics:
        point = metrics["at_false_positive_rate"]
        rows += [("threshold for a false-positive rate of at most {:g}".format(point["target"]),
                  "none" if point["threshold"] is None else format_threshold(point["threshold"])),
                 ("false-positive rate there", format_metric(point["false_positive_rate"])),
                 ("recall there", format_metric(point["recall"]))]
    return rows


def _robustness_rows(rows):
    """The table of robustness: per corruption its name and the metrics of TABLE."""
    return [[row["disturbance"]] + [format_metric(row[name]) for name, _ in TABLE]
            for row in rows]


def _section(title, name, indices, scores, mapper, data_dir, folder):
    """A section of images, at most MOST_MISTAKES of them."""
    shown = indices[:MOST_MISTAKES]
    tiles = []
    for index in progress(shown, desc=title, leave=False):
        path = scores.paths[index]
        images, warmest = _draw_tile(path, mapper, scores.boxes.get(path))
        tiles.append({
            "images": images, "warmest": warmest, "link": _link(path, folder),
            "file": _shown_name(path, data_dir), "probability": scores.face_probabilities[index],
            "is_face": bool(scores.labels[index] == FACE)})
    return {"title": title, "name": name, "total": len(indices), "size": TILE, "tiles": tiles}


def _link(path, folder):
    """Where an image lies, as seen from the page."""
    try:
        relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    except ValueError:  # on another drive of Windows
        return pathlib.Path(os.path.abspath(path)).as_uri()
    return urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")))


def _draw_tile(path, mapper, box):
    """An image, with the box of its most probable face, and its heat map.

    Returns pairs of a description and a data URI, none if the image can no longer be read; and the
    map's highest value, None where the map is shown as it is. A map that stays below one half, as
    that of a missed face, is scaled: it then shows where the network came closest.
    """
    try:
        image = read_image(path)
    except BadImage as error:
        warn("{}: {}; not shown in the report".format(path, error))
        return [], None
    scale = reduction(path, image)
    shown = draw_boxes(image, [[int(round(each / scale)) for each in box]]
                       if box and None not in box else [], BLUE)
    images, warmest = [("the image", _data_uri(scale_to(shown, TILE)))], None
    if mapper:
        face_map = mapper(image)
        if 0 < face_map.max() < 0.5:
            warmest = float(face_map.max())
            face_map = face_map / warmest
        drawn = overlay(image, face_map, outline=warmest is None)
        images.append(("its heat map", _data_uri(scale_to(drawn, TILE))))
    return images, warmest


def _data_uri(image):
    content = encode(image, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
