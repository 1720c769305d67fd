"""What is known about a model for its report: its images and its training."""

from __future__ import annotations

import collections
import contextlib
import math
import operator
import os

from darknet_face.console import UserError
from darknet_face.images.file_lists import LISTS, load_list
from darknet_face.runtime.safe_files import read_json
from darknet_face.training.history import read_history

Provenance = collections.namedtuple(
    "Provenance", "data_dir pictures history epoch", defaults=(None, (), (), None))
Provenance.__doc__ = """What is known of a model.

Parameters
----------
data_dir : str, optional
    The folder with the file lists. The report names files relative to it.
images : sequence of (str, int, int)
    Per split its name, its number of faces and its number of non-faces.
history : sequence of dict
    The rows of the training history, see :func:`darknet_face.training.history.read_history`.
epoch : int, optional
    The epoch whose weights the model has.
"""


def find_provenance(model: str, data_dir: str | None = None, log_dir: str | None = None,
                    tested: tuple[int, int] | None = None) -> Provenance:
    """Collect what is known of a model. What is missing or damaged is skipped.

    Parameters
    ----------
    model
        The file of the frozen graph or of the weights.
    data_dir
        The folder with the file lists.
    log_dir
        The folder with ``history.csv``; absent, the one that train.py noted, or ``logs``.
    tested
        How many faces and non-faces the model is measured on.
    """
    records = [(path, _training_record(path)) for path in (
        os.path.splitext(model)[0] + ".json",
        os.path.join(os.path.dirname(model), "darknet19_frozen.json"))]
    path, record = next((each for each in records if each[1]), (None, {}))
    history, epoch = _history_of(record, log_dir or _noted_log_dir(path, record))
    return Provenance(data_dir, _count_pictures(record, data_dir, tested), history, epoch)


def _count_pictures(record, data_dir, tested):
    """Per split its name and its numbers of faces and of non-faces.

    Those that the model was trained on, as train.py noted them; otherwise those in the file lists.
    """
    noted = record.get("pictures")
    counts = []
    for split, names in LISTS.items():
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
            if split == "test" and tested:
                faces, non_faces = tested
            elif isinstance(noted, dict) and split != "test":
                faces, non_faces = (operator.index(each) for each in noted[split])
            elif data_dir is not None:
                faces, non_faces = (
                    len(load_list(os.path.join(data_dir, name))) for name in names)
            else:
                continue
            counts.append((split, faces, non_faces))
    return counts


def _noted_log_dir(path, record):
    noted = record.get("log_dir")
    return os.path.join(os.path.dirname(path), noted) if isinstance(noted, str) else "logs"


def _history_of(record, log_dir):
    """The training history and the epoch of a model, if the logs are of its training.

    train.py writes the step, the epoch and the validation metrics of the weights that it keeps
    into a JSON beside the frozen graph. They must be in the history.
    """
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
        rows = read_history(os.path.join(log_dir, "history.csv"))
        if any(_is_row_of(row, record) for row in rows):
            return rows, record["epoch"]
    return (), None


def _training_record(path):
    """The record that train.py wrote beside the frozen graph; empty if it is none."""
    with contextlib.suppress(UserError):
        record = read_json(path)
        if isinstance(record.get("validation"), dict):
            return record
    return {}


def _is_row_of(row, record):
    return row["step"] == record["step"] and all(
        math.isclose(row[name], value, rel_tol=1e-6, abs_tol=1e-9)
        for name, value in record["validation"].items() if name in row)
