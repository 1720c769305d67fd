"""The collection of negative samples on disk. It can be killed at any moment.

``data/neg_samples/`` holds

- ``<query>/<content hash>.jpg``: the pictures kept;
- ``ATTRIBUTION.csv``: source page, creator and licence of each;
- ``report.csv``: what was left out, and why;
- ``sheet.png``: a contact sheet of what was kept;
- ``journal.jsonl``: what is known of each address, so that a later run continues where this one
  ended and downloads nothing twice;
- ``.incoming/``: pictures that are downloaded, but not yet compared with the others.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import glob
import hashlib
import os
import re

from darknet_face.console import UserError
from darknet_face.negatives.journal import KEPT, Journal, pack
from darknet_face.negatives.reports import Rejection
from darknet_face.runtime.atomic_files import PARTIAL, write_atomically

NegativeSample = collections.namedtuple("NegativeSample", "path category digest hash")
NegativeSample.__doc__ = """A usable picture: its file, category, pixel digest, perceptual hash."""


class NegativeStore:
    """Pictures on disk, and what is known of the addresses that they came from.

    All methods may be called from several threads, except :meth:`decide`: the result depends on
    the order of its calls, and not on the order of the downloads.

    Parameters
    ----------
    folder : str
        Made if missing. A second process on the same folder is refused.
    settings : dict
        What decides whether a picture is kept. It must stay the same for a folder.

    Raises
    ------
    UserError
        A damaged journal, other settings, or another run at work.
    """

    def __init__(self, folder, settings):
        self.folder = folder
        self._incoming = os.path.join(folder, ".incoming")
        os.makedirs(self._incoming, exist_ok=True)
        self._journal = Journal(os.path.join(folder, "journal.jsonl"))
        for leftover in glob.glob(os.path.join(glob.escape(folder), PARTIAL + "*")):
            os.remove(leftover)
        self._check_settings(settings)
        self._counts = self.inventory().counts()

    def close(self):
        """Release the folder for other runs."""
        self._journal.close()

    def _check_settings(self, settings):
        if self._journal.settings is None:
            self._journal.record(kind="settings", settings=settings)
        for name, value in settings.items():
            earlier = self._journal.settings.get(name)
            if earlier != value:
                raise UserError("{}: was begun with {} {}, not {}; use the same, or start again "
                                "in another --data-dir".format(self.folder, name, earlier, value))

    def inventory(self):
        """An :class:`Inventory` of the collection as it is now."""
        return Inventory(self.folder, self._journal)

    def count_kept(self, query):
        """How many pictures of a query are kept and still there."""
        return self._counts[query]

    def _staged(self, digest):
        return os.path.join(self._incoming, digest + ".jpg")

    def pages(self, source, query):
        """The result pages (list of ResultPage) that are known of a service's answer."""
        return list(self._journal.pages[source, query])

    def add_page(self, source, query, page):
        """Remember a result page, so that a later run need not ask for it."""
        self._journal.record(kind="page", source=source, query=query, next=page.next,
                             candidates=[list(candidate) for candidate in page.candidates])

    def add_picture(self, candidate, jpeg, digest, bits):
        """Store a picture that passed its own checks.

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
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        self._journal.record(kind="fetched", candidate=list(candidate), digest=digest,
                             hash=pack(bits), time=now.isoformat())

    def add_failure(self, candidate, query, error, final):
        """Remember why a candidate brought no picture (a FetchError or an Unfit)."""
        self._journal.record(kind="failed", url=candidate.url, query=query, cause=error.cause,
                             detail=error.detail, final=final)

    def is_settled(self, query, candidate):
        """Whether a candidate was decided on or failed for good."""
        failure = self._journal.failures.get(candidate.url)
        return (query, candidate.url) in self._journal.verdicts or (
            failure is not None and failure.final)

    def has_picture(self, query, candidate):
        """Whether a candidate can be decided on without a download."""
        fetched = self._journal.fetched.get(candidate.url)
        return fetched is not None and (
            os.path.exists(self._staged(fetched.digest))
            or os.path.exists(picture_path(self.folder, query, fetched.digest))
            or self._journal.seen.find(fetched.digest, fetched.hash) is not None)

    def decide(self, query, candidate):
        """Keep a downloaded picture, unless it is like one that was kept before.

        Returns
        -------
        bool
            Whether it was kept; False also for a candidate that was not downloaded.
        """
        fetched = self._journal.fetched.get(candidate.url)
        if fetched is None or candidate.url in self._journal.failures:
            return False
        staged = self._staged(fetched.digest)
        found = self._journal.seen.find(fetched.digest, fetched.hash)
        if found:
            cause, twin = found
            self._journal.record(kind="verdict", query=query, url=candidate.url, cause=cause,
                                 detail="like {}.jpg".format(twin))
            if os.path.exists(staged):
                os.remove(staged)
            return False
        path = picture_path(self.folder, query, fetched.digest)
        if os.path.exists(staged):  # not if a run was killed between here and the journal
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(staged, path)
        self._journal.record(kind="verdict", query=query, url=candidate.url, cause=KEPT, detail="")
        self._counts[query] += 1
        return True

    def clear_incoming(self):
        """Remove the files that no candidate needs any more, at the end of a run.

        Pictures of queries that an earlier, killed run asked for stay for a later run.
        """
        decided = {url for _, url in self._journal.verdicts}
        needed = {fetched.digest + ".jpg" for url, fetched in self._journal.fetched.items()
                  if url not in decided}
        with contextlib.suppress(OSError):  # the folder is not empty
            for name in set(os.listdir(self._incoming)) - needed:
                os.remove(os.path.join(self._incoming, name))
            os.rmdir(self._incoming)


class Inventory:
    """What a collection holds, and what was left out.

    Parameters
    ----------
    folder : str
    journal : Journal
    """

    def __init__(self, folder, journal):
        self._folder = folder
        self._journal = journal
        kept = [key for key, verdict in journal.verdicts.items() if verdict.cause == KEPT]
        self._kept = [key for key in kept if os.path.exists(self._path(*key))]
        self._removed = sorted(set(kept) - set(self._kept))

    def _path(self, query, url):
        return picture_path(self._folder, query, self._journal.fetched[url].digest)

    def counts(self):
        """The number of pictures kept, by query (collections.Counter)."""
        return collections.Counter(query for query, _ in self._kept)

    def samples(self):
        """Every picture kept, as a list of NegativeSample, by path."""
        found = []
        for query, url in self._kept:
            fetched = self._journal.fetched[url]
            found.append(NegativeSample(self._path(query, url), query, fetched.digest,
                                        fetched.hash))
        return sorted(found, key=lambda sample: sample.path)

    def rejections(self):
        """Every candidate left out, as a sorted list of Rejection."""
        left_out = [Rejection(url, failure.query, failure.cause, failure.detail)
                    for url, failure in self._journal.failures.items()]
        for (query, url), verdict in self._journal.verdicts.items():
            if verdict.cause != KEPT:
                left_out.append(Rejection(url, query, verdict.cause, verdict.detail))
        left_out += [Rejection(url, query, "removed by hand", "its file is gone")
                     for query, url in self._removed]
        return sorted(left_out)

    def attribution(self):
        """The rows for :func:`darknet_face.negatives.reports.write_attribution`."""
        rows = []
        for query, url in self._kept:
            _, _, candidate, time = self._journal.fetched[url]
            rows.append([os.path.relpath(self._path(query, url), self._folder),
                         candidate.page or url, candidate.creator, candidate.licence, query, time])
        return rows

    def folders(self):
        """The paths of the pictures kept, by folder, in the order of the decisions.

        Returns
        -------
        OrderedDict of str to list of str
        """
        paths = collections.OrderedDict()
        for query, url in self._kept:
            paths.setdefault(folder_name(query), []).append(self._path(query, url))
        return paths


def picture_path(folder, query, digest):
    """The file of a kept picture in the folder of a collection."""
    return os.path.join(folder, folder_name(query), digest + ".jpg")


def folder_name(query):
    """A folder for the pictures of a query: a safe name, and a different one for each query.

    A query of lower-case letters, digits, blanks and hyphens keeps its name. Any other becomes its
    first 30 letters and a piece of its hash.
    """
    if re.match(r"^[a-z0-9][a-z0-9 -]{0,39}$", query) and query == query.strip():
        return query.replace(" ", "_")
    letters = re.sub(r"[\W_]+", "_", query.lower())[:30].strip("_")
    return "{}_{}".format(letters, hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()[:8])
