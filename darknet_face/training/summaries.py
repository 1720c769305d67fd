"""What a training writes for TensorBoard, and the labelled contact sheet of a batch."""

from __future__ import annotations

import os
import socket
import time
import typing

import numpy as np
from PIL import Image

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.console import warn
from darknet_face.images.contact_sheets import BLUE, RED, contact_sheet, encode, save_image
from darknet_face.runtime import distributed
from darknet_face.runtime.session import tf
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.mixture import load_mixture
from darknet_face.training.teacher import without_weights
from darknet_face.weights.checkpoints import cause

if typing.TYPE_CHECKING:
    from darknet_face.training.settings import Settings


def batch_sheet(images: np.ndarray, labels: typing.Any, title: str | None = None,
                **options: typing.Any) -> Image.Image:
    """Draw a batch as the network sees it.

    Parameters
    ----------
    images
        uint8, [batch, height, width, 3], RGB.
    labels
        0 FACE, 1 NON_FACE.
    title
    options
        See :func:`darknet_face.images.contact_sheets.contact_sheet`.
    """
    return contact_sheet(list(images), [CLASS_NAMES[label] for label in labels],
                         [BLUE if label == FACE else RED for label in labels], title, **options)


def batch_summary(images: np.ndarray, labels: typing.Any) -> typing.Any:
    """A training batch as a labelled contact sheet for TensorBoard, a ``tf.Summary``."""
    sheet = batch_sheet(images, labels)
    image = tf.Summary.Image(width=sheet.width, height=sheet.height, colorspace=3,
                             encoded_image_string=encode(sheet, "PNG"))
    return tf.Summary(value=[tf.Summary.Value(tag="augmented_batch", image=image)])


def preview(settings: Settings) -> None:
    """Draw the first training batch as a contact sheet, into the file ``settings.preview``."""
    assert settings.preview
    images, labels, bad = TrainingBatches(
        load_mixture(settings.data_dir, settings.sources, "train"), settings.batch_size,
        settings.image_size, settings.seed, settings.augment).batch(0)
    for path, reason in bad:
        warn("{}: {}; skipped".format(path, reason))
    save_image(settings.preview, batch_sheet(
        images, labels, "Training images as the network sees them", tile=128))
    print("wrote {}".format(settings.preview))


class EventLog:
    """TensorBoard's event file of a training, written by rank 0. Use it as a context manager.

    A log that can't be written, for lack of disk space, ends with a warning: the important results
    of a training are in its checkpoints and history. ``tf.summary.FileWriter`` would print a
    traceback from its thread, and raise over the error of a checkpoint when it is closed.

    Parameters
    ----------
    folder
    graph
        The training graph, a ``tf.Graph``.
    step
        The first step of this run. TensorBoard drops what a killed run logged from there on.
    """

    def __init__(self, folder: str, graph: typing.Any, step: int) -> None:
        self._writer: typing.Any = None
        if distributed.rank():
            return
        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, "events.out.tfevents.{:010.0f}.{}.{}".format(
            time.time(), socket.gethostname(), os.getpid()))
        self._writer = tf.io.TFRecordWriter(self._path)
        self._write(file_version="brain.Event:2")
        self._write(graph_def=without_weights(graph.as_graph_def()).SerializeToString())
        self._write(step=step, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def _write(self, **content: typing.Any) -> None:
        if not self._writer:
            return
        try:
            self._writer.write(tf.Event(wall_time=time.time(), **content).SerializeToString())
            self._writer.flush()
        except tf.errors.OpError as error:
            warn("{}: can't be written ({}); the training goes on without it".format(
                self._path, cause(error)))
            self._writer = None

    def add(self, summary: typing.Any, step: int) -> None:
        """Write a summary: a ``tf.Summary`` or its serialised bytes."""
        if isinstance(summary, bytes):
            summary = tf.Summary.FromString(summary)
        self._write(step=step, summary=summary)

    def add_validation(self, row: dict[str, float],
                       scores: dict[str, tuple[np.ndarray, np.ndarray]], step: int) -> None:
        """Write the metrics and the precision-recall curves of a validation.

        Parameters
        ----------
        row
            Of the history.
        scores
            Labels and probabilities of FACE, by the name of the validation images.
        step
        """
        from tensorboard.plugins.pr_curve import summary as pr_curve  # imports a great deal

        summary = tf.Summary()
        for name, value in row.items():
            if name.startswith(("val_", "disturbed_")):
                group, _, rest = name.partition("_")
                summary.value.add(tag="{}/{}".format(group, rest), simple_value=value)
        self.add(summary, step)
        for name, (labels, probabilities) in scores.items():
            self.add(pr_curve.pb(name + "/precision_recall", labels == FACE, probabilities), step)
