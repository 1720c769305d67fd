"""The training history: one row an epoch in ``history.csv``, and a picture drawn from it."""

import csv
import os

from utils import UserError, temporary_path, write_atomically

COLUMNS = (
    "epoch", "step", "learning_rate", "train_loss", "train_accuracy",
    "val_loss", "val_accuracy", "val_false_positive_rate", "val_false_negative_rate",
    "val_roc_auc", "disturbed_loss", "disturbed_accuracy", "disturbed_false_positive_rate",
    "disturbed_false_negative_rate", "disturbed_roc_auc", "images_per_second",
)  # fmt: skip


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
    if not os.path.exists(path):
        return []
    try:
        with open(path, newline="") as stream:
            return [{column: float(row[column]) for column in COLUMNS}
                    for row in csv.DictReader(stream)]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError("{}: not a training history; move it away or choose another "
                        "--log-dir".format(path))


def write_history(path, rows):
    """Write the whole history anew, so that a kill leaves the old one or the new one."""
    with write_atomically(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(dict(row, epoch=int(row["epoch"]), step=int(row["step"])))


def plot_history(path, rows):
    """Draw loss, accuracy and learning rate over the epochs.

    Parameters
    ----------
    path : str
        The picture to write.
    rows : list of dict
        As :func:`read_history` gives them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = [row["epoch"] for row in rows]
    panels = (
        ("loss", (("train_loss", "training"), ("val_loss", "validation"),
                  ("disturbed_loss", "validation, disturbed"))),
        ("accuracy", (("train_accuracy", "training"), ("val_accuracy", "validation"),
                      ("disturbed_accuracy", "validation, disturbed"))),
        ("learning rate", (("learning_rate", "at the epoch's end"),)),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 4.5))
    for axis, (title, curves) in zip(axes, panels):
        for column, label in curves:
            axis.plot(epochs, [row[column] for row in rows], marker="o", label=label)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    axes[2].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    figure.tight_layout()
    with temporary_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
