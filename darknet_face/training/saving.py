"""Saving the checkpoints of a training."""

from __future__ import annotations

import os
import typing

from darknet_face.console import UserError
from darknet_face.runtime import distributed
from darknet_face.weights.checkpoints import (
    keep_only,
    newest_checkpoint,
    newest_steps,
    save_checkpoint,
)


class CheckpointWriter:
    """Saves checkpoints, by rank 0, and keeps the newest two.
    """

    def __init__(self, folder: str, session: typing.Any, net: typing.Any) -> None:
        self.folder = folder
        self._session = session
        self._net = net
        self._saved_step: int | None = None

    def save(self, step: int) -> str:
        """Save a checkpoint, unless this step's was the last one saved.

        Returns
        -------
        str
            Its prefix.

        Raises
        ------
        FloatingPointError
            When a weight is no longer finite; nothing is written then.
        """
        if step != self._saved_step:
            if not self._session.run(self._net.finite):
                raise FloatingPointError("a weight is not finite")
            if distributed.rank() == 0:
                save_checkpoint(self._net.saver, self._session, self.folder, step)
                keep_only(self.folder, newest_steps(self.folder, 2))
            distributed.wait_for_all()  # a rank that left now would make the launcher end rank 0
            self._saved_step = step
        return os.path.join(self.folder, "model-{}".format(step))

    def has(self, step: int) -> None:
        """Note that there is a checkpoint of this step."""
        self._saved_step = step

    def diverged(self, step: int, cause: typing.Any) -> typing.Any:
        """The error of a training that can't continue."""
        checkpoint = newest_checkpoint(self.folder)
        return UserError("step {}: {}; {}: begin again with a lower --max-lr and --restart".format(
            step, cause, "the last good checkpoint is {}".format(checkpoint) if checkpoint
            else "there is no checkpoint yet"), exit_code=1)
