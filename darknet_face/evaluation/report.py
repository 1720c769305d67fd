"""The report of an evaluation: ``report.json`` for programs, ``index.html`` for people.

The page is one file with its charts and pictures inside. It opens without a network, on light and
dark screens. It shows the metrics, the curves behind them and the misclassified pictures, the most
confident mistakes first, each beside its heat map. Its template is ``report.html.j2``.
"""

from __future__ import annotations

import base64
import io
import math
import os

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.heatmaps import overlay
from darknet_face.console import UserError, printable, progress, warn
from darknet_face.evaluation.charts import draw_charts, to_svg
from darknet_face.evaluation.metrics import TABLE, format_metric, format_threshold
from darknet_face.evaluation.provenance import Provenance
from darknet_face.images.contact_sheets import scale_to
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.file_lists import relative_to_data
from darknet_face.runtime.atomic_files import write_atomically, write_json
from darknet_face.runtime.safe_files import (
    check_json,
    check_replaceable,
    relative_to_here,
    starts_with,
)

MOST_MISTAKES = 24  # pictures shown per kind of mistake
CLOSE_CALLS = 12
TILE = 176  # height and width of a picture in the report, in pixels

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


def check_report_folder(folder):
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


def write_report(folder, model, scores, metrics, mapper=None, provenance=None):
    """Write ``report.json`` and ``index.html``.

    Parameters
    ----------
    folder : str
        Made if it does not exist.
    model : str
        The model's name.
    scores : darknet_face.evaluation.metrics.Scores
    metrics : dict
        From :func:`darknet_face.evaluation.metrics.measure_scores`, with ``at_false_positive_rate``
        and ``robustness`` where they were measured.
    mapper : darknet_face.classify.heatmaps.FaceMapper, optional
        Makes the heat map beside each picture.
    provenance : darknet_face.evaluation.provenance.Provenance, optional
        Adds the numbers of pictures and the training curve, and makes file names relative to the
        folder of the lists.
    """
    check_report_folder(folder)
    provenance = provenance or Provenance()
    mistakes, close_calls = find_mistakes(scores, metrics["threshold"])
    data_dir = provenance.data_dir
    write_json(os.path.join(folder, "report.json"), {
        "model": model, "data_dir": None if data_dir is None else relative_to_here(data_dir),
        "figures": metrics, "pictures": {
            split: {"faces": faces, "non_faces": non_faces}
            for split, faces, non_faces in provenance.pictures},
        "history": [_without_gaps(row) for row in provenance.history],
        "mistakes": [_describe(scores, index, data_dir) for rows in mistakes for index in rows]})
    page = _page(model, scores, metrics, (mistakes, close_calls), mapper, provenance)
    with write_atomically(os.path.join(folder, "index.html"), "w", encoding="utf-8") as stream:
        stream.write(page)


def find_mistakes(scores, threshold):
    """The misclassified pictures, and those that nearly were.

    Parameters
    ----------
    scores : darknet_face.evaluation.metrics.Scores
    threshold : float

    Returns
    -------
    mistakes : (list of int, list of int)
        Positions in ``scores`` of the false positives and of the missed faces, the most confident
        first.
    close_calls : list of int
        The right answers whose probability is nearest to the threshold.
    """
    probabilities = scores.face_probabilities
    called_face = probabilities >= threshold
    is_face = scores.labels == FACE
    order = np.argsort(probabilities, kind="stable")
    false_positives = [int(i) for i in order[::-1] if called_face[i] and not is_face[i]]
    missed = [int(i) for i in order if is_face[i] and not called_face[i]]
    nearest = np.argsort(np.abs(probabilities - threshold), kind="stable")
    right = [int(i) for i in nearest if called_face[i] == is_face[i]]
    return (false_positives, missed), right[:CLOSE_CALLS]


def _without_gaps(row):
    """A row of the history without the columns that it lacks."""
    return {name: value for name, value in row.items() if not math.isnan(value)}


def _shown_name(path, data_dir):
    """A picture's name in the report: relative to the lists' folder or to the current one."""
    if data_dir is not None:
        name = relative_to_data(path, data_dir)
        if not os.path.isabs(name):
            return name
    return relative_to_here(path)


def _describe(scores, index, data_dir):
    return {"file": _shown_name(scores.paths[index], data_dir),
            "class": CLASS_NAMES[scores.labels[index]],
            "face_probability": float(scores.face_probabilities[index])}


def _page(model, scores, metrics, found, mapper, provenance):
    """The page as text; ``found`` is what :func:`find_mistakes` returned."""
    (false_positives, missed), close_calls = found
    charts = draw_charts(scores, metrics, provenance.history, provenance.epoch)
    sections = [(title, name, indices) for title, name, indices in (
        ("Non-faces taken for faces", "false-positives", false_positives),
        ("Faces missed", "missed-faces", missed),
        ("Correct, but close to the threshold", "close-calls", close_calls)) if indices]
    faces = int((scores.labels == FACE).sum())
    page = TEMPLATES.get_template("report.html.j2").render(
        model=model, metrics=metrics, faces=faces, non_faces=metrics["images"] - faces,
        rows=_metric_rows(metrics), pictures=provenance.pictures, mistakes=(
            len(false_positives), len(missed)), has_maps=bool(mapper),
        charts=[{"name": name, "caption": caption,
                 "svg": Markup(to_svg(chart, "chart-" + name, caption))}
                for name, caption, chart in charts],
        sections=[_section(*section, scores, mapper, provenance.data_dir)
                  for section in sections],
        by_source=_by_source(metrics), searched=(
            _metric_rows(metrics["search"]) if "search" in metrics else ()),
        corrupted=_robustness_rows(metrics.get("robustness", ())),
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


def _by_source(metrics):
    """The tables of mistakes by source: pairs of title and rows."""
    search = metrics.get("search", {})
    tables = (("Mistakes by source", metrics.get("by_source")),
              ("Mistakes by source, by search",
               search.get("by_source") if metrics.get("by_source") else None))
    return [(title, rows) for title, rows in tables if rows]


def _robustness_rows(rows):
    """The table of robustness: per corruption its name and the metrics of TABLE."""
    return [[row["disturbance"]] + [format_metric(row[name]) for name, _ in TABLE]
            for row in rows]


def _section(title, name, indices, scores, mapper, data_dir):
    """A section of pictures, at most MOST_MISTAKES of them."""
    shown = indices[:MOST_MISTAKES]
    tiles = []
    for index in progress(shown, desc=title, leave=False):
        path = scores.paths[index]
        tiles.append({
            "images": _draw_tile(path, mapper),
            "file": _shown_name(path, data_dir), "probability": scores.face_probabilities[index],
            "is_face": bool(scores.labels[index] == FACE)})
    return {"title": title, "name": name, "total": len(indices), "size": TILE, "tiles": tiles}


def _draw_tile(path, mapper):
    """A picture and its heat map: pairs of a description and a data URI.

    Empty if the picture was readable once and is not now.
    """
    try:
        image = read_image(path)
    except BadImage as error:
        warn("{}: {}; not shown in the report".format(path, error))
        return []
    images = [("the picture", _data_uri(scale_to(image, TILE)))]
    if mapper:
        drawn = overlay(image, mapper(image))
        images.append(("its heat map", _data_uri(scale_to(drawn, TILE))))
    return images


def _data_uri(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
