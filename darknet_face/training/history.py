"""The training history: ``history.csv`` with a row per validated epoch, and its charts.

A training from given weights has a row 0: their own validation before any step.
"""

from __future__ import annotations

import csv
import math
import os

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from darknet_face.console import UserError, warn
from darknet_face.images.contact_sheets import CHART_STYLE, GREY, PAPER, hexadecimal
from darknet_face.runtime.atomic_files import temporary_path, write_atomically
from darknet_face.runtime.safe_files import check_replaceable, open_regular, starts_with
from darknet_face.training.mixture import describe
from darknet_face.training.settings import RUN_SETTINGS

COLUMNS = (
    "epoch", "step", "learning_rate", "train_loss", "train_accuracy",
    "val_loss", "val_accuracy", "val_false_positive_rate", "val_false_negative_rate",
    "val_roc_auc", "disturbed_loss", "disturbed_accuracy", "disturbed_false_positive_rate",
    "disturbed_false_negative_rate", "disturbed_roc_auc", "images_per_second",
)  # fmt: skip


# What row 0 lacks: the validation of start weights before any training. NaN in memory, empty in the
# file.
OF_TRAINING = ("learning_rate", "train_loss", "train_accuracy", "images_per_second")

LARGEST = 1e39  # beyond what a float32 can be: a figure above it is damaged
SHARES = ("accuracy", "positive_rate", "negative_rate", "roc_auc")  # columns of 0..1 end with these


def is_plausible(column, value):
    """Whether a number read from a file can stand in a column of the history."""
    if type(value) not in (int, float):
        return False
    if column in ("epoch", "step"):
        return 0 <= value < 1 << 53 and value == int(value)
    return 0 <= value <= (1 if column.endswith(SHARES) else LARGEST)


def read_history(path):
    """The rows of a history file, oldest first; none if it is not there.

    Returns
    -------
    list of dict of str to float

    Raises
    ------
    UserError
        If it is not a history file.
    """
    try:
        with open_regular(path, "r", newline="", encoding="utf-8") as stream:
            rows = [_parse_row(row) for row in csv.DictReader(stream)]
        steps = [row["step"] for row in rows]
        if steps != sorted(set(steps)):
            raise ValueError("steps out of order")
        return rows
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError("{}: {}; move it away or choose another --log-dir".format(
            path, error.strerror))
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError("{}: not a training history; move it away or choose another "
                        "--log-dir".format(path))


def check_history(path):
    """Check that writing the history does not replace another file; raises UserError."""
    check_replaceable(path, lambda _: starts_with(path, ",".join(COLUMNS)), "a training history")


def _parse_row(cells):
    """A row of numbers from a row of text; raises ValueError if one is out of range."""
    before_training = cells["epoch"] == "0"
    row = {}
    for column in COLUMNS:
        if before_training and column in OF_TRAINING:
            if cells[column]:
                raise ValueError("nothing is trained in epoch 0")
            row[column] = math.nan
        else:
            row[column] = float(cells[column])
            if not is_plausible(column, row[column]):
                raise ValueError("{} is out of range".format(column))
    if (row["epoch"] == 0) != (row["step"] == 0):
        raise ValueError("epoch 0 is step 0")
    return row


def write_history(path, rows):
    """Write the whole history; a kill leaves the old file or the new one."""
    with write_atomically(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in rows:
            row = {name: "" if math.isnan(value) else value for name, value in row.items()}
            writer.writerow(dict(row, epoch=int(row["epoch"]), step=int(row["step"])))


def start_row(validation):
    """The first row of a training from given weights: their validation before any step.

    Parameters
    ----------
    validation : dict of str to float
        The columns ``val_*`` and ``disturbed_*``.
    """
    return dict(dict.fromkeys(OF_TRAINING, math.nan), epoch=0, step=0, **validation)


def is_out_of_patience(rows, criterion, patience):
    """Whether the last ``patience`` epochs gave no better loss. Row 0 counts as an epoch.

    Parameters
    ----------
    rows : list of dict
        The history so far.
    criterion : str
        The column to judge by; the first of equal rows is the best.
    patience : int
        0 is for ever.
    """
    if not rows or not patience:
        return False
    best = min(rows, key=lambda row: row[criterion])
    return rows[-1]["epoch"] - best["epoch"] >= patience


def compare_with_start(rows, best, criterion):
    """What a training gave over the weights that it started from, in one line.

    Parameters
    ----------
    rows : list of dict
        The history.
    best : dict
        The row that was kept.
    criterion : str
        What it was chosen by.

    Returns
    -------
    message : str or None
        None if the history has no row of the start weights, or no other.
    is_worse : bool
        Whether the training did not help.
    """
    if len(rows) < 2 or rows[0]["epoch"] != 0:
        return None, False
    start, name = rows[0], criterion.replace("_", " ")
    if best["epoch"] == 0:
        trained = min(rows[1:], key=lambda row: row[criterion])
        return ("the training made the start weights no better ({} {:.4f} before, {:.4f} after "
                "epoch {:.0f} at best), so the frozen graph has the start weights: try a lower "
                "--max-lr, more pictures or more epochs".format(
                    name, start[criterion], trained[criterion], trained["epoch"])), True
    text = ("{} {:.4f} and validation accuracy {:.4f} with the start weights, {:.4f} and {:.4f} "
            "after epoch {:.0f}, which is kept").format(
        name, start[criterion], start["val_accuracy"], best[criterion], best["val_accuracy"],
        best["epoch"])
    if best["val_accuracy"] < start["val_accuracy"]:
        return text + ": the loss is better, but the accuracy is worse", True
    return text, False


def report_epoch(settings, rows, is_best):
    """Write the history and its chart, and print the last row.

    Parameters
    ----------
    settings : Settings
    rows : list of dict
        The whole history.
    is_best : bool
        Whether the last row is the best so far.
    """
    write_history(os.path.join(settings.log_dir, "history.csv"), rows)
    plot_history(os.path.join(settings.log_dir, "history.png"), rows)
    text = ("epoch {epoch}/{epochs}: {trained}validation loss {val_loss:.4f}, accuracy "
            "{val_accuracy:.4f}; augmented loss {disturbed_loss:.4f}, accuracy "
            "{disturbed_accuracy:.4f}")
    trained, end = "the start weights before training: ", ""
    if rows[-1]["epoch"]:
        trained = "loss {train_loss:.4f}, accuracy {train_accuracy:.4f}; ".format(**rows[-1])
        end = "; {images_per_second:.1f} images/s{mark}".format(
            mark=" (best)" if is_best else "", **rows[-1])
    print(text.format(epochs=settings.epochs, trained=trained, **rows[-1]) + end, flush=True)


def report_gain(settings, rows, best):
    """Print what the training gave over its start weights; warn if it gave nothing."""
    message, is_worse = compare_with_start(rows, best, settings.best_by)
    if is_worse:
        warn(message)
    elif message:
        print(message)


def summarise(settings, best):
    """Draw the whole training into ``training_summary.png``.

    Parameters
    ----------
    settings : Settings
    best : dict
        The row of the epoch that was frozen.
    """
    path = os.path.join(settings.log_dir, "training_summary.png")
    history = os.path.join(settings.log_dir, "history.csv")
    rows = read_history(history)
    if not rows:
        warn("{}: has no rows; {} is not drawn".format(history, path))
        return
    plot_training_summary(
        path, rows, best,
        dict({name: getattr(settings, name) for name in RUN_SETTINGS},
             sources=describe(settings.sources)))
    print("wrote {}".format(path))


LOSS = (("train_loss", "training"), ("val_loss", "validation"),
        ("disturbed_loss", "validation, augmented"))
ACCURACY = (("train_accuracy", "training"), ("val_accuracy", "validation"),
            ("disturbed_accuracy", "validation, augmented"))


def plot_history(path, rows):
    """Draw loss, accuracy and learning rate over the epochs.

    Parameters
    ----------
    path : str
        The picture to write.
    rows : list of dict
        As :func:`read_history` gives them.
    """
    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(16.5, 5))
        _draw_curves(figure.subplots(1, 3), rows)
        _save(figure, path)


def plot_training_summary(path, rows, best, settings):
    """Draw a finished training: curves, error rates, settings and the epoch that was kept.

    Parameters
    ----------
    path : str
        The picture to write.
    rows : list of dict
        As :func:`read_history` gives them.
    best : dict
        The row of the epoch that was frozen.
    settings : dict
        Options of the run by name.
    """
    with matplotlib.rc_context(CHART_STYLE):
        figure = Figure(figsize=(16.5, 10))
        axes = figure.subplots(2, 3)
        _draw_curves(axes[0], rows)
        _draw_lines(axes[1][0], rows, "mistakes on validation", (
            ("val_false_negative_rate", "faces missed"),
            ("val_false_positive_rate", "non-faces let through")))
        _draw_lines(axes[1][1], rows, "mistakes, augmented", (
            ("disturbed_false_negative_rate", "faces missed"),
            ("disturbed_false_positive_rate", "non-faces let through")))
        for axis in axes[1][:2]:
            axis.set_ylim(bottom=0)
        for axis in (axes[0][0], axes[0][1], axes[1][0], axes[1][1]):
            axis.axvline(best["epoch"], color=hexadecimal(GREY), linestyle=":")
        _write_facts(axes[1][2], rows, best, settings)
        _save(figure, path)


def plot_range_test(path, rows):
    """Draw accuracy and loss over the learning rate, each batch and a moving mean.

    Parameters
    ----------
    path : str
        The picture to write.
    rows : numpy.ndarray
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


def _draw_curves(axes, rows):
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


def _draw_lines(axis, rows, title, curves):
    epochs = [row["epoch"] for row in rows]
    for column, label in curves:
        axis.plot(epochs, [row[column] for row in rows], marker="o", label=label)
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    # If no corner is free the legend covers the curves, so its words stay readable.
    axis.legend(frameon=True, facecolor=hexadecimal(PAPER), edgecolor="none", framealpha=0.85)


def _write_facts(axis, rows, best, settings):
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


def _save(figure, path):
    figure.tight_layout()
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with temporary_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
