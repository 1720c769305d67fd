"""Find image files in folders, and count what is skipped."""

from __future__ import annotations

import collections
import os
from typing import Callable, Collection, Iterator

from darknet_face.console import printable
from darknet_face.images.formats import EXTENSIONS, VIDEO_EXTENSIONS


class Skipped:
    """Counts what a search skips, by reason, with a few names for each."""

    EXAMPLES = 3

    def __init__(self) -> None:
        self.counts: dict[str, int] = collections.Counter()
        self._examples: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, path: str, reason: str) -> None:
        """Count a file or folder."""
        self.counts[reason] += 1
        if len(self._examples[reason]) < self.EXAMPLES:
            self._examples[reason].append(printable(path))

    def update(self, other: Skipped) -> None:
        """Add what another one counted."""
        for reason, count in other.counts.items():
            self.counts[reason] += count
            examples = self._examples[reason]
            examples += other._examples[reason][:self.EXAMPLES - len(examples)]

    def __len__(self) -> int:
        """How many files and folders were counted."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        """One line: ``3 video (a.mp4, b.mov, c.avi), 1 hidden (.git)``."""
        return ", ".join(
            "{:,} {} ({}{})".format(
                count, reason, ", ".join(self._examples[reason]),
                ", ..." if count > len(self._examples[reason]) else "")
            for reason, count in sorted(self.counts.items()))


def find_images(folder: str, exclude: Collection[str] = (),
                report: Callable[[str, str], None] | None = None) -> Iterator[str]:
    """Yield the paths under ``folder``, in sorted order, whose names end like image files.

    Links to folders are followed, and every folder is entered once, so that links that lead back
    up do no harm. One folder's names are held at a time.

    Parameters
    ----------
    exclude
        Real paths of files and folders to skip without a report.
    report
        Called with the path of what is skipped and the reason, such as :meth:`Skipped.add`:
        "hidden", "video", "unknown extension" or "unreadable folder: <cause>".
    """
    report = report or (lambda path, reason: None)
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            folders, names = _list_folder(parent)
        except OSError as error:
            report(parent, "unreadable folder: {}".format(error.strerror))
            continue
        for name in names:
            path = os.path.join(parent, name)
            reason = _reason_against(name)
            if _is_excluded(path, exclude):
                continue
            if reason:
                report(path, reason)
            else:
                yield path
        for name in reversed(folders):
            path = os.path.join(parent, name)
            if _is_excluded(path, exclude):
                continue
            if name.startswith("."):
                report(path, "hidden")
            else:
                waiting.append(path)


def _list_folder(parent: str) -> tuple[list[str], list[str]]:
    """The names of a folder's sub-folders, linked ones among them, and those of its files."""
    folders: list[str] = []
    names: list[str] = []
    with os.scandir(parent) as entries:
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            (folders if is_folder else names).append(entry.name)
    return sorted(folders), sorted(names)


def _reason_against(name: str) -> str:
    """Why a file is not taken for an image by its name; "" if it is."""
    if name.startswith("."):
        return "hidden"
    if name.lower().endswith(EXTENSIONS):
        return ""
    return "video" if name.lower().endswith(VIDEO_EXTENSIONS) else "unknown extension"


def _is_excluded(path: str, exclude: Collection[str]) -> bool:
    return bool(exclude) and os.path.realpath(path) in exclude
