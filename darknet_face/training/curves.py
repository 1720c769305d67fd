"""The charts of a training: loss, accuracy and learning rate."""

from __future__ import annotations

import typing

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from darknet_face.images.contact_sheets import CHART_STYLE, GREY, PAPER, hexadecimal, save_chart

Row = typing.Dict[str, float]  # of the history

LOSS = (("train_loss", "training"), ("val_loss", "validation"),
        ("disturbed_loss", "validation, augmented"))
ACCURACY = (("train_accuracy", "training"), ("val_accuracy", "validation"),
            ("disturbed_accuracy", "validation, augmented"))


def plot_history(path: str, rows: list[Row]) -> None:
    """Draw loss, accuracy and learning rate over the epochs into a PNG."""
    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(16.5, 5))
        _draw_curves(figure.subplots(1, 3), rows)
        _save(figure, path)


def plot_training_summary(
        path: str, rows: list[Row], best: Row, settings: dict[str, typing.Any]) -> None:
    """Draw a finished training into a PNG: curves, error rates, settings, the epoch kept.

    Parameters
    ----------
    path
    rows
        The history.
    best
        The row of the epoch that was frozen.
    settings
        Options of the run by name.
    """
    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(16.5, 10))
        axes = figure.subplots(2, 3)
        _draw_curves(axes[0], rows)
        _draw_lines(axes[1][0], rows, "mistakes, validation", (
            ("val_false_negative_rate", "false negatives"),
            ("val_false_positive_rate", "false positives")))
        _draw_lines(axes[1][1], rows, "mistakes, augmented", (
            ("disturbed_false_negative_rate", "false negatives"),
            ("disturbed_false_positive_rate", "false positives")))
        for axis in axes[1][:2]:
            axis.set_ylim(bottom=0)
        for axis in (axes[0][0], axes[0][1], axes[1][0], axes[1][1]):
            axis.axvline(best["epoch"], color=hexadecimal(GREY), linestyle=":")
        _write_facts(axes[1][2], rows, best, settings)
        _save(figure, path)


def plot_range_test(path: str, rows: np.ndarray) -> None:
    """Draw accuracy and loss over the learning rate into a PNG: each batch and a moving mean.

    Parameters
    ----------
    path
    rows
        [steps, 3]: learning rate, loss and accuracy of each batch, the rates rising.
    """
    width = max(1, len(rows) // 20)
    middle = (width - 1) // 2  # a mean is drawn at the middle of its batches
    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(11, 8))
        axes = figure.subplots(2, sharex=True)
        for axis, column, title in zip(axes, (2, 1), ("accuracy", "loss")):
            smooth = np.convolve(rows[:, column], np.ones(width) / width, "valid")
            axis.plot(rows[:, 0], rows[:, column], alpha=0.3, linewidth=1.5, label="each batch")
            axis.plot(rows[middle:middle + len(smooth), 0], smooth,
                      label="mean of {} batches".format(width))
            axis.set(title=title)
            axis.legend()
        axes[1].set(xlabel="learning rate")
        axes[1].ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        _save(figure, path)


def _draw_curves(axes: typing.Sequence[typing.Any], rows: list[Row]) -> None:
    _draw_lines(axes[0], rows, "loss", LOSS)
    _draw_lines(axes[1], rows, "accuracy", ACCURACY)
    _draw_lines(axes[2], rows, "learning rate", (("learning_rate", "at each epoch's end"),))
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:g}".format(value)))
    axes[0].yaxis.set_minor_locator(NullLocator())
    highest = max([row["learning_rate"] for row in rows if row["epoch"]], default=0)
    axes[2].set_ylim(0, 1.25 * highest or 1)
    axes[2].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _draw_lines(axis: typing.Any, rows: list[Row], title: str,
                curves: typing.Iterable[tuple[str, str]]) -> None:
    epochs = [row["epoch"] for row in rows]
    for column, label in curves:
        axis.plot(epochs, [row[column] for row in rows], marker="o", label=label)
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    # If no corner is free the legend covers the curves, so its words stay readable.
    axis.legend(frameon=True, facecolor=hexadecimal(PAPER), edgecolor="none", framealpha=0.85)


def _write_facts(
        axis: typing.Any, rows: list[Row], best: Row, settings: dict[str, typing.Any]) -> None:
    axis.axis("off")
    lines = [
        "epoch {:.0f} of {:.0f} was kept (dotted line)".format(best["epoch"], rows[-1]["epoch"])]
    lines += ["{} accuracy {:.4f}".format(title, best[column])
              for title, column in (("validation", "val_accuracy"),
                                    ("augmented", "disturbed_accuracy")) if column in best]
    if rows[-1]["epoch"]:
        lines.append("{:.1f} images/s in the last epoch".format(rows[-1]["images_per_second"]))
    lines += ["{} {}".format(name.replace("_", " "), value) for name, value in settings.items()]
    axis.set_title("the run")
    axis.text(0.02, 0.97, "\n".join(lines), va="top", fontsize=13, linespacing=1.35)


def _save(figure: Figure, path: str) -> None:
    figure.tight_layout()
    save_chart(path, figure, 100)
