"""Fill a store with images from a service: search, download, check and decide."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import json
import typing
import warnings

from darknet_face.console import progress
from darknet_face.images.decode import pixel_digest
from darknet_face.images.near_duplicates import perceptual_hash
from darknet_face.negatives.checks import FaceDetector, Unfit, decode_download, stored_form
from darknet_face.negatives.client import FetchError, PoliteClient, Refused
from darknet_face.negatives.reports import Unusable
from darknet_face.negatives.services import Candidate, ResultPage, Service
from darknet_face.negatives.store import NegativeStore

MAX_DOWNLOAD_BYTES = 20 * 1000 * 1000  # longer files are not read to their end
MAX_DOWNLOAD_PIXELS = 50 * 1000 * 1000  # larger images are not decoded

STALE_PAGES = 5  # result pages in a row that may bring nothing new
CANDIDATES_PER_IMAGE = 10  # search results to try for each image wanted, and 100 more
OUTAGE = 50  # transient failures in a row after which a query ends


class Collector:
    """Fills a store from a service, query by query.

    Threads download and check images at the same time. Images are kept or not in the order of
    the search results, so that the result does not depend on the speed of the threads.

    Parameters
    ----------
    source, store, client
    wanted
        Images per query; None for all that are found.
    min_side
        The least height and width in pixels, as an image is stored.
    keep_faces
        Whether images of human faces are kept too.
    workers
        Number of download threads.
    """

    def __init__(self, source: Service, store: NegativeStore, client: PoliteClient,
                 wanted: int | None, min_side: int, keep_faces: bool, workers: int) -> None:
        self._source = source
        self._store = store
        self._client = client
        self._wanted = wanted or float("inf")
        self._min_side = min_side
        self._faces = None if keep_faces else FaceDetector()
        self._workers = workers
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)
        self.notes: dict[str, str] = {}  # query -> why it has fewer images than wanted
        # Pillow warns of odd metadata; its own way to silence that is not safe for threads.
        warnings.simplefilter("ignore")

    def close(self) -> None:
        """Abort the downloads under way."""
        self._client.stop()
        self._pool.shutdown()

    def collect(self, query: str) -> None:
        """Keep images for a query until there are enough, or no more are found."""
        candidates = self._candidates(query)
        failed_in_a_row = rejected = 0
        total = None if self._wanted == float("inf") else self._wanted
        with progress(total=total, desc=query, unit="image",
                      initial=self._store.count_kept(query)) as bar:
            for candidate, settled in self._downloads(query, candidates):
                kept = self._store.decide(query, candidate)
                rejected += not kept
                bar.update(kept)
                bar.set_postfix(rejected=rejected, refresh=False)
                failed_in_a_row = 0 if settled else failed_in_a_row + 1
                if total and failed_in_a_row == OUTAGE:
                    self.notes[query] = "{} images in a row could not be fetched".format(OUTAGE)
                    candidates.close()

    def _downloads(self, query: str, candidates: typing.Iterator[Candidate],
                   ) -> typing.Iterator[tuple[Candidate, bool]]:
        """Download with all threads: yield candidates in order, with what :meth:`_fetch` says."""
        window: collections.deque = collections.deque()
        while True:
            # No more downloads than images are missing: none is in vain.
            missing = self._wanted - self._store.count_kept(query)
            room = min(missing, 8 * self._workers) - len(window)
            for candidate in itertools.islice(candidates, max(0, int(room))):
                window.append((candidate, self._pool.submit(self._fetch, query, candidate)))
            if not window:
                return
            candidate, download = window.popleft()
            yield candidate, download.result()

    def _fetch(self, query, candidate):
        """Download and check one candidate, and tell the store how it went.

        Returns
        -------
        bool
            False after a failure that may pass.
        """
        if self._store.has_image(query, candidate):
            return True
        try:
            body = self._client.get_image(candidate.url, MAX_DOWNLOAD_BYTES)
            image = decode_download(body, MAX_DOWNLOAD_PIXELS, self._min_side)
            jpeg, stored = stored_form(image)
            if self._faces and self._faces.has_face(stored):
                raise Unfit("human face")
        except Unusable as error:
            final = isinstance(error, (Refused, Unfit))
            self._store.add_failure(candidate, query, error, final)
            return final
        self._store.add_image(candidate, jpeg, pixel_digest(stored), perceptual_hash(stored))
        return True

    def _candidates(self, query: str) -> typing.Generator[Candidate, None, None]:
        """Yield each candidate for a query once, without those that are settled."""
        seen: set[str] = set()
        stale = 0
        for page in self._pages(query):
            before = len(seen)
            for candidate in page.candidates:
                if len(seen) >= CANDIDATES_PER_IMAGE * self._wanted + 100:
                    self.notes[query] = "stopped after {} search results".format(len(seen))
                    return
                if candidate.url not in seen:
                    seen.add(candidate.url)
                    if not self._store.is_settled(query, candidate):
                        yield candidate
            stale = 0 if len(seen) > before else stale + 1
            if stale == STALE_PAGES:
                self.notes[query] = "{} result pages in a row held nothing new".format(stale)
                return

    def _pages(self, query: str) -> typing.Iterator[ResultPage]:
        """Yield the result pages of a query: first the known ones, then new ones."""
        pages = self._store.pages(self._source.name, query)
        yield from pages
        continuation = pages[-1].next if pages else {}
        asked = {_key(page.next) for page in pages[:-1]} | {_key({})} if pages else set()
        while continuation is not None:
            if _key(continuation) in asked:
                self.notes[query] = "the service repeats its result pages"
                return
            asked.add(_key(continuation))
            try:
                page = self._source.search(self._client, query, continuation)
            except FetchError as error:
                self.notes[query] = "the search failed: {}".format(error)
                return
            if self._source.is_remembered:
                self._store.add_page(self._source.name, query, page)
            yield page
            continuation = page.next
        self.notes[query] = "there are no more search results"


def _key(continuation):
    """A continuation as a string, which can be a member of a set."""
    return json.dumps(continuation, sort_keys=True)
