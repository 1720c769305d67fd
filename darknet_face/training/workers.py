"""Worker processes that prepare batches ahead of the session.

They import neither TensorFlow nor the training script: only what reads and augments images.
"""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import typing
from concurrent.futures.process import BrokenProcessPool

import cv2

from darknet_face.console import UserError, warn

SOCKET_NAME_LENGTH = 103 if sys.platform == "darwin" else 107

# Set in each worker process: a task then is a name and a step number.
_worker_sources: typing.Any = None


def _start_worker(sources, program):
    """Prepare a worker process: it uses one core and leaves Ctrl-C to the program.

    ``program`` is the reading end of a pipe. Only the program holds the other end.
    """
    global _worker_sources
    _worker_sources = sources
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
    threading.Thread(target=_watch, args=(program,), daemon=True).start()


def _watch(program):
    """End this process once the program, which is not its parent, has ended."""
    program.poll(None)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


def _work(name, step):
    return _worker_sources[name].batch(step)


def _check_temporary_folder():
    """Check that the fork server can make its socket: the system limits the name's length."""
    longest = SOCKET_NAME_LENGTH - len("/pymp-12345678/listener-12345678")
    if len(os.fsencode(tempfile.gettempdir())) > longest:
        raise UserError("{}: too long a name for a folder with sockets; set TMPDIR to a folder "
                        "whose name has at most {} bytes, or use --workers 0".format(
                            tempfile.gettempdir(), longest))


def _start_context():
    """How workers are started: by a fork server, or anew where there is none, as on Windows."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    _check_temporary_folder()
    context = multiprocessing.get_context("forkserver")
    # imgaug is last: the module before makes it fit today's NumPy.
    context.set_forkserver_preload(
        [__name__, "darknet_face.training.loader", "imgaug.augmenters"])
    return context


class BatchLoader:
    """Prepares training batches in worker processes, ahead of the session and in order.

    The workers are started by a fork server. If they were forked from this process, they could
    inherit a lock that a thread of TensorFlow holds, and wait for it without end. Use the loader as
    a context manager.

    Parameters
    ----------
    sources
    workers
        Processes; 0 prepares each batch when it is asked for.
    """

    def __init__(self, sources: dict[str, typing.Any], workers: int = 1) -> None:
        self.sources = sources
        self._ahead = 2 * workers + 2
        self._pool = None
        self._pending: collections.deque = collections.deque()
        self._reported: set[str] = set()
        if workers:
            context = _start_context()
            program, self._alive = context.Pipe(duplex=False)
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers, context, initializer=_start_worker, initargs=(sources, program))

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._cancel()
            self._pool.shutdown()

    def _cancel(self):
        while self._pending:
            self._pending.popleft().cancel()

    def stream(self, name: str, first_step: typing.Any, last_step: typing.Any,
               stride: typing.Any = 1) -> typing.Iterator[typing.Any]:
        """Yield ``(images, labels)`` of the source ``name``, steps ``first_step .. last_step - 1``.

        Only one stream runs at a time. With a stride of n it takes every n-th step. Each file that
        does not decode is reported once on stderr.

        Raises
        ------
        UserError
            When a worker process dies or too many files do not decode.
        """
        submitted = first_step
        try:
            for step in range(first_step, last_step, stride):
                if not self._pool:
                    yield self._report(self.sources[name].batch(step))
                    continue
                while submitted < last_step and len(self._pending) < self._ahead:
                    self._pending.append(self._pool.submit(_work, name, submitted))
                    submitted += stride
                yield self._report(self._pending.popleft().result())
        except BrokenProcessPool:
            raise UserError("a batch worker was killed, most likely because the memory is full; "
                            "use fewer --workers or a smaller --batch-size", exit_code=1)
        finally:
            self._cancel()

    def _report(self, result):
        images, labels, bad = result
        for path, cause in bad:
            if path not in self._reported:
                self._reported.add(path)
                warn("{}: {}; skipped".format(path, cause))
        return images, labels

    @property
    def bad_files(self) -> typing.Any:
        """How many files have failed to decode so far."""
        return len(self._reported)
