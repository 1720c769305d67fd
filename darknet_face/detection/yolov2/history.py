"""What a training has measured: ``history.csv`` with a row per validation, and its chart."""

from __future__ import annotations

from darknet_face.images.contact_sheets import BLUE, CHART_STYLE, hexadecimal, save_chart
from darknet_face.training.history_file import HistoryFile

# The loss and its parts are means since the row before; see loss.py.
HISTORY = HistoryFile(
    "a history of this training", "--run-dir",
    columns=("step", "learning_rate", "total", "place", "size", "object", "no_object", "iou",
             "ap40", "ap50", "images_per_second"),
    counts=("step",), shares=("ap40", "ap50", "iou"),
    optional=("ap40", "ap50"))  # there was no face  # fmt: skip


def plot_precision(path: str, rows: list[dict[str, float]]) -> None:
    """Draw AP50 over the steps of a training, and AP40 as a dotted line, into an image file."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(7, 4.6))
        axes = figure.add_subplot(1, 1, 1)
        steps = [row["step"] for row in rows]
        for column, name, style in (("ap50", "AP at IoU 0.5", "-"), ("ap40", "IoU 0.4", ":")):
            axes.plot(steps, [row[column] for row in rows], style, color=hexadecimal(BLUE),
                      label="validation, " + name)
        axes.set(title="Detector", xlabel="training step", ylabel="average precision")
        axes.set_ylim(bottom=0)
        # Below the chart: inside it would lie on the curves.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=2, fontsize=11)
        figure.tight_layout()
        save_chart(path, figure, 110)
