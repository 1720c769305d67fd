"""Stopping a training by a signal, after it has saved a checkpoint."""

from __future__ import annotations

import signal
import sys
import typing

from darknet_face.runtime import distributed


class StopSignal:
    """Notes the first SIGINT or SIGTERM; a second one of the same kind ends the process at once.

    Attributes
    ----------
    number
        The signal that came; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._agreed = False
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._note)

    def _note(self, number, _):
        self.number = number
        signal.signal(number, signal.SIG_DFL)

    def agree(self, stopping: typing.Any) -> None:
        """Note whether any rank was asked to stop before the step just made."""
        if stopping and distributed.size() > 1:
            self._agreed = True
            self.number = self.number or signal.SIGTERM

    @property
    def is_due(self) -> bool:
        """Whether to stop after this step; several ranks stop after the same one."""
        return self._agreed if distributed.size() > 1 else bool(self.number)

    def exit(self) -> None:
        """Leave with the exit code that a shell gives for this signal."""
        sys.exit(128 + (self.number or 0))
