"""The collection of negative samples on disk, built so that it can be killed at any moment.

``data/neg_samples/`` holds

- ``<query>/<content hash>.jpg``: the pictures kept;
- ``ATTRIBUTION.csv``: source page, creator and licence of each, as Creative Commons asks for;
- ``report.csv``: what was left out, and why;
- ``sheet.png``: what was kept, query by query;
- ``journal.jsonl``: what is known of each address, one JSON object a line, so that a later run
  goes on where this one ended and downloads nothing twice;
- ``.incoming/``: pictures fetched but not yet compared with the others.
"""

import collections
import contextlib
import csv
import datetime
import fcntl
import glob
import hashlib
import json
import os
import re
import threading

import numpy as np
from PIL import Image

from negatives.checks import SeenPictures
from negatives.client import Candidate, ResultPage
from pictures import decode
from pictures.sheets import PAPER, contact_sheet, save_picture
from utils import UserError, warn, write_atomically

SHEET_PER_QUERY = 60  # pictures of each query in the contact sheet, evenly spaced
SHEET_COLUMNS, SHEET_TILE = 20, 96

KEPT = "kept"

Picture = collections.namedtuple("Picture", "path category digest hash")
Picture.__doc__ = """A usable picture: its file, category, pixel digest and perceptual hash."""

Rejection = collections.namedtuple("Rejection", "name category cause detail")
Rejection.__doc__ = """A file or address left out: the cause to count it under, and details."""

_Fetched = collections.namedtuple("_Fetched", "digest hash candidate time")
_Failure = collections.namedtuple("_Failure", "query cause detail final")
_Verdict = collections.namedtuple("_Verdict", "cause detail")


class NegativeStore:
    """Pictures, and what is known of the addresses they came from.

    All methods may be called from several threads, but :meth:`decide` only from one: the order of
    its calls, not that of the downloads, is what the outcome depends on.

    Parameters
    ----------
    folder : str
        Made if missing. A second process on the same folder is refused.
    settings : dict
        What decides whether a picture is kept. It stays the same for a folder's life.

    Raises
    ------
    UserError
        A damaged journal, other settings, or another run at work.
    """

    def __init__(self, folder, settings):
        self.folder = folder
        self._incoming = os.path.join(folder, ".incoming")
        self._lock = threading.Lock()
        self._settings = None
        self._pages = collections.defaultdict(list)
        self._fetched = {}
        self._failures = {}
        self._verdicts = collections.OrderedDict()  # (query, address) -> _Verdict
        self._seen = SeenPictures()
        self._removed = set()  # keys of kept pictures whose files somebody deleted
        self._counts = collections.Counter()  # pictures kept, by query
        os.makedirs(self._incoming, exist_ok=True)
        self._journal = self._open_journal(os.path.join(folder, "journal.jsonl"))
        for left_by_a_kill in glob.glob(os.path.join(glob.escape(folder), ".partial-*")):
            os.remove(left_by_a_kill)
        self._check_settings(settings)
        self._removed = {key for key in self._kept() if not os.path.exists(self._path(*key))}
        self._counts.subtract(query for query, _ in self._removed)

    def close(self):
        """Give the folder free for other runs."""
        self._journal.close()

    def _open_journal(self, path):
        """Read the journal, cut off a line that a kill left unfinished, and lock it."""
        journal = open(path, "a+b")  # noqa: SIM115 - open for the life of the store
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            journal.close()
            raise UserError("{}: another run is at work on it; wait for its end".format(
                path)) from None
        journal.seek(0)
        content = journal.read()
        whole = content.rfind(b"\n") + 1
        journal.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                self._apply(json.loads(line.decode("utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                journal.close()
                raise UserError("{}: line {} is damaged; delete that line, or begin anew in "
                                "another --data-dir".format(path, number)) from None
        return journal

    def _apply(self, row):
        """Take over one line of the journal; the one place where the state changes."""
        kind = row["kind"]
        if kind == "settings":
            self._settings = dict(row["settings"])
        elif kind == "page":
            candidates = [Candidate(*map(str, item)) for item in row["candidates"]]
            following = row["next"] if row["next"] is None else dict(row["next"])
            self._pages[row["source"], row["query"]].append(ResultPage(candidates, following))
        elif kind == "fetched":
            candidate = Candidate(*map(str, row["candidate"]))
            self._fetched[candidate.url] = _Fetched(
                _hex(row["digest"]), _unpack(row["hash"]), candidate, str(row["time"]))
            self._failures.pop(candidate.url, None)
        elif kind == "failed":
            self._failures[row["url"]] = _Failure(
                str(row["query"]), str(row["cause"]), str(row["detail"]), bool(row["final"]))
        elif kind == "verdict":
            key = row["query"], row["url"]
            fetched = self._fetched[row["url"]]
            self._verdicts[key] = _Verdict(str(row["cause"]), str(row["detail"]))
            if row["cause"] == KEPT:
                self._seen.add(fetched.digest, fetched.hash)
                self._counts[row["query"]] += 1
        else:
            raise ValueError(kind)

    def _record(self, **row):
        """Add a line to the journal and act on it."""
        with self._lock:
            self._apply(row)
            self._journal.write(json.dumps(row).encode("ascii") + b"\n")
            self._journal.flush()

    def _check_settings(self, settings):
        if self._settings is None:
            self._record(kind="settings", settings=settings)
        for name, value in settings.items():
            if self._settings.get(name) != value:
                raise UserError(
                    "{}: was begun with {} {}, not {}; go on with the same, or begin anew in "
                    "another --data-dir".format(self.folder, name, self._settings.get(name), value))

    def _path(self, query, url):
        """The file of a kept picture."""
        return os.path.join(
            self.folder, folder_name(query), self._fetched[url].digest + ".jpg")

    def _staged(self, digest):
        return os.path.join(self._incoming, digest + ".jpg")

    def pages(self, source, query):
        """The result pages that earlier runs, or this one, got from a service.

        Parameters
        ----------
        source, query : str

        Returns
        -------
        list of ResultPage
        """
        return list(self._pages[source, query])

    def add_page(self, source, query, page):
        """Remember a result page, so that it need not be asked for again."""
        self._record(kind="page", source=source, query=query, next=page.next,
                     candidates=[list(candidate) for candidate in page.candidates])

    def add_picture(self, candidate, jpeg, digest, bits):
        """Store a picture that passed all checks of its own.

        Parameters
        ----------
        candidate : Candidate
        jpeg : bytes
        digest : str
            The pixel digest of what ``jpeg`` decodes to.
        bits : numpy.ndarray
            bool, [256], its perceptual hash.
        """
        with write_atomically(self._staged(digest)) as stream:
            stream.write(jpeg)
        now = datetime.datetime.now(datetime.timezone.utc)
        self._record(kind="fetched", candidate=list(candidate), digest=digest, hash=_pack(bits),
                     time=now.replace(microsecond=0).isoformat())

    def add_failure(self, candidate, query, error, final):
        """Remember why a candidate brought no picture (a FetchError or an Unfit)."""
        self._record(kind="failed", url=candidate.url, query=query, cause=error.cause,
                     detail=error.detail, final=final)

    def is_settled(self, query, candidate):
        """Whether nothing remains to be done for a candidate: decided on, or failed for good."""
        failure = self._failures.get(candidate.url)
        return (query, candidate.url) in self._verdicts or (failure is not None and failure.final)

    def has_picture(self, query, candidate):
        """Whether a candidate can be decided on as it is, without a download."""
        fetched = self._fetched.get(candidate.url)
        return fetched is not None and (
            os.path.exists(self._staged(fetched.digest))
            or os.path.exists(self._path(query, candidate.url))
            or self._seen.find(fetched.digest, fetched.hash) is not None)

    def decide(self, query, candidate):
        """Keep a fetched picture, unless it is like one that was kept before.

        Returns
        -------
        bool
            Whether it was kept; False for a candidate that was not fetched.
        """
        fetched = self._fetched.get(candidate.url)
        if fetched is None or candidate.url in self._failures:
            return False
        staged = self._staged(fetched.digest)
        found = self._seen.find(fetched.digest, fetched.hash)
        if found:
            cause, twin = found
            self._record(kind="verdict", query=query, url=candidate.url, cause=cause,
                         detail="like {}.jpg".format(twin))
            if os.path.exists(staged):
                os.remove(staged)
            return False
        path = self._path(query, candidate.url)
        if os.path.exists(staged):  # else a run was killed between here and the journal
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(staged, path)
        self._record(kind="verdict", query=query, url=candidate.url, cause=KEPT, detail="")
        return True

    def clear_incoming(self):
        """Remove what no candidate needs any more, at the end of a run.

        What an earlier run was killed over stays, if this run did not ask for it.
        """
        decided = {url for _, url in self._verdicts}
        needed = {fetched.digest + ".jpg" for url, fetched in self._fetched.items()
                  if url not in decided}
        with contextlib.suppress(OSError):  # not empty, or somebody was faster
            for name in set(os.listdir(self._incoming)) - needed:
                os.remove(os.path.join(self._incoming, name))
            os.rmdir(self._incoming)

    def _kept(self):
        return [key for key, verdict in self._verdicts.items()
                if verdict.cause == KEPT and key not in self._removed]

    def count_kept(self, query):
        """How many pictures of a query are kept and still there."""
        return self._counts[query]

    def kept_pictures(self):
        """Every picture kept, by query and content hash.

        Returns
        -------
        list of Picture
        """
        return sorted(
            Picture(self._path(query, url), query, self._fetched[url].digest,
                    self._fetched[url].hash) for query, url in self._kept())

    def rejections(self):
        """Every candidate left out.

        Returns
        -------
        list of Rejection
        """
        left_out = [Rejection(url, failure.query, failure.cause, failure.detail)
                    for url, failure in self._failures.items()]
        for (query, url), verdict in self._verdicts.items():
            if verdict.cause != KEPT:
                left_out.append(Rejection(url, query, verdict.cause, verdict.detail))
        left_out += [Rejection(url, query, "removed by hand", "its file is gone")
                     for query, url in self._removed]
        return sorted(left_out)

    def write_attribution(self):
        """Write ATTRIBUTION.csv: file, source page, creator, licence, query, retrieval time."""
        rows = []
        for query, url in self._kept():
            fetched = self._fetched[url]
            rows.append([os.path.relpath(self._path(query, url), self.folder),
                         fetched.candidate.page or url, fetched.candidate.creator,
                         fetched.candidate.licence, query, fetched.time])
        write_csv(os.path.join(self.folder, "ATTRIBUTION.csv"),
                  ["file", "source page", "creator", "licence", "query", "retrieved"],
                  sorted(rows))

    def write_sheet(self):
        """Draw sheet.png: up to SHEET_PER_QUERY pictures of each query.

        Returns
        -------
        str
            Its path.
        """
        by_query = collections.OrderedDict()  # queries in the order of their first pictures
        for query, url in self._kept():
            by_query.setdefault(query, []).append(self._path(query, url))
        strips = []
        for query, paths in by_query.items():
            every = -(-len(paths) // SHEET_PER_QUERY)
            shown = list(_readable(paths[::every]))
            if shown:
                strips.append(contact_sheet(
                    shown, title="{} ({})".format(query, len(paths)), columns=SHEET_COLUMNS,
                    tile=SHEET_TILE))
        path = os.path.join(self.folder, "sheet.png")
        save_picture(path, _stack(strips))
        return path


def _readable(paths):
    """The pictures of some files, without those that somebody spoiled since."""
    for path in paths:
        try:
            yield decode.read_image(path)
        except decode.BadImage as error:
            warn("{}: {}; not on the sheet".format(path, error))


def _stack(strips):
    """Put pictures below one another."""
    sheet = Image.new("RGB", (max([1] + [strip.width for strip in strips]),
                              max(1, sum(strip.height for strip in strips))), PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def folder_name(query):
    """A folder for a query's pictures: a harmless name, and a different one for each query.

    A query of small letters, digits, blanks and hyphens keeps its name; any other is spelled with
    what is left of it and a piece of its hash.
    """
    if re.match(r"^[a-z0-9][a-z0-9 -]{0,39}$", query) and query == query.strip():
        return query.replace(" ", "_")
    letters = re.sub(r"[\W_]+", "_", query.lower())[:30].strip("_")
    return "{}_{}".format(letters, hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()[:8])


def write_csv(path, header, rows):
    """Write a CSV file that spreadsheet programs can open safely.

    Parameters
    ----------
    path : str
    header : list of str
    rows : iterable of list of str
        Line breaks become blanks, and a cell that a spreadsheet would take for a formula gets an
        apostrophe in front.
    """
    with write_atomically(path, "w", encoding="utf-8", errors="backslashreplace",
                          newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for row in rows:
            cells = [" ".join(str(cell).split()) for cell in row]
            writer.writerow(["'" + cell if cell[:1] in ("=", "+", "-", "@") else cell
                             for cell in cells])


def write_report(path, rejections):
    """Write what was left out and why as a CSV file.

    Parameters
    ----------
    path : str
    rejections : list of Rejection
    """
    write_csv(path, list(Rejection._fields), rejections)


def _pack(bits):
    """A perceptual hash in hexadecimal."""
    return np.packbits(bits).tobytes().hex()


def _unpack(text):
    """The inverse of :func:`_pack`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(_hex(text)), np.uint8)).astype(bool)


def _hex(text):
    """A string of 64 hexadecimal digits, or ValueError: it becomes a file name."""
    if not re.match(r"^[0-9a-f]{64}\Z", text):
        raise ValueError(text)
    return text
