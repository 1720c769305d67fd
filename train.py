"""Train Darknet-19 on faces and non-faces, and freeze the best epoch.

    python train.py                              # data/*.pickle -> saved_models
    python train.py --init-from released --max-lr 2e-4 --at-fpr 0.01    # fine-tune, few images
    python train.py --image-size 96 --epochs 4   # smaller and faster
    python train.py --preview batch.png          # what the network would see
    python train.py --lr-range-test              # where to put --base-lr and --max-lr
    tensorboard --logdir logs                    # watch
    mpirun -np 2 python train.py                 # several processes, after make distributed

Interrupt it and run it again: it resumes at the newest checkpoint with the same step, optimiser,
learning rate and data order. The epoch with the lowest validation loss is frozen; with --init-from
the initial weights count as epoch 0, so that nothing worse than them is frozen.

The training graph and the inference graph are two graphs. Validation and freezing load a checkpoint
into the second one: what is validated is what is frozen.
"""

from __future__ import annotations

import collections
import functools
import os
import typing

from utils import UserError, cli, warn

# What is missing outside the environment is said by then.
# isort: split
import numpy as np

from clr import POLICIES, cyclical_learning_rate, gradual_warmup, linear_learning_rate
from darknet19 import NUM_CLASSES, build
from darknet_face.evaluation.metrics import measure, score_split
from darknet_face.evaluation.operating_point import choose_operating_point
from darknet_face.images.file_lists import check_disjoint
from darknet_face.runtime import distributed
from darknet_face.runtime.session import (
    check_precision,
    explain_memory_errors,
    is_mkl_build,
    is_tf2,
    new_session,
    tf,
)
from darknet_face.training.freezing import freeze_best
from darknet_face.training.history import (
    in_words,
    is_out_of_patience,
    report_epoch,
    report_gain,
    start_row,
)
from darknet_face.training.initial_weights import hint
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.lock import locked
from darknet_face.training.meter import Meter
from darknet_face.training.mixture import load_mixture
from darknet_face.training.range_test import range_test
from darknet_face.training.resume import checkpoint_folder, plan_run, start_or_resume
from darknet_face.training.saving import CheckpointWriter
from darknet_face.training.settings import from_command_line
from darknet_face.training.stop import StopSignal
from darknet_face.training.summaries import EventLog, batch_summary, preview
from darknet_face.training.teacher import (
    digest,
    read_teacher,
    soft_cross_entropy,
    teacher_logits,
)
from darknet_face.training.validation import Validator, score_batches
from darknet_face.training.workers import BatchLoader

if typing.TYPE_CHECKING:
    from darknet_face.engines.engine import Engine
    from darknet_face.images.file_lists import Split
    from darknet_face.training.mixture import Mixture
    from darknet_face.training.resume import Plan
    from darknet_face.training.schedule import EpochSchedule
    from darknet_face.training.settings import Settings

# fetches : dict, what each training step returns by name; "train" is the step itself.
# running : dict, the epoch's mean loss and accuracy so far. They are variables, so that a resumed
#     epoch reports what an uninterrupted one would; reset sets them to 0.
# joint : darknet_face.runtime.distributed.JointStep, with the feeds of several ranks.
TrainingGraph = collections.namedtuple(
    "TrainingGraph", "images labels joint step train_op loss learning_rate fetches running reset "
                     "histograms finite saver")


def build_training_graph(settings: Settings, learning_rate: typing.Callable[..., typing.Any],
                         teacher: dict[str, np.ndarray] | None = None) -> TrainingGraph:
    """Build the graph that trains, in the default graph.

    Parameters
    ----------
    settings
    learning_rate
        The learning rate as a function of the global step.
    teacher
        The weights of a trained network, to learn from beside the labels.

    Returns
    -------
    TrainingGraph
        Loss and accuracy are those of the batches of all ranks together.
    """
    tf.set_random_seed(settings.seed)
    size = settings.image_size
    images = tf.placeholder(tf.uint8, [None, size, size, 3], "images")
    labels = tf.placeholder(tf.int32, [None], "labels")
    pixels = tf.cast(images, tf.float32) / 255.0
    logits, _ = build(pixels, training=True, momentum=settings.momentum,
                      fixed_layers=settings.freeze_until, width=settings.width)
    loss = tf.losses.softmax_cross_entropy(
        tf.one_hot(labels, NUM_CLASSES), logits, label_smoothing=settings.label_smoothing)
    if teacher is not None:
        loss = (1 - settings.teacher_weight) * loss + settings.teacher_weight * soft_cross_entropy(
            logits, teacher_logits(teacher, pixels), settings.temperature)
    joint = distributed.JointStep(
        loss, tf.reduce_mean(tf.cast(tf.nn.in_top_k(logits, labels, 1), tf.float32)))

    step = tf.train.get_or_create_global_step()
    rate = tf.convert_to_tensor(learning_rate(step), tf.float32)
    running, reset, update_running = _running_means(
        {"loss": joint.loss, "accuracy": joint.accuracy})
    train_op = _training_operation(joint, rate, step, settings)
    with tf.control_dependencies([train_op, update_running]):
        train_op = tf.no_op("train")

    scalars = {"loss": joint.loss, "accuracy": joint.accuracy, "learning_rate": rate}
    summaries = tf.summary.merge([tf.summary.scalar("train/" + name, scalars[name])
                                  for name in sorted(scalars)])
    fetches = {"train": train_op, "loss": joint.loss, "learning_rate": rate,
               "summaries": summaries, "stopping": joint.stopping}
    histograms = tf.summary.merge([tf.summary.histogram("weights/" + each.op.name, each)
                                   for each in tf.trainable_variables()])
    finite = tf.reduce_all([tf.reduce_all(tf.is_finite(each)) for each in tf.global_variables()
                            if each.dtype.base_dtype == tf.float32])
    saver = tf.train.Saver(max_to_keep=None, save_relative_paths=True)
    return TrainingGraph(images, labels, joint, step, train_op, joint.loss, rate, fetches, running,
                         reset, histograms, finite, saver)


def _training_operation(joint, rate, step, settings):
    """Adam's step, the batch norms' moving averages and the weights' own averages, in order."""
    trained = {each.op.name.split("/")[0] for each in tf.trainable_variables()}
    moving = [each for each in tf.global_variables("conv_")
              if "/moving_" in each.op.name and each.op.name.split("/")[0] in trained]
    updates = joint.average_after(tf.get_collection(tf.GraphKeys.UPDATE_OPS), moving)
    optimizer = distributed.averaging(tf.train.AdamOptimizer(rate), settings.fp16_compression)
    with tf.control_dependencies(updates):
        train_op = optimizer.minimize(joint.objective, step)
    if not settings.average_decay:
        return train_op
    averaged = [each for each in tf.global_variables("conv_") if "/Adam" not in each.op.name]
    averages = tf.train.ExponentialMovingAverage(settings.average_decay, num_updates=step)
    with tf.control_dependencies([train_op]):
        return averages.apply(averaged)


def _running_means(values):
    """Means over the batches since the last reset, kept in variables that checkpoints hold."""
    with tf.variable_scope("epoch"):
        count = tf.get_variable("batches", [], tf.float32, tf.zeros_initializer(), trainable=False)
        sums = {name: tf.get_variable(name, [], tf.float32, tf.zeros_initializer(),
                                      trainable=False) for name in values}
    update = tf.group(count.assign_add(1), *[
        sums[name].assign_add(value) for name, value in values.items()])
    reset = tf.group(*[each.initializer for each in [count] + list(sums.values())])
    return {name: total / tf.maximum(count, 1) for name, total in sums.items()}, reset, update


def cyclical_rate(settings: Settings, schedule: EpochSchedule) -> typing.Callable[..., typing.Any]:
    """The learning rate of a training as a function of the global step."""

    def rate(step):
        step, epoch = schedule.equivalent_step(step), schedule.equivalent_steps_per_epoch
        cyclical = cyclical_learning_rate(step, settings.base_lr, settings.max_lr,
                                          settings.step_epochs * epoch, settings.policy,
                                          settings.gamma)
        if settings.lr_scaling == "none":
            return cyclical
        return cyclical * gradual_warmup(step, schedule.ranks, settings.warmup_epochs * epoch)

    return rate


def build_range_test_graph(teacher: dict[str, np.ndarray] | None, settings: Settings,
                           steps: int) -> TrainingGraph:
    """The training graph whose learning rate rises from 0 to ``max_lr`` over so many steps."""
    return build_training_graph(
        settings, lambda step: linear_learning_rate(step, 0, settings.max_lr, steps), teacher)


def train_one_epoch(session: typing.Any, net: TrainingGraph,
                    feeds: typing.Iterable[dict[str, typing.Any]],
                    after_step: typing.Callable[..., typing.Any]) -> None:
    """Train a step on each batch.

    Parameters
    ----------
    session
    net
    feeds
        What to feed at each step.
    after_step
        Called after each step with what ``net.fetches`` returned.

    Raises
    ------
    FloatingPointError
        When the loss is no longer finite.
    """
    for feed in feeds:
        values = session.run(net.fetches, feed)
        if not np.isfinite(values["loss"]):
            raise FloatingPointError("the loss is {}".format(values["loss"]))
        after_step(values)


def evaluate(classifier: Engine, split: Split, loader: BatchLoader, batch_size: int
            ) -> tuple[dict[str, float], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Measure a classifier on validation images, as they are and augmented.

    Parameters
    ----------
    classifier
    split
    loader
        With the same images, augmented like training images, under the name ``val``; they are
        augmented the same way every time.
    batch_size

    Returns
    -------
    row : dict of str to float
        The validation columns of the history.
    scores : dict of str to (numpy.ndarray, numpy.ndarray)
        Labels and probabilities of FACE: ``val`` and ``disturbed``.
    """
    clean = score_split(classifier, split, batch_size, "validating")
    scores = {"val": (clean.labels, clean.face_probabilities),
              "disturbed": score_batches(classifier, loader, "val")}
    row = {}
    for prefix, (labels, probabilities) in scores.items():
        metrics = measure(labels, probabilities)
        row[prefix + "_loss"] = metrics["log_loss"]
        for name in ("accuracy", "false_positive_rate", "false_negative_rate", "roc_auc"):
            row["{}_{}".format(prefix, name)] = metrics[name]
    return row, scores


class Trainer:
    """The session loop: trains epoch by epoch, validates and saves.

    Parameters
    ----------
    settings
    plan
    split
        The validation images.
    loader
        With the training batches under the name ``train``; see also :func:`evaluate`.
    stop
    teacher
        Its weights.
    """

    def __init__(self, settings: Settings, plan: Plan, split: Split, loader: BatchLoader,
                 stop: StopSignal, teacher: dict[str, np.ndarray] | None = None) -> None:
        self.settings = settings
        self.plan = plan
        self.schedule = plan.schedule
        self.split = split
        self.loader = loader
        self.stop = stop
        self.step = 0
        self.rows = []  # of the history
        self.images_per_second = 0.0
        self.log = self.meter = None
        with tf.Graph().as_default() as graph:
            self.net = build_training_graph(
                settings, cyclical_rate(settings, self.schedule), teacher)
            self.session = new_session(graph, settings.threads, settings.precision)
            self.session.run(tf.global_variables_initializer())
        self.checkpoints = CheckpointWriter(checkpoint_folder(settings), self.session, self.net)
        self.validator = Validator(settings)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the last epoch."""
        self.start_or_resume()
        with EventLog(self.settings.log_dir, self.session.graph, self.step) as self.log:
            try:
                while True:
                    epoch, steps = self.schedule.place(self.step)
                    if not steps and self._is_to_validate(epoch):
                        self._validate(epoch)
                    if epoch >= self.settings.epochs:
                        return
                    if not steps and self._is_out_of_patience():
                        return
                    self._train(epoch)
            except FloatingPointError as error:
                raise self.checkpoints.diverged(self.step, error)

    def start_or_resume(self) -> None:
        """Set the variables; rank 0 reads them for all ranks."""
        rows = None
        if distributed.rank() == 0:
            rows = start_or_resume(self.session, self.net.saver, self.settings, self.plan)
        self.rows = distributed.from_first(rows)
        distributed.share_variables(self.session)
        self.step = int(self.session.run(self.net.step))
        if self.plan.checkpoint:
            self.checkpoints.has(self.step)

    def _is_to_validate(self, epoch):
        """Whether epoch number ``epoch``, from 1, still lacks its validation.

        Number 0 stands for initial weights. Only these have a checkpoint of step 0.
        """
        if epoch == 0:
            return not self.rows and bool(self.settings.init_from or self.plan.checkpoint)
        is_due = epoch % self.settings.validate_every == 0 or epoch == self.settings.epochs
        return is_due and (not self.rows or self.rows[-1]["epoch"] < epoch)

    def _is_out_of_patience(self):
        settings = self.settings
        if not is_out_of_patience(self.rows, settings.best_by, settings.patience):
            return False
        if distributed.rank() == 0:
            print("stopping after epoch {:.0f}: {} epochs without a better {} (--patience)".format(
                self.rows[-1]["epoch"], settings.patience, in_words(settings.best_by)),
                flush=True)
        return True

    def _train(self, epoch):
        """Train the rest of epoch number ``epoch``, from 0."""
        end, steps = self.schedule.first_step(epoch + 1), self.schedule.steps_per_epoch
        if end - self.step == steps:
            self.session.run(self.net.reset)
        with Meter("epoch {}/{}".format(epoch + 1, self.settings.epochs), steps,
                   steps - (end - self.step),
                   self.settings.batch_size * distributed.size()) as self.meter:
            train_one_epoch(self.session, self.net, self._feeds(end), self._after_step)
            self.images_per_second = self.meter.images_per_second
        self._stop_if_asked()
        if self._is_to_validate(epoch + 1):
            self.checkpoints.save(self.step)

    def _feeds(self, end):
        """What to feed at each step up to ``end`` or a stop signal, whichever is first."""
        net = self.net
        try:
            for images, labels in self.loader.stream("train", self.step, end):
                if self.step == 0:
                    self.log.add(batch_summary(images, labels), 0)
                share = self.schedule.share(self.step, distributed.rank())
                yield {net.images: images, net.labels: labels, net.joint.weight: share.weight,
                       net.joint.stop: bool(self.stop.number)}
                if self.stop.is_due:
                    return
        except UserError:
            if not self.stop.number:  # a stop signal may have ended the workers too
                raise
            if distributed.size() > 1:  # the launcher ends all ranks because one has failed
                self.stop.exit()

    def _after_step(self, values):
        self.stop.agree(values["stopping"])
        if self.step % self.settings.log_every == 0:
            self.log.add(values["summaries"], self.step)
        self.step += 1
        self.meter.step()
        if self.meter.is_visible:
            self.meter.show(learning_rate=values["learning_rate"],
                            **self.session.run(self.net.running))
        if self.step % self.settings.save_every == 0:
            self.checkpoints.save(self.step)

    def _validate(self, epoch):
        """Validate the checkpoint of an epoch, keep it if it is the best, write the history."""
        self.validator.restore(self.checkpoints.save(self.step))
        row, scores = evaluate(self.validator.classifier, self.split, self.loader,
                               self.settings.batch_size)
        means, rate = self.session.run([self.net.running, self.net.learning_rate])
        if epoch:
            row.update(epoch=epoch, step=self.step, learning_rate=float(rate),
                       train_loss=float(means["loss"]), train_accuracy=float(means["accuracy"]),
                       images_per_second=self.images_per_second)
        else:
            row = start_row(row)
        self.rows.append(row)
        if distributed.rank() == 0:
            self.log.add_validation(row, scores, self.step)
            self.log.add(self.session.run(self.net.histograms), self.step)
            report_epoch(self.settings, self.rows, self.validator.keep_if_best(row))
        self._stop_if_asked()

    def _stop_if_asked(self):
        if self.stop.is_due:
            print("stopping: saved {}".format(self.checkpoints.save(self.step)), flush=True)
            self.stop.exit()


def describe_run(settings: Settings, validator: Validator, splits: dict[str, Split]
                ) -> dict[str, typing.Any]:
    """What the frozen graph's ``.json`` says of its training. All ranks choose the threshold.

    Returns
    -------
    dict
        ``pictures``, the numbers of faces and non-faces by split; ``log_dir``, relative to the
        model directory; with --at-fpr also ``threshold`` and ``search_bias``.
    """
    details = {"pictures": {name: list(map(len, splits[name])) for name in ("train", "val")},
               "log_dir": os.path.relpath(settings.log_dir, settings.model_dir)}
    if settings.at_fpr is not None:
        weights = distributed.from_first(
            validator.read_best()[1] if distributed.rank() == 0 else None)
        details.update(choose_operating_point(
            weights, settings.image_size, splits["val"], settings.at_fpr))
    return details


def read_mixtures(data_dir: str, sources: tuple) -> dict[str, Mixture]:
    """Read the file lists; no image may be in two of them, and all ranks must have the same."""
    mixtures = {name: load_mixture(data_dir, sources, name) for name in ("train", "val", "test")}
    splits = {name: mixture.split for name, mixture in mixtures.items()}
    check_disjoint(splits)
    distributed.check_same(
        [[os.path.relpath(path, data_dir) for path in split.paths] for split in splits.values()],
        "the file lists in {}".format(data_dir))
    return mixtures


def batch_sources(settings: Settings, mixtures: dict[str, Mixture],
                  schedule: EpochSchedule | None) -> dict[str, TrainingBatches]:
    """The training batches of this rank, and the validation images, augmented alike."""
    return {
        "train": TrainingBatches(mixtures["train"], settings.batch_size, settings.image_size,
                                 settings.seed, settings.augment, schedule, distributed.rank()),
        "val": TrainingBatches(mixtures["val"], settings.batch_size, settings.image_size, seed=0),
    }


def run(settings: Settings, mixtures: dict[str, Mixture]) -> None:
    """Train, validate and freeze, or run the learning-rate range test."""
    splits = {name: mixture.split for name, mixture in mixtures.items()}
    teacher = read_teacher(settings.teacher)
    plan = None if settings.lr_range_test else plan_run(settings, splits, digest(teacher))
    sources = batch_sources(settings, mixtures, plan and plan.schedule)
    print("training on {} faces and {} non-faces, validating on {} and {}".format(
        *map(len, splits["train"] + splits["val"])), flush=True)
    advice = None if plan and plan.checkpoint else hint(settings, len(splits["train"].paths))
    if advice and distributed.rank() == 0:
        print(advice, flush=True)
    with BatchLoader(sources, settings.workers) as loader:
        if settings.lr_range_test:
            range_test(settings, loader, functools.partial(build_range_test_graph, teacher))
        else:
            trainer = Trainer(settings, plan, splits["val"], loader, StopSignal(), teacher)
            trainer.run()
            details = describe_run(settings, trainer.validator, splits)
            if distributed.rank() == 0:
                freeze_best(settings, trainer.validator, splits["val"], details)
                report_gain(settings, trainer.rows, trainer.validator.best())
        if loader.bad_files:
            warn("files that did not decode and were skipped: {}".format(loader.bad_files))


@cli
@distributed.job
def main() -> None:
    settings = from_command_line(POLICIES)
    check_precision(settings.precision)
    if settings.preview:
        preview(settings)
        return
    mixtures = read_mixtures(settings.data_dir, settings.sources)
    if not is_tf2() and not is_mkl_build():
        print("this TensorFlow is built without MKL; requirements-mkl.txt trains about twice as "
              "fast on a CPU")
    with locked(settings), explain_memory_errors("use a smaller --batch-size or --image-size"):
        run(settings, mixtures)


if __name__ == "__main__":
    main()
