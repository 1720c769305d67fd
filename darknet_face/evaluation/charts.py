"""The charts of the evaluation report, as SVG that follows the theme of its page."""

from __future__ import annotations

import contextlib
import html
import io
import re
import typing
import unicodedata
import warnings

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import CalibrationDisplay

from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import printable
from darknet_face.evaluation.metrics import calibration, format_metric, format_threshold
from darknet_face.images.contact_sheets import (
    BLUE,
    CHART_STYLE,
    GREEN,
    INK,
    RED,
    hexadecimal,
    save_chart,
)

if typing.TYPE_CHECKING:
    from darknet_face.evaluation.metrics import Scores

# Colours of the SVG charts -> the page's colours, which follow its theme.
THEME = {"#000000": "currentColor", hexadecimal(INK): "currentColor",
         hexadecimal(BLUE): "var(--face)", hexadecimal(RED): "var(--non-face)",
         hexadecimal(GREEN): "var(--good)"}

WIDTH = 6.4  # inches
MOST_CATEGORIES = 15
LONGEST_NAME = 22  # columns of a category's name, in which a CJK letter takes two
LABEL_SIZE = 11  # points
CAPTIONS = {
    "confusion": "How many images of each class were assigned to each class.",
    "histogram": "How many images got which probability. A confident classifier makes two peaks "
                 "far apart.",
    "roc": "True-positive rate against false-positive rate, over all thresholds.",
    "precision-recall": "Precision (the share of faces among the images called faces) against "
                        "recall (the share of the faces that are found).",
    "reliability": "On the dashed line a probability of 0.8 is right in 8 cases of 10. Each point "
                   "has its number of images above it and a bar for its 95 % interval.",
    "categories": "The kinds of non-faces that are most often called a face, at most {}.".format(
        MOST_CATEGORIES),
    "robustness": "Mistakes when every test image is corrupted in the same way.",
    "training": "The loss per epoch. The dotted line marks the epoch whose weights the model has.",
}


def draw_charts(scores: Scores, metrics: dict[str, typing.Any],
                history: typing.Sequence[dict[str, typing.Any]] = (), epoch: int | None = None
               ) -> list[tuple[str, str, Figure]]:
    """Draw the report's charts.

    Parameters
    ----------
    scores
    metrics
        From :func:`darknet_face.evaluation.metrics.measure_scores`; ``robustness`` is drawn if it
        is there.
    history
        The rows of the training history, drawn if there are any.
    epoch
        The epoch to mark in the training curve.

    Returns
    -------
    list of (str, str, matplotlib.figure.Figure)
        Per chart a short name, a caption and the chart.
    """
    with matplotlib.rc_context(CHART_STYLE), _without_glyph_warnings():
        charts = [
            ("confusion", _chart(_draw_confusion, metrics)),
            ("histogram", _chart(_draw_histogram, scores, metrics)),
            ("roc", _chart(_draw_roc, scores, metrics)),
            ("precision-recall", _chart(_draw_precision_recall, scores, metrics)),
            ("reliability", _chart(_draw_reliability, metrics)),
        ]
        wrong = [row for row in metrics["false_positives_by_category"] if row["false_positives"]]
        if wrong:
            charts.append(("categories", _chart_categories(wrong[:MOST_CATEGORIES])))
        if metrics.get("robustness"):
            charts.append(("robustness", _chart(
                _draw_robustness, metrics["robustness"], height=6.5)))
        if history:
            charts.append(("training", _chart(_draw_training, history, epoch)))
    return [(name, CAPTIONS[name], chart) for name, chart in charts]


@contextlib.contextmanager
def _without_glyph_warnings():
    """Silence matplotlib about letters that its font lacks; browsers have other fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _chart(draw, *content, height=5):
    figure = Figure(figsize=(WIDTH, height))
    draw(figure.subplots(), *content)
    figure.tight_layout()
    return figure


def _draw_confusion(axis, metrics):
    matrix = np.array(metrics["confusion_matrix"])
    display = sklearn_metrics.ConfusionMatrixDisplay(matrix, display_labels=["face", "non-face"])
    display.plot(ax=axis, cmap="Blues", values_format=",", colorbar=False)
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    for text, share in zip(display.text_.ravel(), shares.ravel()):
        text.set(text="{}\n{:.2f} %".format(text.get_text(), 100 * share), fontsize=20)
    axis.grid(False)
    axis.set(title="Confusion matrix", xlabel="called", ylabel="actually")


def _draw_histogram(axis, scores, metrics):
    edges = np.linspace(0, 1, 21)
    for label, colour, name in ((FACE, BLUE, "faces"), (NON_FACE, RED, "non-faces")):
        axis.hist(scores.face_probabilities[scores.labels == label], edges, label=name,
                  color=hexadecimal(colour), alpha=0.55)
    axis.axvline(metrics["threshold"], color=hexadecimal(INK), linestyle="--", linewidth=1.5,
                 label="threshold {}".format(format_threshold(metrics["threshold"])))
    axis.set(title="Scores", xlabel="probability of a face", ylabel="images (log scale)",
             yscale="log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:g}".format(value)))
    axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncol=3, fontsize=12,
                columnspacing=1.2)


def _draw_roc(axis, scores, metrics):
    display = sklearn_metrics.RocCurveDisplay.from_predictions(
        scores.labels == FACE, scores.face_probabilities, ax=axis)
    least = 0.5 / (scores.labels == NON_FACE).sum()  # stands for 0, which a log scale lacks
    display.line_.set(xdata=np.maximum(display.fpr, least), drawstyle="steps-post",
                      label="this model")
    _mark_thresholds(axis, metrics, lambda point: (
        max(point["false_positive_rate"], least), point["recall"]))
    axis.set(title="ROC curve: area {}".format(format_metric(metrics["roc_auc"])), aspect="auto",
             xscale="log", xlim=(least, 1), xlabel="false-positive rate (log scale)",
             ylim=_upper_part(display.tpr[display.fpr <= least].max()),
             ylabel="true-positive rate")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:g}".format(value)))
    axis.legend(loc="lower right")


def _draw_precision_recall(axis, scores, metrics):
    is_face = scores.labels == FACE
    display = sklearn_metrics.PrecisionRecallDisplay.from_predictions(
        is_face, scores.face_probabilities, ax=axis)
    faces, non_faces = is_face.sum(), (~is_face).sum()

    def position(point):
        found = point["recall"] * faces
        return point["recall"], found / max(found + point["false_positive_rate"] * non_faces, 1)

    display.line_.set_label("this model")
    lowest = display.precision[display.recall == display.recall.max()].max()
    _mark_thresholds(axis, metrics, position)
    axis.set(title="Precision and recall: average {}".format(
        format_metric(metrics["average_precision"])), aspect="auto", xlim=(0, 1.02),
        ylim=_upper_part(lowest), xlabel="recall", ylabel="precision")
    axis.legend(loc="lower left")


def _upper_part(lowest):
    """The axis limits for a curve from ``lowest`` to 1: from 0, or closer if it stays high."""
    low = 1 - 2 * (1 - lowest)
    low = 0 if low < 0.5 else min(low, 0.9)
    return low, 1 + 0.02 * (1 - low)


def _mark_thresholds(axis, metrics, position):
    """Mark the threshold in use, and that for the target false-positive rate, on a curve."""
    points = [(metrics, INK)]
    if metrics.get("at_false_positive_rate", {}).get("threshold") is not None:
        points.append((metrics["at_false_positive_rate"], GREEN))
    for point, colour in points:
        axis.plot(*position(point), "o", markersize=10, color=hexadecimal(colour), zorder=3,
                  clip_on=False, label="threshold " + format_threshold(point["threshold"]))


def _draw_reliability(axis, metrics):
    bins = metrics["calibration"]["bins"]
    means, shares = ([row[name] for row in bins] for name in ("mean_probability", "face_share"))
    display = CalibrationDisplay(np.array(shares), np.array(means), None).plot(ax=axis)
    display.line_.set_linestyle("")
    axis.vlines(means, *zip(*[row["face_share_interval"] for row in bins]), alpha=0.5,
                color=hexadecimal(BLUE))
    for row in bins:
        axis.text(row["mean_probability"], 1.03, "{:,}".format(row["images"]), ha="center",
                  fontsize=12)
    axis.get_legend().remove()
    axis.set_title("Calibration: mean error {:.4f}".format(
        metrics["calibration"]["expected_calibration_error"]), pad=24)
    axis.set(aspect="auto", xlim=(0, 1), ylim=(0, 1), ylabel="share of faces in the bin",
             xlabel="probability of a face (mean of a bin)")


def save_reliability(path: str, is_face: np.ndarray, face_probabilities: np.ndarray) -> None:
    """Draw how often images with a probability show a face; writes a picture.

    The other parameters are those of :func:`darknet_face.evaluation.metrics.calibration`.
    """
    metrics = {"calibration": calibration(is_face, face_probabilities)}
    with matplotlib.rc_context(CHART_STYLE):
        save_chart(path, _chart(_draw_reliability, metrics), 110)


def _chart_categories(rows):
    """The chart of the categories, with room for their names."""
    names = ["{} ({:,} of {:,})".format(
        shorten(printable(row["category"]), LONGEST_NAME), row["false_positives"], row["images"])
        for row in rows]
    figure = _chart(_draw_categories, rows, names)
    # Browsers draw CJK letters wider than matplotlib measures them.
    widest = max(map(display_width, names)) * 0.5 * LABEL_SIZE + 20
    figure.subplots_adjust(left=max(figure.subplotpars.left, widest / (72 * WIDTH)))
    return figure


def display_width(text: str) -> int:
    """The width of a text in columns of a terminal; CJK letters take two."""
    return sum(0 if unicodedata.combining(each) else
               2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def shorten(text: str, columns: int) -> str:
    """A text of at most so many columns, its middle replaced by an ellipsis if it is longer."""
    if display_width(text) <= columns:
        return text
    head, tail = text, text
    while display_width(head) > (columns - 1) // 2:
        head = head[:-1]
    while display_width(tail) > columns - 1 - display_width(head):
        tail = tail[1:]
    return head + "\u2026" + tail


def _draw_categories(axis, rows, names):
    axis.barh(range(len(rows)), [row["rate"] for row in rows], color=hexadecimal(RED), alpha=0.8)
    axis.set_yticks(range(len(rows)))
    # Matplotlib would typeset text between dollars as a formula.
    axis.set_yticklabels([name.replace("$", r"\$") for name in names], fontsize=LABEL_SIZE)
    axis.set_ylim(max(len(rows), 4) - 0.5, -0.5)
    axis.set_title("False positives by category", loc="right")  # over the labels if there is need
    axis.set_xlabel("false-positive rate", loc="right")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: "{:g} %".format(100 * share)))


def _draw_robustness(axis, rows):
    names = [row["disturbance"] for row in rows]
    places = np.arange(len(rows))
    for name, colour, title, shift in (
            ("false_negative_rate", BLUE, "false negatives", -0.2),
            ("false_positive_rate", RED, "false positives", 0.2)):
        axis.barh(places + shift, [row[name] for row in rows], 0.36, color=hexadecimal(colour),
                  label=title)
    axis.set_yticks(places)
    axis.set_yticklabels(names, fontsize=11)
    axis.invert_yaxis()
    axis.set(title="Corrupted images", xlabel="share of the class")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: "{:g} %".format(100 * share)))
    axis.legend(loc="upper center", bbox_to_anchor=(0.35, -0.14), ncol=2, fontsize=12)


def _draw_training(axis, rows, epoch):
    epochs = [row["epoch"] for row in rows]
    for column, colour, name in (("train_loss", BLUE, "training"), ("val_loss", RED, "validation"),
                                 ("disturbed_loss", GREEN, "validation, augmented")):
        axis.plot(epochs, [row[column] for row in rows], marker="o", markersize=4,
                  color=hexadecimal(colour), label=name)
    axis.axvline(epoch, color=hexadecimal(INK), linestyle=":", linewidth=1.5)
    axis.set(title="Training", xlabel="epoch", ylabel="loss (log scale)", yscale="log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncol=3, fontsize=12,
                columnspacing=1.2)


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Convert a chart into an ``svg`` element for a page.

    Its colours follow the page's theme and its text stays text. Its identifiers begin with
    ``name``, so that several charts fit into one page.

    Parameters
    ----------
    figure
    name
        Unique within the page.
    description
        For screen readers.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), \
            _without_glyph_warnings():
        figure.savefig(stream, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    start = r'<svg \1 role="img" aria-label="{}">'.format(html.escape(description))
    svg = re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', start, svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', r"\g<1>{}-".format(name), svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1sans-serif", svg)
    for colour, theme in THEME.items():
        svg = svg.replace(colour, theme)
    return svg
