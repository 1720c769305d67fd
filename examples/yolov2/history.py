"""What a training has measured: ``history.csv`` with a row per validation, and its chart."""

import csv
import os

import matplotlib
from matplotlib.figure import Figure

from pictures.sheets import CHART_STYLE, save_chart
from runtime.files import write_atomically
from utils import UserError

# The loss and its parts are means since the row before; see loss.py. ap40, ap50: 0..1.
COLUMNS = ("step", "learning_rate", "total", "place", "size", "object", "no_object", "iou",
           "ap40", "ap50", "images_per_second")


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
    if not os.path.exists(path):
        return []
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = [{column: float(row[column]) for column in COLUMNS}
                    for row in csv.DictReader(stream)]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError("{}: not a history of this training; move it away or use --restart".format(
            path))
    return [row for row in rows if row["step"] <= last_step]


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
        figure = Figure(figsize=(7, 4))
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
        axes.legend()
        figure.tight_layout()
        save_chart(path, figure, 110)
