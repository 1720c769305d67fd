"""``history.csv``, what a training has measured: a row of numbers per validation.

The classifier and the detector describe their columns by a :class:`HistoryFile` each.
"""

from __future__ import annotations

import csv
import math
import typing

from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import check_replaceable, open_regular, starts_with

LARGEST = 1e39  # beyond what a float32 can be: a larger number is damaged


class HistoryFile(typing.NamedTuple):
    """The columns of a history and what they may hold.

    Attributes
    ----------
    what
        The kind of file, for messages: "a training history".
    elsewhere
        The option that puts the file elsewhere.
    columns
        All hold numbers from 0 to 1e39. One of them is ``step``, which rises from row to row.
    counts
        The columns that hold integers.
    shares
        The columns that hold at most 1.
    optional
        The columns that a row may lack: NaN in memory, empty in the file.
    """

    what: str
    elsewhere: str
    columns: tuple[str, ...]
    counts: tuple[str, ...]
    shares: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def is_plausible(self, column: str, value: object) -> bool:
        """Whether a number from a file can stand in a column."""
        if type(value) not in (int, float):
            return False
        number = typing.cast(float, value)
        if column in self.counts:
            return 0 <= number < 1 << 53 and number == int(number)
        return 0 <= number <= (1 if column in self.shares else LARGEST)

    def read(self, path: str) -> list[dict[str, float]]:
        """The rows of a file, oldest first; none if it is not there.

        Raises
        ------
        UserError
            If it is damaged or another file.
        """
        try:
            with open_regular(path, "r", newline="", encoding="utf-8") as stream:
                rows = [self._parse(cells) for cells in csv.DictReader(stream)]
            steps = [row["step"] for row in rows]
            if steps != sorted(set(steps)):
                raise ValueError("steps out of order")
            return rows
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError("{}: {}; move it away or choose another {}".format(
                path, error.strerror, self.elsewhere))
        except (KeyError, TypeError, ValueError, csv.Error):
            raise UserError("{}: not {}; move it away or choose another {}".format(
                path, self.what, self.elsewhere))

    def _parse(self, cells: dict[str, str]) -> dict[str, float]:
        row = {}
        for column in self.columns:
            if column in self.optional and cells[column] in ("", "nan"):
                row[column] = math.nan
                continue
            row[column] = float(cells[column])
            if not self.is_plausible(column, row[column]):
                raise ValueError("{} is out of range".format(column))
        return row

    def write(self, path: str, rows: typing.Iterable[dict[str, float]]) -> None:
        """Write all rows; a kill leaves the old file or the new one."""
        with write_atomically(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(self.columns)
            for row in rows:
                writer.writerow([self._cell(column, row[column]) for column in self.columns])

    def _cell(self, column: str, value: float) -> typing.Any:
        if math.isnan(value):
            return ""
        return int(value) if column in self.counts else value

    def check(self, path: str) -> None:
        """Check that writing the history replaces no other file; raises UserError."""
        check_replaceable(path, lambda _: starts_with(path, ",".join(self.columns)), self.what)
