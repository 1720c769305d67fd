"""Pictures read in threads: batches for inference, and functions over very many files."""

import collections
import concurrent.futures
import itertools
import os

import numpy as np

from pictures.decode import OVERSAMPLING, BadImage, read_image, resize

# Bounds for the command line, far above what is useful: a typing error must not fill the memory.
LARGEST_SIZE = 4096
LARGEST_BATCH = 4096


def read_for_inference(path, least_size):
    """Read a picture that will be shrunk to no less than ``least_size``; raises BadImage."""
    return read_image(path, least_size=least_size)


def read_batches(paths, batch_size, image_size, threads=2, read=read_for_inference):
    """Read pictures in threads, a few batches ahead, and yield them in the order given.

    Parameters
    ----------
    paths : iterable of str
    batch_size : int
    image_size : int
        Height and width that every picture is stretched to.
    threads : int
        Decoding threads (the decoders release Python's lock).
    read : callable
        Called with one of ``paths`` (any objects, then) and the size below which the picture must
        not be shrunk. Returns an RGB image or raises BadImage.

    Yields
    ------
    paths : list of str
        The batch's files that decoded.
    images : numpy.ndarray
        uint8, [len(paths), image_size, image_size, 3], RGB; len(paths) may be 0.
    bad : list of (str, str)
        The batch's files that did not, each with the cause.
    """
    paths = iter(paths)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque()
        while True:
            while len(pending) < 3 * batch_size:
                chunk = list(itertools.islice(paths, batch_size))
                if not chunk:
                    break
                pending.extend(
                    (path, pool.submit(_read_resized, path, image_size, read)) for path in chunk)
            if not pending:
                return
            yield _gather([pending.popleft() for _ in range(min(batch_size, len(pending)))],
                          image_size)


def _read_resized(path, size, read):
    return resize(read(path, OVERSAMPLING * size), size, size)


def _gather(results, size):
    good, images, bad = [], [], []
    for path, future in results:
        try:
            images.append(future.result())
            good.append(path)
        except BadImage as error:
            bad.append((path, str(error)))
    return good, np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8), bad


def map_in_threads(function, items, chunk=512):
    """Yield ``function(item)`` for each item, in order, computed by as many threads as processors.

    The items are taken ``chunk`` at a time: ``pool.map`` alone would queue all of them at once.
    """
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in iter(lambda: list(itertools.islice(items, chunk)), []):
            yield from pool.map(function, part)
