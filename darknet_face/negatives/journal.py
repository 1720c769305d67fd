"""The journal of a collection: what is known of each address, one JSON object per line.

Lines are only ever added, so a run that is killed loses at most its last one. The next run reads
the journal and continues from there.
"""

from __future__ import annotations

import collections
import fcntl
import json
import re
import threading

import numpy as np

from darknet_face.console import UserError
from darknet_face.negatives.checks import SeenPictures
from darknet_face.negatives.services import Candidate, ResultPage

KEPT = "kept"

Fetched = collections.namedtuple("Fetched", "digest hash candidate time")
Fetched.__doc__ = """A picture on disk: pixel digest, perceptual hash, source and UTC time."""

Failure = collections.namedtuple("Failure", "query cause detail final")
Failure.__doc__ = """Why an address brought no picture, and whether that is final."""

Verdict = collections.namedtuple("Verdict", "cause detail")
Verdict.__doc__ = """The decision on a picture: KEPT, or why it is left out."""


class Journal:
    """The state of a collection, and the file that it is restored from.

    Parameters
    ----------
    path : str
        Made if missing, and locked until :meth:`close`.

    Attributes
    ----------
    settings : dict or None
    pages : dict of (str, str) to list of ResultPage
        By source and query.
    fetched : dict of str to Fetched
        By address.
    failures : dict of str to Failure
        By address.
    verdicts : OrderedDict of (str, str) to Verdict
        By query and address, in the order of the decisions.
    seen : SeenPictures
        The pictures kept.

    Raises
    ------
    UserError
        The journal is damaged, or another run holds it.
    """

    def __init__(self, path):
        self.settings = None
        self.pages = collections.defaultdict(list)
        self.fetched = {}
        self.failures = {}
        self.verdicts = collections.OrderedDict()
        self.seen = SeenPictures()
        self._lock = threading.Lock()
        self._stream = open(path, "a+b")  # noqa: SIM115 - open until close()
        try:
            self._restore(path)
        except BaseException:
            self._stream.close()
            raise

    def _restore(self, path):
        """Lock and read the file, and cut off a line that a kill left unfinished."""
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("{}: another run is at work on it; wait for its end".format(
                path)) from None
        self._stream.seek(0)
        content = self._stream.read()
        whole = content.rfind(b"\n") + 1
        self._stream.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                self._apply(json.loads(line.decode("utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise UserError("{}: line {} is damaged; delete that line, or start again in "
                                "another --data-dir".format(path, number)) from None

    def close(self):
        """Unlock the file."""
        self._stream.close()

    def record(self, **row):
        """Add a line and update the state; may be called from several threads."""
        with self._lock:
            self._apply(row)
            self._stream.write(json.dumps(row).encode("ascii") + b"\n")
            self._stream.flush()

    def _apply(self, row):
        """Update the state by one line; nothing else changes it."""
        kind = row["kind"]
        if kind == "settings":
            self.settings = dict(row["settings"])
        elif kind == "page":
            candidates = [Candidate(*map(str, item)) for item in row["candidates"]]
            following = row["next"] if row["next"] is None else dict(row["next"])
            key = _text(row["source"]), _text(row["query"])
            self.pages[key].append(ResultPage(candidates, following))
        elif kind == "fetched":
            candidate = Candidate(*map(str, row["candidate"]))
            self.fetched[candidate.url] = Fetched(
                _hex(row["digest"]), _unpack(row["hash"]), candidate, str(row["time"]))
            self.failures.pop(candidate.url, None)
        elif kind == "failed":
            self.failures[_text(row["url"])] = Failure(
                _text(row["query"]), str(row["cause"]), str(row["detail"]), bool(row["final"]))
        elif kind == "verdict":
            fetched = self.fetched[row["url"]]
            self.verdicts[_text(row["query"]), row["url"]] = Verdict(
                str(row["cause"]), str(row["detail"]))
            if row["cause"] == KEPT:
                self.seen.add(fetched.digest, fetched.hash)
        else:
            raise ValueError(kind)


def pack(bits):
    """A perceptual hash (bool, [256]) in hexadecimal."""
    return np.packbits(bits).tobytes().hex()


def _unpack(text):
    """The inverse of :func:`pack`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(_hex(text)), np.uint8)).astype(bool)


def _text(value):
    """Check that a value is a string: it becomes a folder's name, or is sorted among strings."""
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _hex(text):
    """Check that a string is 64 hexadecimal digits, since it becomes a file name."""
    if not re.match(r"^[0-9a-f]{64}\Z", text):
        raise ValueError(text)
    return text
