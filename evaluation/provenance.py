"""What is known of a model for its report: its pictures, and the training that it comes from."""

import collections
import contextlib
import math
import os

from pictures.lists import LISTS, load_list
from training.history import read_history
from utils import UserError, read_json

Provenance = collections.namedtuple(
    "Provenance", "data_dir pictures history epoch", defaults=(None, (), (), None))
Provenance.__doc__ = """What is known of a model.

Parameters
----------
data_dir : str, optional
    The folder with the file lists. The report names files relative to it.
pictures : sequence of (str, int, int)
    Per split its name, its number of faces and its number of non-faces.
history : sequence of dict
    The rows of the training history, see :func:`training.history.read_history`.
epoch : int, optional
    The epoch whose weights the model has.
"""


def find_provenance(model, data_dir, log_dir):
    """Collect what is known of a model. What is missing or damaged is left out.

    Parameters
    ----------
    model : str
        The file of the frozen graph or of the weights.
    data_dir : str
        The folder with the file lists.
    log_dir : str
        The folder with ``history.csv``.

    Returns
    -------
    Provenance
    """
    history, epoch = _history_of(model, log_dir)
    return Provenance(data_dir, _count_pictures(data_dir), history, epoch)


def _count_pictures(data_dir):
    counts = []
    for split, names in LISTS.items():
        with contextlib.suppress(UserError):
            counts.append((split,) + tuple(
                len(load_list(os.path.join(data_dir, name))) for name in names))
    return counts


def _history_of(model, log_dir):
    """The training history and the epoch of a model, if the logs are of its training.

    train.py writes the step, the epoch and the validation figures of the weights that it keeps
    into a JSON beside the frozen graph. They must stand in the history.
    """
    records = (os.path.splitext(model)[0] + ".json",
               os.path.join(os.path.dirname(model), "darknet19_frozen.json"))
    with contextlib.suppress(UserError, KeyError, TypeError):
        rows = read_history(os.path.join(log_dir, "history.csv"))
        record = next(filter(None, map(_training_record, records)), None)
        if record and any(_is_row_of(row, record) for row in rows):
            return rows, record["epoch"]
    return (), None


def _training_record(path):
    with contextlib.suppress(UserError):
        record = read_json(path)
        return record if "validation" in record else None


def _is_row_of(row, record):
    return row["step"] == record["step"] and all(
        math.isclose(row[name], value, rel_tol=1e-6, abs_tol=1e-9)
        for name, value in record["validation"].items() if name in row)
