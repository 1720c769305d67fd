"""Images for inference: decoded in threads, ahead of the session, alone or in batches."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import os
from typing import Any, Callable, Iterable, Iterator

import numpy as np

from darknet_face.images.decode import OVERSAMPLING, BadImage, read_image
from darknet_face.images.resize import resize

# Bounds for the command line, far above what is useful: a typing error must not fill the memory.
LARGEST_SIZE = 4096
LARGEST_BATCH = 4096


def read_for_inference(path: str, least_size: int) -> np.ndarray:
    """Read an image that will be shrunk to no less than ``least_size``; raises BadImage."""
    return read_image(path, least_size=least_size)


def read_batches(
        paths: Iterable[Any], batch_size: int, image_size: int,
        read: Callable[[Any, int], np.ndarray] = read_for_inference,
) -> Iterator[tuple[list[Any], np.ndarray, list[tuple[Any, str]]]]:
    """Read images in threads, a few batches ahead, and yield them in the order given.

    Parameters
    ----------
    image_size
        Height and width that every image is stretched to.
    read
        Called with one of ``paths`` (any objects, then) and the size below which the image must
        not be shrunk. Returns an RGB image or raises BadImage.

    Yields
    ------
    paths
        The batch's files that decoded.
    images
        uint8, [len(paths), image_size, image_size, 3], RGB; len(paths) may be 0.
    bad
        The batch's files that did not, each with the cause.
    """
    def read_resized(path: Any) -> np.ndarray:
        return resize(read(path, OVERSAMPLING * image_size), image_size, image_size)

    results = read_ahead(paths, read_resized, ahead=3 * batch_size)
    for chunk in iter(lambda: list(itertools.islice(results, batch_size)), []):
        images = [image for _, image, _ in chunk if image is not None]
        yield ([path for path, image, _ in chunk if image is not None],
               np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8),
               [(path, cause or "") for path, image, cause in chunk if image is None])


def read_ahead(items: Iterable[Any], read: Callable[[Any], Any], threads: int = 2,
               ahead: int = 8) -> Iterator[tuple[Any, Any, str | None]]:
    """Read images in threads, in the order given.

    Parameters
    ----------
    read
        Turns an item into an image, or raises BadImage.
    threads
        Decoding threads (the decoders release Python's lock).
    ahead
        The most images that are read before they are asked for.

    Yields
    ------
    item, image, cause
        ``image`` is None for a bad image, otherwise ``cause`` is.
    """
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[Any] = collections.deque()
        while True:
            # Not at every turn: what is read is handed on before a slow list is asked for more.
            if len(pending) <= 2 * ahead // 3:
                for item in itertools.islice(items, ahead - len(pending)):
                    pending.append((item, pool.submit(read, item)))
            if not pending:
                return
            item, future = pending.popleft()
            try:
                image, cause = future.result(), None
            except BadImage as error:
                image, cause = None, str(error)
            yield item, image, cause


def map_in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield ``function(item)`` for each item, in order, computed by as many threads as processors.

    The items are taken 512 at a time: ``pool.map`` alone would queue all of them at once.
    """
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in iter(lambda: list(itertools.islice(items, 512)), []):
            yield from pool.map(function, part)
