"""From file lists to batches: reading, augmenting, balancing and shuffling, beside the session.

A training batch is a pure function of the lists, the seed and the training step. So any number of
worker processes prepares the same batches, and a resumed run goes on with the very batch that an
uninterrupted one would have had.

``python -m training.loader --preview preview.png`` draws a sheet of augmented training images.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np

from pictures.classes import FACE, NON_FACE
from pictures.decode import BadImage, read_image
from pictures.lists import add_data_arguments, load_split
from pictures.reader import LARGEST_BATCH, LARGEST_SIZE
from pictures.sheets import BLUE, RED, contact_sheet, picture_name, save_picture
from training.augment import KINDS, Augmenter
from training.mixture import Mixture
from training.schedule import Course
from utils import HelpFormatter, UserError, cli, number_type, warn


class TrainingBatches:
    """Balanced, shuffled, augmented batches by number.

    An epoch shows every picture of the larger class at least once; the smaller class is drawn
    through again, newly shuffled, as often as it takes. The first half of a batch are faces.

    Parameters
    ----------
    mixture : Mixture or pictures.lists.Split
        The pictures; a bare Split is one source.
    batch_size : int
        Even.
    image_size : int
    seed : int
    augment : str
        Which part of the augmentation; one of :data:`training.augment.KINDS`.
    course : Course, optional
        Which pictures a step takes; that of one process, from the start, if absent.
    rank : int
        The batches are this rank's part of the course.
    """

    def __init__(self, mixture, batch_size, image_size, seed=0, augment="all", course=None,
                 rank=0):
        if batch_size < 2 or batch_size % 2:
            raise ValueError("the batch size must be even and at least 2")
        self.mixture = mixture if isinstance(mixture, Mixture) else Mixture([mixture])
        self.split = split = self.mixture.split
        self.half = batch_size // 2
        self.image_size = image_size
        self.seed = seed
        self.course = course or Course(max(len(split.faces), len(split.negatives)), self.half)
        self.rank = rank
        self.steps_per_epoch = self.course.steps_per_epoch
        self._augmenter = Augmenter(image_size, augment)
        self._orders = {}

    def batch(self, step):
        """Batch number ``step`` of the whole training, from 0.

        Returns
        -------
        images : numpy.ndarray
            uint8, [batch, image_size, image_size, 3], RGB.
        labels : numpy.ndarray
            int32, [batch]: 0 FACE, 1 NON_FACE.
        bad : list of (str, str)
            Files that did not decode, each with the cause; others took their places.

        Raises
        ------
        UserError
            When file after file fails to decode.
        """
        bad, pictures, aligned = [], [], []
        share = self.course.share(step, self.rank)
        for label in (FACE, NON_FACE):
            order = self._order(share.epoch, label)
            for k in range(share.count):
                index, picture = self._read(label, order, share.start + k, bad)
                pictures.append(picture)
                aligned.append(self.mixture.aligned[label][index])
        labels = np.repeat(np.array([FACE, NON_FACE], np.int32), share.count)
        seed = _seed(self.seed, 2, step, *([self.rank] if self.rank else []))
        return self._augmenter(pictures, labels, seed, aligned), labels, bad

    def _order(self, epoch, label):
        """Indices of one class for a whole epoch, as many as the epoch's batches take."""
        key = label, epoch
        if key not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if abs(k[1] - epoch) <= 1}
            self._orders[key] = self.mixture.order(
                label, self.course.clock_of_epoch * self.half, _seed(self.seed, label, epoch))
        return self._orders[key]

    def _read(self, label, order, place, bad):
        """The picture at a place in an order, or the next that decodes, and its index."""
        for attempt in range(50):
            index = order[(place + attempt) % len(order)]
            path = self.split[label][index]
            try:
                return index, read_image(path)
            except BadImage as error:
                bad.append((path, str(error)))
        raise UserError("{}: {}; 50 files in a row do not decode: check the disk or make the "
                        "file lists anew".format(*bad[-1]))


def _seed(*numbers):
    """One 31-bit seed from several numbers, so that neighbours share nothing."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


_worker_sources = None  # set in each worker process: a task then is a name and a step number


def _start_worker(sources, program):
    """Prepare a worker process: one core, no say in Ctrl-C, no life without the program.

    ``program`` is the reading end of a pipe whose other end only the program holds.
    """
    global _worker_sources
    _worker_sources = sources
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
    threading.Thread(target=_watch, args=(program,), daemon=True).start()


def _watch(program):
    """End this process once the program, which is not its parent, has gone."""
    program.poll(None)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


def _work(name, step):
    return _worker_sources[name].batch(step)


class BatchLoader:
    """Prepares training batches in worker processes, ahead of the session and in order.

    The workers come from a fork server: forked from this process, they could inherit a lock that
    one of TensorFlow's threads holds, and wait for it for ever. Use it as a context manager.

    Parameters
    ----------
    sources : dict of str to TrainingBatches
    workers : int
        Processes; 0 prepares each batch when it is asked for.
    """

    def __init__(self, sources, workers=1):
        self.sources = sources
        self._ahead = 2 * workers + 2
        self._pool = None
        self._pending = collections.deque()
        self._reported = set()
        if workers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            program, self._alive = context.Pipe(duplex=False)
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers, context, initializer=_start_worker, initargs=(sources, program))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._pool:
            self._cancel()
            self._pool.shutdown()

    def _cancel(self):
        while self._pending:
            self._pending.popleft().cancel()

    def stream(self, name, first_step, last_step, stride=1):
        """Yield ``(images, labels)`` of the source ``name``, steps ``first_step .. last_step - 1``.

        Only one stream runs at a time. With a stride of n it takes every n-th step.

        Files that don't decode are reported once each on stderr.

        Raises
        ------
        UserError
            When a worker process dies or too many files fail.
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
            raise UserError("a batch worker died, most likely for want of memory; use fewer "
                            "--workers or a smaller --batch-size", exit_code=1)
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
    def bad_files(self):
        """How many files have failed to decode so far."""
        return len(self._reported)


@cli
def main():
    parser = argparse.ArgumentParser(
        description="Draw a labelled sheet of augmented training images.",
        formatter_class=HelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--preview", type=picture_name, default="preview.png", metavar="PNG",
                        help="picture to write")
    parser.add_argument("--image-size", type=number_type(int, 32, LARGEST_SIZE), default=224,
                        help="height and width of the images")
    parser.add_argument("--images", type=number_type(int, 2, LARGEST_BATCH), default=64,
                        help="how many images to show, half of them faces")
    parser.add_argument("--seed", type=number_type(int, 0), default=0, help="of the augmentation")
    parser.add_argument("--step", type=number_type(int, 0), default=0,
                        help="show the batch of this training step")
    parser.add_argument("--augment", choices=KINDS, default="all",
                        help="the whole augmentation or a part of it")
    args = parser.parse_args()
    batches = TrainingBatches(
        load_split(args.data_dir, "train"), args.images // 2 * 2, args.image_size, args.seed,
        args.augment)
    images, labels, bad = batches.batch(args.step)
    for path, cause in bad:
        warn("{}: {}; skipped".format(path, cause))
    save_picture(args.preview, contact_sheet(
        images, ["FACE" if label == FACE else "NON_FACE" for label in labels],
        [BLUE if label == FACE else RED for label in labels],
        "Training images as the network sees them", columns=8, tile=128))
    print("wrote {}".format(args.preview))


if __name__ == "__main__":
    main()
