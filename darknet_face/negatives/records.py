"""What is known of each address of a collection: an SQLite file that survives a kill.

The next run reads it and continues from there. It holds the settings, the search results, what was
fetched, what failed, and the decision on each image.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.negatives.services import Candidate, ResultPage

KEPT = "kept"

SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS page (
    number INTEGER PRIMARY KEY, source TEXT, query TEXT, candidates TEXT, next TEXT);
CREATE TABLE IF NOT EXISTS fetched (
    url TEXT PRIMARY KEY, page TEXT, creator TEXT, licence TEXT, digest TEXT, hash TEXT, time TEXT);
CREATE TABLE IF NOT EXISTS failure (
    url TEXT PRIMARY KEY, query TEXT, cause TEXT, detail TEXT, final INTEGER);
CREATE TABLE IF NOT EXISTS verdict (
    number INTEGER PRIMARY KEY, query TEXT, url TEXT, cause TEXT, detail TEXT,
    UNIQUE (query, url));
"""


class Fetched(typing.NamedTuple):
    """An image on disk."""

    candidate: Candidate
    digest: str  # of the pixels
    hash: np.ndarray  # perceptual: bool, [256]
    time: str  # UTC


class Failure(typing.NamedTuple):
    """Why an address gave no image, and whether that is final."""

    url: str
    query: str
    cause: str
    detail: str
    final: bool


class Verdict(typing.NamedTuple):
    """The decision on an image: KEPT, or why it is skipped."""

    query: str
    url: str
    cause: str
    detail: str


class Records:
    """The records of a collection. Several threads may use them at once.

    Parameters
    ----------
    path
        Made if missing, and locked until :meth:`close`.

    Raises
    ------
    UserError
        From here and from every method: another run holds the file, or it is damaged.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # With the write-ahead log a power cut loses the last rows at most.
            for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL",
                            "synchronous = NORMAL"):
                self._run("PRAGMA " + setting)
            with self._explained():
                self._database.executescript(SCHEMA)
            # Takes the lock, which SQLite otherwise does at the first change only.
            self._run("DELETE FROM setting WHERE name IS NULL")
            if self._run("PRAGMA quick_check(1)") != [("ok",)]:
                raise self._damaged("its pages do not fit together")
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Unlock the file."""
        self._database.close()

    def settings(self) -> dict[str, typing.Any]:
        """The settings that the collection was begun with; empty for a new one."""
        return {name: self._json(value)
                for name, value in self._run("SELECT name, value FROM setting")}

    def add_settings(self, settings: dict[str, typing.Any]) -> None:
        for name, value in settings.items():
            self._run("INSERT INTO setting VALUES (?, ?)", name, json.dumps(value))

    def pages(self, source: str, query: str) -> list[ResultPage]:
        """The result pages that are known of a service's answer, in their order."""
        rows = self._run("SELECT candidates, next FROM page WHERE source = ? AND query = ? "
                         "ORDER BY number", source, query)
        try:
            return [ResultPage([Candidate(*map(str, each)) for each in self._json(candidates)],
                               self._json(following)) for candidates, following in rows]
        except TypeError:
            raise self._damaged("a result page of another kind") from None

    def add_page(self, source: str, query: str, page: ResultPage) -> None:
        self._run("INSERT INTO page (source, query, candidates, next) VALUES (?, ?, ?, ?)", source,
                  query, json.dumps(page.candidates), json.dumps(page.next))

    def fetched(self, url: str) -> Fetched | None:
        """The image of an address, if it was ever fetched."""
        rows = self._run("SELECT * FROM fetched WHERE url = ?", url)
        return self._fetched(rows[0]) if rows else None

    def all_fetched(self) -> dict[str, Fetched]:
        """Every image that was fetched, by its address."""
        return {row[0]: self._fetched(row) for row in self._run("SELECT * FROM fetched")}

    def add_fetched(self, fetched: Fetched) -> None:
        """Remember an image; an earlier failure of its address is forgotten."""
        self._run("INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?, ?, ?, ?)",
                  *fetched.candidate, fetched.digest, np.packbits(fetched.hash).tobytes().hex(),
                  fetched.time)
        self._run("DELETE FROM failure WHERE url = ?", fetched.candidate.url)

    def failures(self) -> list[Failure]:
        return [self._typed(Failure, row) for row in self._run("SELECT * FROM failure")]

    def failure(self, url: str) -> Failure | None:
        """Why an address gave no image; None if it did not fail."""
        rows = self._run("SELECT * FROM failure WHERE url = ?", url)
        return self._typed(Failure, rows[0]) if rows else None

    def add_failure(self, failure: Failure) -> None:
        self._run("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)", *failure)

    def verdicts(self) -> list[Verdict]:
        """All decisions, in their order."""
        return [self._typed(Verdict, row) for row in self._run(
            "SELECT query, url, cause, detail FROM verdict ORDER BY number")]

    def is_decided(self, query: str, url: str) -> bool:
        return bool(self._run("SELECT 1 FROM verdict WHERE query = ? AND url = ?", query, url))

    def add_verdict(self, verdict: Verdict) -> None:
        self._run("INSERT OR REPLACE INTO verdict (query, url, cause, detail) VALUES (?, ?, ?, ?)",
                  *verdict)

    def _run(self, statement: str, *values: typing.Any) -> list[tuple]:
        with self._lock, self._explained():
            return self._database.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _explained(self) -> typing.Iterator[None]:
        """Turn SQLite's errors into one line."""
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise UserError("{}: another run is at work on it; wait for its end".format(
                    self._path)) from None
            if "full" in str(error) or "disk I/O" in str(error):
                raise UserError("{}: {}; check the free disk space".format(
                    self._path, error)) from None
            raise self._damaged(str(error)) from None

    def _damaged(self, cause: str) -> UserError:
        return UserError("{}: damaged ({}); start again in another --data-dir".format(
            self._path, cause))

    def _json(self, text: str) -> typing.Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError, RecursionError):
            raise self._damaged("no JSON where some should be") from None

    def _typed(self, kind: typing.Callable, row: tuple) -> typing.Any:
        """A row as a record. SQLite does not keep to the types of its columns."""
        if not all(isinstance(each, str) for each in row[:4]):
            raise self._damaged("a row of another kind")
        return kind(*row)

    def _fetched(self, row: tuple) -> Fetched:
        *candidate, digest, bits, time = row
        # Both become parts of file names, or are compared with hashes of 256 bits.
        if not all(isinstance(each, str) for each in row) or not all(
                re.match(r"^[0-9a-f]{64}\Z", each) for each in (digest, bits)):
            raise self._damaged("an image without its digests")
        unpacked = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8)).astype(bool)
        return Fetched(Candidate(*candidate), digest, unpacked, time)

