"""The folder of a detector's training: its settings, its newest checkpoint, its history.

Both detectors are trained in such a folder, so that both resume in the same way.
"""

from __future__ import annotations

import json
import os
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_replaceable, is_json_with, read_json
from darknet_face.runtime.session import tf
from darknet_face.training.history_file import HistoryFile
from darknet_face.training.summaries import EventLog
from darknet_face.weights.checkpoints import keep_only, newest_checkpoint, save_checkpoint

AGAIN = "begin again with --restart"

Rows = typing.List[typing.Dict[str, float]]


class RunFolder:
    """What a training keeps, in ``settings.json``, ``checkpoints/`` and ``history.csv``.

    Parameters
    ----------
    folder
    history
        The columns of ``history.csv``.
    """

    def __init__(self, folder: str, history: HistoryFile) -> None:
        self.folder = folder
        self._history = history
        self._settings = os.path.join(folder, "settings.json")
        self._checkpoints = os.path.join(folder, "checkpoints")
        self._rows = os.path.join(folder, "history.csv")

    def check(self, known: typing.Sequence[str]) -> None:
        """Check that it holds nothing but an earlier training; raises UserError.

        ``known`` are settings that only such a training has.
        """
        check_replaceable(self._settings, lambda path: is_json_with(path, known),
                          "a record of this training")
        self._history.check(self._rows)
        if os.path.exists(os.path.join(self._checkpoints, "settings.json")):
            raise UserError("{}: a classifier is trained there; choose another --run-dir".format(
                self.folder))

    def newest(self, bound: dict[str, typing.Any]) -> tuple[str | None, dict[str, typing.Any]]:
        """The newest checkpoint, None without one, and the settings that it was made with.

        Raises
        ------
        UserError
            If one of the settings ``bound`` was another.
        """
        checkpoint = newest_checkpoint(self._checkpoints)
        if not checkpoint:
            return None, {}
        stored = read_json(self._settings, AGAIN)
        for name, value in json.loads(json.dumps(bound)).items():  # a tuple is a list there
            if stored.get(name) != value:
                raise UserError("{}: made with {} {}, not {}; use the same, another --run-dir, or "
                                "{}".format(self.folder, name.replace("_", "-"),
                                            str(stored.get(name))[:60], str(value)[:60], AGAIN))
        return checkpoint, stored

    def begin(self, settings: dict[str, typing.Any]) -> None:
        """Remove the checkpoints of an earlier training, and store the settings of this one."""
        os.makedirs(self._checkpoints, exist_ok=True)
        keep_only(self._checkpoints, ())
        write_json(self._settings, settings)

    def rows(self, step: int) -> Rows:
        """The history up to a step, oldest row first."""
        return [row for row in self._history.read(self._rows) if row["step"] <= step]

    def save(self, saver: typing.Any, session: typing.Any, step: int, rows: Rows) -> str:
        """Save a checkpoint, the only one from then on, and the history; the checkpoint's path."""
        checkpoint = save_checkpoint(saver, session, self._checkpoints, step)
        keep_only(self._checkpoints, [step])
        self._history.write(self._rows, rows)
        return checkpoint


def check_finite(loss: float, step: int) -> None:
    """Raise UserError if the loss of an update is not finite; ``step`` is its number, from 1."""
    if not np.isfinite(loss):
        raise UserError("step {}: the loss is not finite; begin again with a lower --max-lr "
                        "and --restart".format(step), exit_code=1)


def log_validation(log: EventLog, step: int, **figures: float) -> None:
    """Add a validation's figures to TensorBoard's curves."""
    log.add(tf.Summary(value=[
        tf.Summary.Value(tag="validation/" + name, simple_value=value)
        for name, value in figures.items()]), step)
