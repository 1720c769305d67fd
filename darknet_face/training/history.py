"""The history of a classifier's training: its columns, and messages about its rows.

A training from initial weights has a row 0: their own validation before any step.
"""

from __future__ import annotations

import math
import os
import typing

from darknet_face.console import UserError, warn
from darknet_face.training.history_file import HistoryFile
from darknet_face.training.mixture import describe
from darknet_face.training.settings import RUN_SETTINGS

if typing.TYPE_CHECKING:
    from darknet_face.training.settings import Settings

Row = typing.Dict[str, float]

# What row 0, the validation of initial weights before any training, lacks.
OF_TRAINING = ("learning_rate", "train_loss", "train_accuracy", "images_per_second")

HISTORY = HistoryFile(
    "a training history", "--log-dir",
    columns=(
        "epoch", "step", "learning_rate", "train_loss", "train_accuracy",
        "val_loss", "val_accuracy", "val_false_positive_rate", "val_false_negative_rate",
        "val_roc_auc", "disturbed_loss", "disturbed_accuracy", "disturbed_false_positive_rate",
        "disturbed_false_negative_rate", "disturbed_roc_auc", "images_per_second"),
    counts=("epoch", "step"),
    shares=tuple(
        prefix + name for prefix in ("train_", "val_", "disturbed_")
        for name in ("accuracy", "false_positive_rate", "false_negative_rate", "roc_auc")),
    optional=OF_TRAINING)  # fmt: skip


def read_history(path: str) -> list[Row]:
    """The rows of a history file, oldest first; none if it is not there.

    Raises
    ------
    UserError
        If it is not a history file.
    """
    rows = HISTORY.read(path)
    for row in rows:
        lacking = {column for column in OF_TRAINING if math.isnan(row[column])}
        if (row["epoch"] == 0) != (row["step"] == 0) or lacking != (
                set() if row["epoch"] else set(OF_TRAINING)):
            raise UserError("{}: not {}; move it away or choose another {}".format(
                path, HISTORY.what, HISTORY.elsewhere))
    return rows


def start_row(validation: Row) -> Row:
    """Row 0: the validation of initial weights, the columns ``val_*`` and ``disturbed_*``."""
    return dict(dict.fromkeys(OF_TRAINING, math.nan), epoch=0, step=0, **validation)


def in_words(criterion: str) -> str:
    """What a column of losses holds: ``disturbed_loss`` is the loss on augmented images."""
    return "augmented loss" if criterion == "disturbed_loss" else "validation loss"


def is_out_of_patience(rows: list[Row], criterion: str, patience: int) -> bool:
    """Whether the last ``patience`` epochs gave no better loss; 0 never is. Row 0 is an epoch."""
    if not rows or not patience:
        return False
    best = min(rows, key=lambda row: row[criterion])  # the first of equal rows
    return rows[-1]["epoch"] - best["epoch"] >= patience


def compare_with_start(rows: list[Row], best: Row, criterion: str) -> tuple[str | None, bool]:
    """What a training gave over its initial weights.

    Parameters
    ----------
    rows
        The history.
    best
        The row that was kept.
    criterion
        The column that it was chosen by.

    Returns
    -------
    message
        One line; None without a row of the initial weights or without another row.
    is_worse
        Whether the training did not help.
    """
    if len(rows) < 2 or rows[0]["epoch"] != 0:
        return None, False
    start, name = rows[0], in_words(criterion)
    if best["epoch"] == 0:
        trained = min(rows[1:], key=lambda row: row[criterion])
        return ("the training did not improve the initial weights ({} {:.4f} before, {:.4f} after "
                "epoch {:.0f} at best), so the frozen graph has the initial weights: try a lower "
                "--max-lr, more images or more epochs".format(
                    name, start[criterion], trained[criterion], trained["epoch"])), True
    text = ("{} {:.4f} and validation accuracy {:.4f} with the initial weights, {:.4f} and {:.4f} "
            "after epoch {:.0f}, which is kept").format(
        name, start[criterion], start["val_accuracy"], best[criterion], best["val_accuracy"],
        best["epoch"])
    if best["val_accuracy"] < start["val_accuracy"]:
        return text + ": the loss is better, but the accuracy is worse", True
    return text, False


def report_epoch(settings: Settings, rows: list[Row], is_best: bool) -> None:
    """Write the history and its chart, and print the last row.

    Parameters
    ----------
    settings
    rows
        The whole history.
    is_best
        Whether the last row is the best so far.
    """
    from darknet_face.training.curves import plot_history  # imports matplotlib

    HISTORY.write(os.path.join(settings.log_dir, "history.csv"), rows)
    plot_history(os.path.join(settings.log_dir, "history.png"), rows)
    text = ("epoch {epoch}/{epochs}: {trained}validation loss {val_loss:.4f}, accuracy "
            "{val_accuracy:.4f}; augmented loss {disturbed_loss:.4f}, accuracy "
            "{disturbed_accuracy:.4f}")
    trained, end = "the initial weights before training: ", ""
    if rows[-1]["epoch"]:
        trained = "loss {train_loss:.4f}, accuracy {train_accuracy:.4f}; ".format(**rows[-1])
        end = "; {images_per_second:.1f} images/s{mark}".format(
            mark=" (best)" if is_best else "", **rows[-1])
    print(text.format(epochs=settings.epochs, trained=trained, **rows[-1]) + end, flush=True)


def report_gain(settings: Settings, rows: list[Row], best: Row) -> None:
    """Print what the training gave over its initial weights; warn if it gave nothing."""
    message, is_worse = compare_with_start(rows, best, settings.best_by)
    if message:
        (warn if is_worse else print)(message)


def summarise(settings: Settings, best: Row) -> None:
    """Draw the whole training into ``training_summary.png``; ``best`` is the row that is kept."""
    from darknet_face.training.curves import plot_training_summary  # imports matplotlib

    path = os.path.join(settings.log_dir, "training_summary.png")
    history = os.path.join(settings.log_dir, "history.csv")
    rows = read_history(history)
    if not rows:
        warn("{}: has no rows; {} is not drawn".format(history, path))
        return
    options = {name: getattr(settings, name) for name in RUN_SETTINGS}
    plot_training_summary(path, rows, best, dict(options, sources=describe(settings.sources)))
    print("wrote {}".format(path))
