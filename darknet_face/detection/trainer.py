"""The training of the one-pass detector: session, checkpoints, validation, the best weights.

In the run's folder it keeps the newest checkpoint, ``history.csv``, TensorBoard's events and
``best.npz``, the averaged weights with the best validation AP50. From these the model file is
written, unless a better detector is there already.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import time
import typing
import uuid

import numpy as np

from darknet_face.detection import DEFAULT, pyramid
from darknet_face.detection.detector import OnePassDetector
from darknet_face.detection.evaluate import (
    LEAST_SCORE,
    LEAST_WIDTH,
    average_precision,
    best_scores,
    detect_all,
    image_recall,
    of_width,
)
from darknet_face.detection.material import Material, Validation
from darknet_face.detection.model_file import (
    Spec,
    is_detector,
    read_detector,
    read_spec,
    write_detector,
    write_frozen,
)
from darknet_face.detection.run_folder import AGAIN, RunFolder, check_finite, log_validation
from darknet_face.detection.scenes import MixedBatches
from darknet_face.detection.targets import NUMBERS, count_cells
from darknet_face.detection.widen import widen
from darknet_face.runtime.safe_files import check_replaceable
from darknet_face.runtime.session import check_precision, new_session, tf
from darknet_face.training.history_file import HistoryFile
from darknet_face.training.lock import locked_folders
from darknet_face.training.stop import StopSignal
from darknet_face.training.summaries import EventLog
from darknet_face.training.workers import BatchLoader
from darknet_face.weights.arrays import set_variables
from darknet_face.weights.checkpoints import restore_checkpoint

FALSE_POSITIVES = 0.01  # of the negatives, for the recall that is printed
REPORT_SECONDS = 60
LOG_EVERY = 20  # steps between the points in TensorBoard
MAX_GRADIENT_NORM = 10.0

# The losses are means since the row before; recall is that of images with a face.
HISTORY = HistoryFile(
    "a history of this training", "--run-dir",
    columns=("step", "learning_rate", "total", "score", "box", "iou", "ap50", "recall",
             "scenes_per_second"),
    counts=("step",), shares=("iou", "ap50", "recall"), optional=("ap50", "recall"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a training; the command line's --help explains each."""

    run_dir: str = "runs/detector"
    model: str = DEFAULT
    width: float = 0.25
    channels: int = pyramid.CHANNELS
    steps: int = 6000
    batch_size: int = 32
    sizes: tuple[int, ...] = (224,)
    base_lr: float = 1e-5
    max_lr: float = 2e-3
    average_decay: float = 0.998
    image_size: int = Spec.image_size
    seed: int = 0
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 10.0
    workers: int = 1
    threads: int = 0
    precision: str = "float32"
    init_from: str | None = None
    restart: bool = False


# With other values of these a checkpoint can't be resumed.
BOUND = ("width", "channels", "batch_size", "sizes", "seed", "average_decay")

Graph = collections.namedtuple("Graph", (
    "images target step rate loss train summary variables averages saver"))


def build_graph(settings: Settings, learning_rate: typing.Callable) -> Graph:
    """Add the training graph to the default graph.

    Parameters
    ----------
    settings
    learning_rate
        The learning rate as a function of the global step, a tensor.

    Returns
    -------
    Graph
        ``images`` is fed uint8; ``averages`` are the weights' moving averages by name, which are
        validated and kept.
    """
    tf.set_random_seed(settings.seed)
    size = settings.sizes[0] if len(settings.sizes) == 1 else None
    images = tf.placeholder(tf.uint8, [None, size, size, 3], "images")
    cells = count_cells(size, size) if size else None
    target = tf.placeholder(tf.float32, [None, cells, NUMBERS], "target")
    output = pyramid.build_network(
        tf.cast(images, tf.float32) / 255, settings.width, settings.channels, training=True)
    loss = pyramid.detector_loss(output, target, size or tf.shape(images)[1])
    step = tf.train.get_or_create_global_step()
    rate = tf.convert_to_tensor(learning_rate(step), tf.float32)
    variables, optimizer = pyramid.network_variables(), tf.train.AdamOptimizer(rate)
    names = {each.op.name for each in variables}
    trained = [each for each in tf.trainable_variables() if each.op.name in names]
    gradients, _ = tf.clip_by_global_norm(tf.gradients(loss.total, trained), MAX_GRADIENT_NORM)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train = optimizer.apply_gradients(zip(gradients, trained), step)
    averager = tf.train.ExponentialMovingAverage(settings.average_decay, num_updates=step)
    with tf.control_dependencies([train]):
        train = averager.apply(variables)
    averages = {each.op.name: averager.average(each) for each in variables}
    summary = tf.summary.merge(
        [tf.summary.scalar("loss/" + name, value) for name, value in loss._asdict().items()]
        + [tf.summary.scalar("learning_rate", rate)])
    saved = variables + list(averages.values()) + optimizer.variables() + [step]
    saver = tf.train.Saver({each.op.name: each for each in saved}, max_to_keep=None,
                           save_relative_paths=True)
    return Graph(images, target, step, rate, loss, train, summary, variables, averages, saver)


class Trainer:
    """A training in a session of its own.

    Parameters
    ----------
    settings
    material
        What the scenes are made of.
    validation
    learning_rate
        See :func:`build_graph`.
    """

    def __init__(self, settings: Settings, material: Material, validation: Validation,
                 learning_rate: typing.Callable):
        self.settings, self.validation = settings, validation
        self.batches = MixedBatches(material, settings.batch_size, settings.sizes, settings.seed)
        self._folder = RunFolder(settings.run_dir, HISTORY)
        self._best = os.path.join(settings.run_dir, "best.npz")
        graph = tf.Graph()
        with graph.as_default():
            self.net = build_graph(settings, learning_rate)
            self.session = new_session(graph, settings.threads or None, settings.precision)
            self.session.run(tf.global_variables_initializer())
        self.step, self.rows = 0, []  # type: int, list[dict[str, float]]
        self._start_or_resume()

    def _start_or_resume(self):
        settings = self.settings
        bound = {name: getattr(settings, name) for name in BOUND}
        checkpoint, stored = (None, {}) if settings.restart else self._folder.newest(bound)
        if not checkpoint:
            if settings.init_from:
                self._init_from(settings.init_from)
            self.run_id = uuid.uuid4().hex
            self._folder.begin(dict(bound, run=self.run_id))
            return
        restore_checkpoint(self.net.saver, self.session, checkpoint, AGAIN)
        self.run_id = str(stored.get("run", ""))[:64]
        self.step = int(self.session.run(self.net.step))
        self.rows = self._folder.rows(self.step)
        print("resuming at step {:,} of {:,}".format(self.step, settings.steps), flush=True)

    def _init_from(self, path):
        """Begin with the weights of a trained detector, as narrow or narrower."""
        averages = self.net.averages
        untrained = dict(zip(averages, self.session.run(list(averages.values()))))
        weights = widen(read_detector(path)[0], untrained, path)
        variables = {each.op.name: each for each in self.net.variables}
        set_variables(self.session, {each: weights[name] for group in (variables, averages)
                                     for name, each in group.items()})

    def run(self) -> list[dict[str, float]]:
        """Train to the end, validating on the way; returns the history, oldest row first."""
        settings, stop = self.settings, StopSignal()
        if self.rows:
            self._release()  # a run that was killed may not have come to it
        losses, since = [], self.step
        saved = validated = reported = started = time.monotonic()
        with EventLog(settings.run_dir, self.session.graph, self.step) as log, \
                BatchLoader({"train": self.batches}, settings.workers) as loader:
            for images, target in loader.stream("train", self.step, settings.steps):
                losses.append(self._step(images, target, log))
                now, is_last = time.monotonic(), self.step == settings.steps
                speed = (self.step - since) * settings.batch_size / max(now - started, 1e-6)
                if now - reported >= REPORT_SECONDS:
                    self._report(np.mean(losses[-50:], 0), speed)
                    reported = now
                if is_last or now - validated >= 60 * settings.validate_minutes:
                    self._validate(np.mean(losses, 0), speed, log)
                    losses, since = [], self.step
                    saved = validated = started = time.monotonic()
                elif stop.is_due or now - saved >= 60 * settings.checkpoint_minutes:
                    self._save()
                    saved = now
                if stop.is_due:
                    stop.exit()
        return self.rows

    def _step(self, images, target, log):
        net = self.net
        loss, summary, _ = self.session.run(
            [net.loss, net.summary, net.train], {net.images: images, net.target: target})
        check_finite(loss.total, self.step + 1)
        self.step += 1
        if self.step % LOG_EVERY == 0:
            log.add(summary, self.step)
        return loss

    def _report(self, losses, speed):
        print("step {:,} of {:,}: loss {:.3f} (score {:.3f}, box {:.3f}), IoU {:.3f}, learning "
              "rate {:.2g}, {:.1f} scenes/s".format(
                  self.step, self.settings.steps, *losses, self.session.run(self.net.rate), speed),
              flush=True)

    def _save(self):
        self._folder.save(self.net.saver, self.session, self.step, self.rows)

    def _validate(self, losses, speed, log):
        """Measure the averaged weights, save a checkpoint, and keep the weights if they are best.

        The best weights are written first: if a kill prevents the checkpoint, they are found and
        measured once more.
        """
        weights = dict(zip(self.net.averages, self.session.run(list(self.net.averages.values()))))
        settings = self.settings
        spec = Spec(settings.width, settings.channels, settings.image_size, step=self.step,
                    run=self.run_id)
        with OnePassDetector(weights, spec, min_score=LEAST_SCORE, precision=settings.precision,
                             threads=settings.threads or None) as detect:
            ap50, recall = measure(detect, self.validation)
        best = max([row["ap50"] for row in self.rows if row["ap50"] >= 0], default=-1.0)
        values = [self.step, self.session.run(self.net.rate), *losses, ap50, recall, speed]
        self.rows.append(dict(zip(HISTORY.columns, map(float, values))))
        is_best = ap50 > best or best < 0
        if is_best:
            write_detector(self._best, weights, dataclasses.replace(
                spec, ap50=ap50 if ap50 >= 0 else -1.0), np.float32)
        self._save()
        log_validation(log, self.step, ap50=ap50, recall=recall)
        print("validation at step {:,}: AP50 {:.3f}, images with a face found at {:.0%} false "
              "positives {:.3f}{}".format(self.step, ap50, FALSE_POSITIVES, recall,
                                          " (best)" if is_best else ""), flush=True)
        if is_best:
            self._release()

    def _release(self):
        release(self._best, self.settings.model, self.run_id, self._measure_other)

    def _measure_other(self, path):
        """AP50 of the detector of another run."""
        with OnePassDetector.load(path, min_score=LEAST_SCORE,
                                  threads=self.settings.threads or None) as detect:
            return measure(detect, self.validation)[0]


def release(best: str, path: str, run: str, measure_other: typing.Callable[[str], float]) -> None:
    """Write the model file from the best weights, unless it holds them or better ones.

    Parameters
    ----------
    best
        The file with the best weights; if it is not there, or of another run, nothing is written.
    path
        The model file.
    run
        Names the training.
    measure_other
        Called with ``path`` if the detector there is of another run: its AP50 on this run's
        validation images.
    """
    if not os.path.exists(best):
        return
    weights, spec = read_detector(best)
    if spec.run != run:
        return
    if os.path.exists(path) and os.path.getsize(path):
        there = read_spec(path)
        if there == spec:
            return
        if there.run != run and not measure_other(path) < spec.ap50:  # it may be NaN
            print("{}: kept, since its AP50 on these validation images is at least {:.3f}; the "
                  "new detector is {}".format(path, spec.ap50, best), flush=True)
            return
    if path.lower().endswith(".pb"):
        write_frozen(path, weights, spec)
    else:
        write_detector(path, weights, spec)


def measure(detect: typing.Callable, validation: Validation) -> tuple[float, float]:
    """AP50 of faces from 5 % of the width, and the recall of images with such a face.

    The latter is at 1 % false positives, and NaN without negatives.
    """
    truths, found = detect_all(detect, validation.photographs)
    ap50, = average_precision(of_width(truths, LEAST_WIDTH), found, (0.5,))
    negatives = best_scores(detect, validation.negatives)
    if not len(negatives):  # none is named, or none decodes
        return ap50, float("nan")
    return ap50, image_recall(truths, found, negatives, FALSE_POSITIVES)[0]


def check_outputs(settings: Settings) -> None:
    """Check that a training replaces nothing but an earlier one; raises UserError."""
    for path in (settings.model, os.path.join(settings.run_dir, "best.npz")):
        check_replaceable(path, is_detector, "a detector of this program")
    RunFolder(settings.run_dir, HISTORY).check(("width", "channels", "average_decay"))


def train(settings: Settings, material: Material, validation: Validation,
          learning_rate: typing.Callable) -> list[dict[str, float]]:
    """Train a detector; see :class:`Trainer`. Returns the history, oldest row first."""
    check_precision(settings.precision)
    check_outputs(settings)
    with locked_folders({"--run-dir": settings.run_dir}):
        trainer = Trainer(settings, material, validation, learning_rate)
        with trainer.session:
            return trainer.run()
