"""The collection of negatives on disk. It can be killed at any moment.

``data/neg_samples/`` holds

- ``<query>/<content hash>.jpg``: the images kept;
- ``ATTRIBUTION.csv``: source page, creator and licence of each;
- ``report.csv``: what was skipped, and why;
- ``sheet.png``: a contact sheet of what was kept;
- ``records.sqlite``: what is known of each address, so that a later run continues where this one
  ended and downloads nothing twice;
- ``.incoming/``: images that are downloaded, but not yet compared with the others.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import glob
import hashlib
import os
import re
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.negatives.checks import SeenImages
from darknet_face.negatives.records import KEPT, Failure, Fetched, Records, Verdict
from darknet_face.negatives.reports import Rejection, Unusable
from darknet_face.negatives.services import Candidate, ResultPage
from darknet_face.runtime.atomic_files import PARTIAL, write_atomically

EARLIER = "journal.jsonl"  # what versions before records.sqlite wrote


class NegativeSample(typing.NamedTuple):
    """A usable image."""

    path: str
    category: str
    digest: str  # of the pixels
    hash: np.ndarray  # perceptual: bool, [256]


class NegativeStore:
    """Images on disk, and what is known of the addresses that they came from.

    All methods may be called from several threads, except :meth:`decide`: the result depends on
    the order of its calls, and not on the order of the downloads.

    Parameters
    ----------
    folder
        Made if missing. A second process on the same folder is refused.
    settings
        What decides whether an image is kept. It must stay the same for a folder.

    Raises
    ------
    UserError
        Damaged records, other settings, or another run at work.
    """

    def __init__(self, folder: str, settings: dict[str, typing.Any]) -> None:
        self.folder = folder
        self._incoming = os.path.join(folder, ".incoming")
        os.makedirs(self._incoming, exist_ok=True)
        if os.path.exists(os.path.join(folder, EARLIER)):
            raise UserError("{}: an earlier version made this collection, and this one cannot "
                            "continue it; use its images with --from-dir, or start again in "
                            "another --data-dir".format(os.path.join(folder, EARLIER)))
        self._records = Records(os.path.join(folder, "records.sqlite"))
        try:
            self._check_settings(settings)
            for leftover in glob.glob(os.path.join(glob.escape(folder), PARTIAL + "*")):
                os.remove(leftover)
            self._seen = self._kept_images()
            self._counts = self.inventory().counts()
        except BaseException:
            self._records.close()
            raise

    def close(self) -> None:
        """Release the folder for other runs."""
        self._records.close()

    def _check_settings(self, settings: dict[str, typing.Any]) -> None:
        earlier = self._records.settings()
        if not earlier:
            self._records.add_settings(settings)
            return
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise UserError("{}: was begun with {} {}, not {}; use the same, or start again "
                                "in another --data-dir".format(
                                    self.folder, name, earlier.get(name), value))

    def _kept_images(self) -> SeenImages:
        seen, fetched = SeenImages(), self._records.all_fetched()
        for verdict in self._records.verdicts():
            if verdict.cause == KEPT and verdict.url in fetched:
                seen.add(fetched[verdict.url].digest, fetched[verdict.url].hash)
        return seen

    def inventory(self) -> Inventory:
        """The collection as it is now."""
        return Inventory(self.folder, self._records)

    def count_kept(self, query: str) -> int:
        """How many images of a query are kept and still there."""
        return self._counts[query]

    def _staged(self, digest: str) -> str:
        return os.path.join(self._incoming, digest + ".jpg")

    def pages(self, source: str, query: str) -> list[ResultPage]:
        """The result pages that are known of a service's answer."""
        return self._records.pages(source, query)

    def add_page(self, source: str, query: str, page: ResultPage) -> None:
        """Remember a result page, so that a later run need not ask for it."""
        self._records.add_page(source, query, page)

    def add_image(self, candidate: Candidate, jpeg: bytes, digest: str, bits: np.ndarray) -> None:
        """Store an image that passed its own checks.

        Parameters
        ----------
        candidate, jpeg
        digest
            The pixel digest of what ``jpeg`` decodes to.
        bits
            bool, [256], its perceptual hash.
        """
        with write_atomically(self._staged(digest)) as stream:
            stream.write(jpeg)
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        self._records.add_fetched(Fetched(candidate, digest, bits, now.isoformat()))

    def add_failure(self, candidate: Candidate, query: str, error: Unusable,
                    final: bool) -> None:
        """Remember why a candidate gave no image."""
        self._records.add_failure(
            Failure(candidate.url, query, error.cause, error.detail, final))

    def is_settled(self, query: str, candidate: Candidate) -> bool:
        """Whether a candidate was decided on or failed for good."""
        failure = self._records.failure(candidate.url)
        return self._records.is_decided(query, candidate.url) or bool(failure and failure.final)

    def has_image(self, query: str, candidate: Candidate) -> bool:
        """Whether a candidate can be decided on without a download."""
        fetched = self._records.fetched(candidate.url)
        return fetched is not None and (
            os.path.exists(self._staged(fetched.digest))
            or os.path.exists(image_path(self.folder, query, fetched.digest))
            or self._seen.find(fetched.digest, fetched.hash) is not None)

    def decide(self, query: str, candidate: Candidate) -> bool:
        """Keep a downloaded image, unless it is like one that was kept before.

        Returns
        -------
        bool
            Whether it was kept; False also for a candidate that was not downloaded.
        """
        fetched = self._records.fetched(candidate.url)
        if fetched is None or self._records.failure(candidate.url):
            return False
        staged = self._staged(fetched.digest)
        found = self._seen.find(fetched.digest, fetched.hash)
        if found:
            cause, twin = found
            self._records.add_verdict(
                Verdict(query, candidate.url, cause, "like {}.jpg".format(twin)))
            if os.path.exists(staged):
                os.remove(staged)
            return False
        path = image_path(self.folder, query, fetched.digest)
        if os.path.exists(staged):  # not if a run was killed between here and the records
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(staged, path)
        self._records.add_verdict(Verdict(query, candidate.url, KEPT, ""))
        self._seen.add(fetched.digest, fetched.hash)
        self._counts[query] += 1
        return True

    def clear_incoming(self) -> None:
        """Remove the files that no candidate needs any more, at the end of a run.

        Images of queries that an earlier, killed run asked for stay for a later run.
        """
        decided = {verdict.url for verdict in self._records.verdicts()}
        needed = {fetched.digest + ".jpg" for url, fetched in self._records.all_fetched().items()
                  if url not in decided}
        with contextlib.suppress(OSError):  # the folder is not empty
            for name in set(os.listdir(self._incoming)) - needed:
                os.remove(os.path.join(self._incoming, name))
            os.rmdir(self._incoming)


class Inventory:
    """What a collection holds, and what was skipped."""

    def __init__(self, folder: str, records: Records) -> None:
        self._folder = folder
        self._fetched = records.all_fetched()
        self._failures, self._verdicts = records.failures(), records.verdicts()
        kept = [each for each in self._verdicts if each.cause == KEPT and each.url in self._fetched]
        here = {each for each in kept if os.path.exists(self._path(each))}
        self._kept = [each for each in kept if each in here]
        self._removed = [each for each in kept if each not in here]

    def _path(self, verdict: Verdict) -> str:
        return image_path(self._folder, verdict.query, self._fetched[verdict.url].digest)

    def counts(self) -> collections.Counter:
        """The number of images kept, by query."""
        return collections.Counter(each.query for each in self._kept)

    def samples(self) -> list[NegativeSample]:
        """Every image kept, by path."""
        found = []
        for each in self._kept:
            fetched = self._fetched[each.url]
            found.append(
                NegativeSample(self._path(each), each.query, fetched.digest, fetched.hash))
        return sorted(found, key=lambda sample: sample.path)

    def rejections(self) -> list[Rejection]:
        """Every candidate that was skipped, sorted."""
        skipped = [Rejection(each.url, each.query, each.cause, each.detail)
                   for each in self._failures]
        skipped += [Rejection(each.url, each.query, each.cause, each.detail)
                    for each in self._verdicts if each.cause != KEPT]
        skipped += [Rejection(each.url, each.query, "removed by hand", "its file is gone")
                    for each in self._removed]
        return sorted(skipped)

    def attribution(self) -> list[list[str]]:
        """The rows for :func:`darknet_face.negatives.reports.write_attribution`."""
        rows = []
        for each in self._kept:
            candidate, _, _, time = self._fetched[each.url]
            rows.append([os.path.relpath(self._path(each), self._folder),
                         candidate.page or each.url, candidate.creator, candidate.licence,
                         each.query, time])
        return rows

    def folders(self) -> dict[str, list[str]]:
        """The paths of the images kept, by folder, in the order of the decisions."""
        paths: dict[str, list[str]] = {}
        for each in self._kept:
            paths.setdefault(folder_name(each.query), []).append(self._path(each))
        return paths


def image_path(folder: str, query: str, digest: str) -> str:
    """The file of a kept image in the folder of a collection."""
    return os.path.join(folder, folder_name(query), digest + ".jpg")


def folder_name(query: str) -> str:
    """A folder for the images of a query: a safe name, and a different one for each query.

    A query of lower-case letters, digits, blanks and hyphens keeps its name. Any other becomes its
    first 30 letters and a piece of its hash.
    """
    if re.match(r"^[a-z0-9][a-z0-9 -]{0,39}$", query) and query == query.strip():
        return query.replace(" ", "_")
    letters = re.sub(r"[\W_]+", "_", query.lower())[:30].strip("_")
    return "{}_{}".format(letters, hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()[:8])
