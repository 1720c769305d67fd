"""Images of concurrent requests, classified together by one thread.

The network is faster with several images in a run, and two runs at a time would only share the
cores. What waits is bounded: a server that can't keep up says so at once, before its memory fills.
"""

from __future__ import annotations

import collections
import concurrent.futures
import threading
import typing

import numpy as np

from darknet_face.classify.api import FaceModel
from darknet_face.classify.results import Result


class Job(typing.NamedTuple):
    """An image that waits, and where its answer goes."""

    image: typing.Any
    wants_map: bool
    future: concurrent.futures.Future


class Answer(typing.NamedTuple):
    """The answer for an image, with the heat map if it was asked for."""

    result: Result
    heat_map: np.ndarray | None


class Full(Exception):
    """Too many images wait; try again later."""


class Closed(Exception):
    """No more images are taken: the program ends."""


class Batcher:
    """Classifies images in batches, in a thread of its own.

    Parameters
    ----------
    model
        See :func:`darknet_face.classify.api.load`.
    most_waiting
        The most images that may wait for their turn.
    most_together
        The most images in a batch. A batch takes what waits and never waits for more.
    """

    def __init__(self, model: FaceModel, most_waiting: int = 32, most_together: int = 8) -> None:
        self.model, self.most_waiting, self.most_together = model, most_waiting, most_together
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        # A daemon, so that a program that gives up on a long batch can end.
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many images wait."""
        return len(self._waiting)

    def submit(self, images: list[typing.Any],
               wants_map: bool = False) -> list[concurrent.futures.Future]:
        """Hand in the images of a request: all of them, or none.

        Parameters
        ----------
        images
            Of anything that the model takes for an image.
        wants_map
            Also map where a face is seen.

        Returns
        -------
        list of concurrent.futures.Future
            Of an :class:`Answer` for each image.

        Raises
        ------
        Full, Closed
        """
        jobs = [Job(image, wants_map, concurrent.futures.Future()) for image in images]
        with self._changed:
            if self._is_closed:
                raise Closed()
            if len(self._waiting) + len(jobs) > self.most_waiting:
                raise Full()
            self._waiting.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self, seconds: float | None = None) -> bool:
        """Answer what waits, take no more, and end the thread.

        After ``seconds`` what still waits gets :class:`Closed`. Returns whether the thread ended.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            for job in self._waiting:
                job.future.set_exception(Closed())
            self._waiting.clear()
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                count = min(len(self._waiting), self.most_together)
                batch = [self._waiting.popleft() for _ in range(count)]
            if not batch:
                return
            self._answer(batch)

    def _answer(self, batch: list[Job]) -> None:
        try:
            results = self.model([job.image for job in batch])
            for job, result in zip(batch, results):
                heat_map = None
                if job.wants_map and not result.error:
                    heat_map = self.model.heat_map(job.image)
                job.future.set_result(Answer(result, heat_map))
        except Exception as error:  # the threads that wait raise it; this one goes on
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
