"""What a training has measured: ``history.csv`` with a row per validation, and its chart."""

from __future__ import annotations

import csv
import math

import matplotlib
from matplotlib.figure import Figure

from darknet_face.console import UserError
from darknet_face.images.contact_sheets import CHART_STYLE, save_chart
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import check_replaceable, open_regular, starts_with

# The loss and its parts are means since the row before; see loss.py. ap40, ap50: 0..1.
COLUMNS = ("step", "learning_rate", "total", "place", "size", "object", "no_object", "iou",
           "ap40", "ap50", "images_per_second")
LARGEST = 1e39  # beyond what a float32 can be


def read_history(path, last_step):
    """The rows up to a step, oldest first; none if there is no file.

    Returns
    -------
    list of dict of str to float

    Raises
    ------
    UserError
        If it is another file.
    """
    try:
        with open_regular(path, "r", newline="", encoding="utf-8") as stream:
            rows = [_parse_row(row) for row in csv.DictReader(stream)]
        steps = [row["step"] for row in rows]
        if steps != sorted(set(steps)):
            raise ValueError("steps out of order")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError("{}: {}; move it away".format(path, error.strerror))
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError("{}: not a history of this training; move it away, or choose another "
                        "--run-dir".format(path))
    return [row for row in rows if row["step"] <= last_step]


def _parse_row(cells):
    """A row of numbers from a row of text; raises ValueError if one is out of range."""
    row = {column: float(cells[column]) for column in COLUMNS}
    for column, value in row.items():
        unknown = column in ("ap40", "ap50") and math.isnan(value)  # there was no face
        if not unknown and not 0 <= value <= (1 if column in ("ap40", "ap50", "iou") else LARGEST):
            raise ValueError("{} is out of range".format(column))
    if row["step"] != int(row["step"]):
        raise ValueError("a part of a step")
    return row


def check_history(path):
    """Check that writing the history does not replace another file; raises UserError."""
    check_replaceable(path, lambda _: starts_with(path, ",".join(COLUMNS)),
                      "a history of this training")


def write_history(path, rows):
    with write_atomically(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(dict(row, step=int(row["step"])) for row in rows)


def plot_precision(path, curves, title):
    """Draw AP50 over the steps of several trainings, and AP40 as a dotted line.

    Parameters
    ----------
    path : str
        The picture to write.
    curves : list of (str, str, list of dict)
        Label, matplotlib colour and rows of each training. Trainings of one label share a line in
        the legend.
    title : str
    """
    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(7, 4.6))
        axes, labelled = figure.add_subplot(1, 1, 1), set()
        for label, colour, rows in curves:
            steps = [row["step"] for row in rows]
            for column, name, style in (("ap50", "AP at IoU 0.5", "-"), ("ap40", "IoU 0.4", ":")):
                text = "{}, {}".format(label, name)
                axes.plot(steps, [row[column] for row in rows], style, color=colour,
                          label=None if text in labelled else text)
                labelled.add(text)
        axes.set(title=title, xlabel="training step", ylabel="average precision")
        axes.set_ylim(bottom=0)
        # Below the chart: inside it would lie on the curves.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=2, fontsize=11)
        figure.tight_layout()
        save_chart(path, figure, 110)
