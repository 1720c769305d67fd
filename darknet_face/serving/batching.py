"""Pictures of concurrent requests, classified together by one thread.

The network is faster with several pictures in a run, and two runs at a time would only share the
cores. What waits is bounded: a server that can't keep up says so at once, before its memory fills.
"""

from __future__ import annotations

import collections
import concurrent.futures
import threading

Job = collections.namedtuple("Job", "picture wants_map future")
Answer = collections.namedtuple("Answer", "result heat_map")
Answer.__doc__ = """A :class:`classify.Result`, and the heat map if it was asked for or None."""


class Full(Exception):
    """Too many pictures wait; try again later."""


class Closed(Exception):
    """No more pictures are taken: the program ends."""


class Batcher:
    """Classifies pictures in batches, in a thread of its own.

    Parameters
    ----------
    model : darknet_face.classify.api.FaceModel
    most_waiting : int
        The most pictures that may wait for their turn.
    most_together : int
        The most pictures in a batch. A batch takes what waits and never waits for more.
    """

    def __init__(self, model, most_waiting=32, most_together=8):
        self.model, self.most_waiting, self.most_together = model, most_waiting, most_together
        self._waiting = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="batches")
        self._thread.start()

    def __len__(self):
        """How many pictures wait."""
        return len(self._waiting)

    def submit(self, pictures, wants_map=False):
        """Hand in the pictures of a request: all of them, or none.

        Parameters
        ----------
        pictures : list
            Of anything that the model takes for a picture.
        wants_map : bool
            Also map where a face is seen.

        Returns
        -------
        list of concurrent.futures.Future
            Of an :class:`Answer` for each picture.

        Raises
        ------
        Full, Closed
        """
        jobs = [Job(picture, wants_map, concurrent.futures.Future()) for picture in pictures]
        with self._changed:
            if self._is_closed:
                raise Closed()
            if len(self._waiting) + len(jobs) > self.most_waiting:
                raise Full()
            self._waiting.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self):
        """Answer what waits, take no more, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                count = min(len(self._waiting), self.most_together)
                batch = [self._waiting.popleft() for _ in range(count)]
            if not batch:
                return
            self._answer(batch)

    def _answer(self, batch):
        try:
            results = self.model([job.picture for job in batch])
            for job, result in zip(batch, results):
                heat_map = None
                if job.wants_map and not result.error:
                    heat_map = self.model.heat_map(job.picture)
                job.future.set_result(Answer(result, heat_map))
        except Exception as error:  # the threads that wait raise it; this one goes on
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
