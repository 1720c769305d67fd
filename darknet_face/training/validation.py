"""Validating checkpoints in an inference graph, and keeping the best one."""

from __future__ import annotations

import math
import os
import typing

import numpy as np

from darknet_face.classes import FACE
from darknet_face.console import UserError, progress
from darknet_face.engines.tensorflow_classifier import build_classifier
from darknet_face.images.reader import read_batches
from darknet_face.runtime import distributed
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import read_json
from darknet_face.runtime.session import tf
from darknet_face.training.history import HISTORY
from darknet_face.weights.arrays import assign
from darknet_face.weights.checkpoints import keep_only, read_checkpoint, save_checkpoint

if typing.TYPE_CHECKING:
    from darknet_face.engines.engine import Engine
    from darknet_face.training.settings import Settings
    from darknet_face.training.workers import BatchLoader

BEST_LOST = "remove the folder and train on with more --epochs, or begin again with --restart"


class Validator:
    """The inference graph beside the training graph; the best of its weights are saved.

    Attributes
    ----------
    classifier
        With the weights of the checkpoint that :meth:`restore` was given last.
    """

    def __init__(self, settings: Settings) -> None:
        self.classifier = build_classifier(
            settings.image_size, settings.threads, settings.precision, settings.width)
        self.criterion = settings.best_by
        self.folder = os.path.join(settings.model_dir, "best")
        with self.classifier.session.graph.as_default():
            self._saver = tf.train.Saver(max_to_keep=None, save_relative_paths=True)

    def restore(self, checkpoint: typing.Any) -> None:
        """Load a checkpoint into the inference graph; rank 0 reads it for all ranks."""
        assign(self.classifier.session, distributed.from_first(
            read_checkpoint(checkpoint) if distributed.rank() == 0 else None))

    def keep_if_best(self, row: dict[str, float]) -> bool:
        """Save the weights just validated if they are the best so far.

        The record beside them is written before older weights are removed. A kill in between
        leaves a record with its weights; the resumed run validates and saves once more.

        Parameters
        ----------
        row
            Their row of the history.

        Returns
        -------
        bool
            Whether they are the best.
        """
        record = self.best()
        if record and record["step"] < row["step"] and record[self.criterion] <= row[
                self.criterion]:
            return False
        os.makedirs(self.folder, exist_ok=True)
        step = int(row["step"])
        prefix = save_checkpoint(self._saver, self.classifier.session, self.folder, step)
        known = {name: value for name, value in row.items() if not math.isnan(value)}
        write_json(os.path.join(self.folder, "best.json"),
                   dict(known, checkpoint=os.path.basename(prefix)))
        keep_only(self.folder, [step])
        return True

    def best(self) -> typing.Any:
        """The row of the best checkpoint so far, or None."""
        return read_best(self.folder, self.criterion)

    def read_best(self) -> typing.Any:
        """The row and the weights of the best checkpoint."""
        record = self.best()
        if not record:
            raise UserError("{}: no best.json there; {}".format(self.folder, BEST_LOST))
        return record, read_checkpoint(os.path.join(self.folder, record["checkpoint"]))


def read_best(folder: str, criterion: str) -> dict[str, typing.Any] | None:
    """The record of the best checkpoint in a folder, or None.

    Returns
    -------
    dict
        A row of the history, and ``checkpoint``: the name of the checkpoint.

    Raises
    ------
    UserError
        If it is damaged, or has no column ``criterion``.
    """
    path = os.path.join(folder, "best.json")
    if not os.path.exists(path):
        return None
    record = read_json(path, BEST_LOST)
    metrics = {name: value for name, value in record.items() if name != "checkpoint"}
    if not ({"epoch", "step", criterion} <= set(metrics)
            and all(HISTORY.is_plausible(name, value) for name, value in metrics.items())
            and record.get("checkpoint") == "model-{}".format(record["step"])):
        raise UserError("{}: not a record of the best checkpoint; {}".format(path, BEST_LOST))
    return record


def first_images(paths: typing.Any, count: int, image_size: typing.Any) -> np.ndarray:
    """The first images that decode.

    Returns
    -------
    numpy.ndarray
        uint8, [at most count, image_size, image_size, 3], RGB.

    Raises
    ------
    UserError
        When none decodes.
    """
    images = np.zeros((0, image_size, image_size, 3), np.uint8)
    for _, more, _ in read_batches(paths, count, image_size):
        images = np.concatenate([images, more])[:count]
        if len(images) == count:
            break
    if not len(images):
        raise UserError("{}: does not decode, and no other of {} images does; check the disk or "
                        "make the file lists again".format(paths[0], len(paths)))
    return images


def score_batches(classifier: Engine, loader: BatchLoader, name: str
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Classify all batches of a source of the loader; ranks share them.

    Parameters
    ----------
    classifier
    loader
    name
        Of the source.

    Returns
    -------
    labels : numpy.ndarray
        int32, [images].
    face_probabilities : numpy.ndarray
        float64, [images].
    """
    steps, rank, ranks = (
        loader.sources[name].steps_per_epoch, distributed.rank(), distributed.size())
    mine = progress(loader.stream(name, rank, steps, ranks), total=len(range(rank, steps, ranks)),
                    desc="validating, augmented", unit="batch", leave=False)
    shares = distributed.gather([
        (truth, classifier(images)[:, FACE].astype(float)) for images, truth in mine])
    batches = [shares[step % ranks][step // ranks] for step in range(steps)]
    return tuple(np.concatenate(column) for column in zip(*batches))
