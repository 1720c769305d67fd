"""The tables of results: CSV, or JSON with one object per line; and how a run is resumed.

Unlike the project's other files, a table is not written to a temporary name: it grows under its
own name, so that its rows survive Ctrl-C or a power failure. :func:`keep_whole_rows` drops a row
that was cut off.

``face_probability`` is the probability of a face, the column to sort by. ``probability`` is that of
the class. ``faces`` is their number, where the detector was asked; JSON has their ``boxes`` too.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import typing

from darknet_face.classify.inputs import InputImage, digest
from darknet_face.classify.predict import Row
from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import check_replaceable, starts_with

COLUMNS = ("file", "class", "face_probability", "x", "y", "width", "height", "probability",
           "faces")
JSON_KEYS = COLUMNS + ("boxes",)
# Those of earlier versions; such tables are resumed too.
FORMER_COLUMNS = (
    COLUMNS[:-1],
    ("file", "class", "probability", "face_probability", "x", "y", "width", "height"))
MAX_LINE = 1 << 16  # characters: a row with the longest name, every byte of it escaped, is shorter
# File names may hold bytes that are not UTF-8; they pass through unchanged.
ENCODING: dict[str, typing.Any] = {
    "newline": "\n", "encoding": "utf-8", "errors": "surrogateescape"}


class Output:
    """What every output of results has: see :mod:`darknet_face.classify.outputs`."""

    def write(self, image: InputImage, row: Row) -> None:
        """Called once per classified image."""
        raise NotImplementedError

    def flush(self) -> None:
        """Called after each batch."""

    def close(self) -> None:
        """Called at the end, on Ctrl-C too."""


class Table(Output):
    """Writes the results to a CSV, or as JSON with one object per line.

    Parameters
    ----------
    path
        ``-`` for standard output.
    kind
        "csv" or "json".
    append
        Add to an existing file.
    """

    def __init__(self, path: str, kind: str, append: bool = False) -> None:
        self.stream: typing.Any
        if path == "-":
            self.stream = sys.stdout
            self.stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            self.stream = open(path, "a" if append else "w", **ENCODING)  # noqa: SIM115 (close())
        self.rows = _RowWriter(self.stream, kind)
        if not (append and os.path.getsize(path)):
            self.rows.write_header()

    def write(self, image: InputImage, row: Row) -> None:
        self.rows.write(row)

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        if self.stream is not sys.stdout:
            self.stream.close()


class _RowWriter:
    """Writes rows to an open text file as CSV or JSON."""

    def __init__(self, stream: typing.IO[str], kind: str) -> None:
        self.stream, self.kind = stream, kind
        self._line = io.StringIO()
        # Python 3.7 quotes a carriage return in a name only where lines end with one.
        self._csv = csv.DictWriter(self._line, COLUMNS, lineterminator="\r\n",
                                   extrasaction="ignore")

    def write_header(self) -> None:
        if self.kind == "csv":
            self._csv.writeheader()
            self._end_line()

    def write(self, row: Row) -> None:
        if self.kind == "csv":
            self._csv.writerow(row)
            self._end_line()
        else:
            self.stream.write(json.dumps(row) + "\n")

    def _end_line(self):
        self.stream.write(self._line.getvalue()[:-2] + "\n")
        self._line.seek(0)
        self._line.truncate()


def keep_whole_rows(path: str, kind: str, only: set[int] | None = None) -> set[int]:
    """Prepare a table for more rows: remove what is damaged at its end.

    Parameters
    ----------
    path
        Replaced atomically if it exists.
    kind
        "csv" or "json".
    only
        Keep only rows whose file has one of these digests.

    Returns
    -------
    set of int
        The digests of the files in the table.

    Raises
    ------
    UserError
        If it is not a table of results.
    """
    if not os.path.exists(path):
        return set()
    if not os.path.isfile(path):
        raise _other_file(path, "not a regular file, so it cannot be resumed")
    kept = set()
    # The source is closed first: Windows replaces no open file.
    with write_atomically(path, "w", **ENCODING) as target, open(path, **ENCODING) as source:
        rows = _RowWriter(target, kind)
        rows.write_header()
        for row in _whole_rows(path, source, kind):
            if only is None or digest(row["file"]) in only:
                kept.add(digest(row["file"]))
                rows.write(row)
    return kept


def check_table(path: str, kind: str) -> None:
    """Check that a file about to be replaced is a table of this kind, or the beginning of one.

    Raises
    ------
    UserError
        If it is another file: a slip such as ``--csv *.jpg`` must not cost a photograph.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return  # a pipe or device, such as /dev/stderr, loses nothing
    is_ours = _is_json_table if kind == "json" else _is_csv_table
    check_replaceable(path, is_ours, "a table of this script")


def _is_csv_table(path: str) -> bool:
    return any(starts_with(path, ",".join(columns)) for columns in (COLUMNS,) + FORMER_COLUMNS)


def _is_json_table(path: str) -> bool:
    """Whether the first line of a file is a row, or the beginning of one that was cut off."""
    with open(path, **ENCODING) as stream:
        line = stream.readline(MAX_LINE)
    if line.endswith("\n"):
        return _parse_json(line) is not None
    line = line.rstrip("\0")
    name = re.match(r'\{"file": "(?:[^"\\]|\\.)*"?', line)
    rest, following = line[name.end():] if name else line, ', "class": ' if name else '{"file": "'
    return rest in ("", "\\") or rest.startswith(following) or following.startswith(rest)


def _other_file(path: str, cause: str = "not a table of this script") -> UserError:
    return UserError("{}: {}; name another file".format(path, cause))


def _whole_rows(path: str, source: typing.IO[str], kind: str) -> typing.Iterator[Row]:
    """Yield the rows of a table up to its end, or to where it was cut off."""
    lines: typing.Iterator[typing.Any] = _whole_lines(source)
    columns = list(COLUMNS)
    try:
        if kind == "csv":
            lines = csv.reader(lines)
            columns = next(lines, columns)
            if tuple(columns) not in (COLUMNS,) + FORMER_COLUMNS:
                raise _other_file(path)
        for line in lines:
            row = _parse_csv(columns, line) if kind == "csv" else _parse_json(line)
            # A name with a line break in it can be cut off at the break.
            if row is None and kind == "csv" and next(lines, None) is None:
                return
            if row is None:
                raise _other_file(path, "damaged, or not a table of this script")
            yield row
    except csv.Error as error:
        raise _other_file(path, "damaged ({})".format(error))


def _whole_lines(source: typing.IO[str]) -> typing.Iterator[str]:
    """Yield lines up to one that has no end, or holds the zeros that a power failure leaves."""
    for line in source:
        if not line.endswith("\n") or "\0" in line:
            return
        yield line


def _parse_json(line: str) -> Row | None:
    """A row as a dict, or None if it is not whole."""
    try:
        row = json.loads(line)
        whole = isinstance(row, dict) and set(row) in (set(JSON_KEYS), set(FORMER_COLUMNS[0]))
        return row if whole and os.fsencode(row["file"]) else None
    except (TypeError, ValueError, RecursionError):  # the last for nested brackets
        return None


def _parse_csv(columns: list[str], cells: list[str]) -> Row | None:
    """A row as a dict, or None if it is not whole."""
    try:
        row = dict(zip(columns, cells))
        whole = len(cells) == len(columns) and 0 <= float(row["face_probability"]) <= 1
        return row if whole else None
    except ValueError:
        return None
