"""What a training has measured: ``history.csv`` with a row per validation, and its chart."""

from __future__ import annotations

from darknet_face.images.contact_sheets import CHART_STYLE, save_chart
from darknet_face.training.history_file import HistoryFile

# The loss and its parts are means since the row before; see loss.py.
HISTORY = HistoryFile(
    "a history of this training", "--run-dir",
    columns=("step", "learning_rate", "total", "place", "size", "object", "no_object", "iou",
             "ap40", "ap50", "images_per_second"),
    counts=("step",), shares=("ap40", "ap50", "iou"),
    optional=("ap40", "ap50"))  # there was no face  # fmt: skip


def read_history(path: str, last_step: float) -> list[dict[str, float]]:
    """The rows up to a step, oldest first; none if there is no file. See HistoryFile.read."""
    return [row for row in HISTORY.read(path) if row["step"] <= last_step]


def plot_precision(path: str, curves: list[tuple[str, str, list[dict[str, float]]]], title: str
                   ) -> None:
    """Draw AP50 over the steps of several trainings, and AP40 as a dotted line.

    Parameters
    ----------
    path
        The image to write.
    curves
        Label, matplotlib colour and rows of each training. Trainings of one label share a line in
        the legend.
    title
    """
    import matplotlib
    from matplotlib.figure import Figure

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
