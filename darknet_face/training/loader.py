"""From file lists to training batches: reading, augmenting, balancing and shuffling.

A training batch is a pure function of the lists, the seed and the training step. So any number of
worker processes (see :mod:`darknet_face.training.workers`) prepares the same batches, and a
resumed training continues with the same batches as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import typing

import numpy as np

from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import UserError
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.file_lists import Split
from darknet_face.training.augment import Augmenter
from darknet_face.training.mixture import Mixture
from darknet_face.training.schedule import EpochSchedule


class TrainingBatches:
    """Balanced, shuffled, augmented batches by number.

    An epoch shows every image of the larger class at least once; the smaller class is repeated,
    newly shuffled each time, as often as needed. The first half of a batch are faces.

    Parameters
    ----------
    mixture
        The images; a Split is one dataset.
    batch_size
        Even.
    image_size
    seed
    augment
        Which part of the augmentation; one of :data:`darknet_face.training.augment.KINDS`.
    schedule
        Which images a step takes; by one process if absent.
    rank
        Whose part of each step the batches are.
    """

    def __init__(self, mixture: typing.Any, batch_size: int, image_size: int, seed: int = 0,
                 augment: str = "all", schedule: EpochSchedule | None = None, rank: int = 0
                ) -> None:
        if batch_size < 2 or batch_size % 2:
            raise ValueError("the batch size must be even and at least 2")
        self.mixture = Mixture([mixture]) if isinstance(mixture, Split) else mixture
        self.split = self.mixture.split
        self.half = batch_size // 2
        self.image_size = image_size
        self.seed = seed
        self.schedule = schedule or EpochSchedule(max(map(len, self.split)), self.half)
        self.rank = rank
        self.steps_per_epoch = self.schedule.steps_per_epoch
        self._augmenter = Augmenter(image_size, augment)
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
        """Batch number ``step`` of the whole training, from 0.

        Returns
        -------
        images : numpy.ndarray
            uint8, [batch, image_size, image_size, 3], RGB.
        labels : numpy.ndarray
            int32, [batch]: 0 FACE, 1 NON_FACE.
        bad : list of (str, str)
            Files that did not decode, each with the cause. Other images replace them.

        Raises
        ------
        UserError
            When 50 files in a row do not decode.
        """
        bad: list[tuple[str, str]] = []
        pictures, aligned = [], []
        share = self.schedule.share(step, self.rank)
        for label in (FACE, NON_FACE):
            order = self._order(share.epoch, label)
            for place in range(share.start, share.start + share.count):
                index, picture = self._read(label, order, place, bad)
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
                label, self.schedule.equivalent_steps_per_epoch * self.half,
                _seed(self.seed, label, epoch))
        return self._orders[key]

    def _read(self, label, order, place, bad):
        """The image at a place of an order, or the next that decodes: its index and pixels."""
        for attempt in range(50):
            index = order[(place + attempt) % len(order)]
            path = self.split[label][index]
            try:
                return index, read_image(path)
            except BadImage as error:
                bad.append((path, str(error)))
        raise UserError("{}: {}; 50 files in a row do not decode: check the disk or make the "
                        "file lists again".format(*bad[-1]))


def _seed(*numbers):
    """One 31-bit seed from several numbers: close numbers give unrelated seeds."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
