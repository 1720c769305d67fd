"""Train Darknet-19 on faces and non-faces, and freeze the best of it.

    python train.py                              # data/*.pickle -> saved_models
    python train.py --image-size 96 --epochs 4   # smaller and faster
    python train.py --lr-range-test              # where to put --base-lr and --max-lr
    tensorboard --logdir logs                    # watch
    mpirun -np 2 python train.py                 # by several processes, after make distributed

Run again after an interruption, it goes on where the last checkpoint stands: step, epoch,
optimiser, learning rate and data order. The training graph and the inference graph are two graphs:
validation and freezing restore a checkpoint into the second, so that what is validated is what is
frozen.
"""

import argparse
import collections
import contextlib
import csv
import hashlib
import os
import signal
import sys
import time

import numpy as np
from tensorboard.plugins.pr_curve import summary as pr_curve

from clr import POLICIES, cyclical_learning_rate, linear_learning_rate
from darknet19 import CLASSIFIER, NUM_CLASSES, NUM_CONVOLUTIONS, STRIDE, build
from evaluation.figures import measure, score_split
from model.checkpoints import (
    cause,
    keep_only,
    newest_checkpoint,
    newest_steps,
    other_files,
    save_checkpoint,
)
from model.classifier import build_classifier, classifier_from_weights
from model.frozen import freeze
from model.weight_files import read_checkpoint, read_weights
from model.weights import assign, set_variables, weight_shapes
from pictures.classes import FACE
from pictures.lists import add_data_arguments, check_disjoint, load_split, relative_to_data
from pictures.reader import LARGEST_BATCH, LARGEST_SIZE, read_batches
from pictures.sheets import BLUE, RED, contact_sheet, encode_png
from runtime import distributed
from runtime.session import PRECISIONS, check_precision, is_mkl_build, new_session, tf
from training.augment import KINDS
from training.history import (
    plot_history,
    plot_range_test,
    plot_training_summary,
    read_history,
    write_history,
)
from training.loader import BatchLoader, TrainingBatches
from training.schedule import START, Course, Leg
from utils import (
    HelpFormatter,
    UserError,
    cli,
    number_type,
    progress,
    read_json,
    remove_leftovers,
    warn,
    write_atomically,
    write_json,
)

# What a run must have in common with the checkpoints that it resumes from.
RUN_SETTINGS = (
    "image_size", "batch_size", "seed", "augment", "policy", "base_lr", "max_lr", "step_epochs",
    "gamma", "momentum", "average_decay", "label_smoothing", "hard_negatives", "freeze_until",
)  # fmt: skip

# The same where several ranks had a part in them, and the file that then says which.
RANK_SETTINGS = ("lr_scaling", "warmup_epochs")
COURSE = "course.json"

# How to come by a best checkpoint again.
BEST_LOST = "remove the folder and train on with more --epochs, or begin anew with --restart"

TrainingGraph = collections.namedtuple(
    "TrainingGraph", "images labels step train_op loss learning_rate running reset summaries "
                     "histograms saver finite joint")


def build_training_graph(args, steps_per_epoch, learning_rate=None):
    """Build the graph that trains, in the default graph.

    Parameters
    ----------
    args : argparse.Namespace
        The options of this script.
    steps_per_epoch : int
    learning_rate : callable of tf.Tensor to tf.Tensor, optional
        The rate as a function of the global step; the cyclical one of ``args`` if absent.

    Returns
    -------
    TrainingGraph
        ``running`` holds the epoch's mean loss and accuracy so far; they are variables, so that a
        resumed epoch reports what an uninterrupted one would. With several ranks, loss and
        accuracy are those of all ranks' batches together; ``joint`` is a
        :class:`runtime.distributed.JointStep` then, else None.
    """
    tf.set_random_seed(args.seed)
    images = tf.placeholder(tf.uint8, [None, args.image_size, args.image_size, 3], "images")
    labels = tf.placeholder(tf.int32, [None], "labels")
    logits, _ = build(tf.cast(images, tf.float32) / 255.0, training=True,
                      momentum=args.momentum, fixed_layers=args.freeze_until)
    losses = tf.losses.softmax_cross_entropy(
        tf.one_hot(labels, NUM_CLASSES), logits, label_smoothing=args.label_smoothing,
        reduction=tf.losses.Reduction.NONE)
    loss = mean_over_hardest(losses, labels, args.hard_negatives)
    correct = tf.reduce_mean(tf.cast(tf.nn.in_top_k(logits, labels, 1), tf.float32))
    joint, objective = None, loss
    if distributed.size() > 1:
        joint = distributed.JointStep(loss, correct)
        objective, loss, correct = joint.objective, joint.loss, joint.accuracy

    step = tf.train.get_or_create_global_step()
    if learning_rate is None:
        rate = cyclical_learning_rate(step, args.base_lr, args.max_lr,
                                      args.step_epochs * steps_per_epoch, args.policy, args.gamma)
    else:
        rate = learning_rate(step)
    running, reset, update_running = _running_means({"loss": loss, "accuracy": correct})
    train_op = _training_operation(objective, rate, step, args, joint)
    with tf.control_dependencies([train_op, update_running]):
        train_op = tf.no_op("train")

    for name, value in (("loss", loss), ("accuracy", correct), ("learning_rate", rate)):
        tf.summary.scalar("train/" + name, value)
    summaries = tf.summary.merge_all()
    # Apart from the others, since they take as long as a training step: once an epoch.
    histograms = tf.summary.merge([tf.summary.histogram("weights/" + each.op.name, each)
                                   for each in tf.trainable_variables()])
    finite = tf.reduce_all([tf.reduce_all(tf.is_finite(each)) for each in tf.global_variables()
                            if each.dtype.base_dtype == tf.float32])
    return TrainingGraph(images, labels, step, train_op, loss, rate, running, reset,
                         summaries, histograms,
                         tf.train.Saver(max_to_keep=None, save_relative_paths=True), finite, joint)


def mean_over_hardest(losses, labels, share):
    """The mean loss of a batch, over the hardest of its non-faces alone.

    Most non-faces are soon told from faces and teach no more; those with the largest losses, picked
    anew at each step by the model as it then is, are the ones that it takes for faces. Online hard
    example mining: Shrivastava, Gupta, Girshick, CVPR 2016, here for one class.

    Parameters
    ----------
    losses : tf.Tensor
        float32, [batch].
    labels : tf.Tensor
        int32, [batch], with at least one of each class.
    share : float
        Of the non-faces, 0 .. 1; at least one is taken, and with 1 all are.

    Returns
    -------
    tf.Tensor
        Scalar. Faces and the non-faces that are taken weigh as much as each other.
    """
    if share == 1:
        return tf.reduce_mean(losses)
    is_face = tf.equal(labels, FACE)
    others = tf.boolean_mask(losses, tf.logical_not(is_face))
    count = tf.ceil(share * tf.cast(tf.size(others), tf.float32))
    hardest, _ = tf.nn.top_k(others, tf.maximum(tf.cast(count, tf.int32), 1))
    return (tf.reduce_mean(tf.boolean_mask(losses, is_face)) + tf.reduce_mean(hardest)) / 2


def _training_operation(loss, rate, step, args, joint):
    """Adam's step, the batch norms' moving averages and the weights' own averages, in order."""
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    optimizer = tf.train.AdamOptimizer(rate)
    if joint:
        trained = {each.op.name.split("/")[0] for each in tf.trainable_variables()}
        moving = [each for each in tf.global_variables("conv_")
                  if "/moving_" in each.op.name and each.op.name.split("/")[0] in trained]
        updates = joint.average_after(updates, moving)
        optimizer = distributed.averaging(optimizer, args.fp16_compression)
    with tf.control_dependencies(updates):
        train_op = optimizer.minimize(loss, step)
    if not args.average_decay:
        return train_op
    averaged = [each for each in tf.global_variables("conv_") if "/Adam" not in each.op.name]
    averages = tf.train.ExponentialMovingAverage(args.average_decay, num_updates=step)
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


class StopSignal:
    """Notes the first SIGINT or SIGTERM, so that training can save first; a second one is fatal."""

    def __init__(self):
        self.number = None
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._note)

    def _note(self, number, _):
        self.number = number
        signal.signal(number, signal.SIG_DFL)

    def exit(self):
        """Leave with the exit code that shells give for this signal."""
        sys.exit(128 + self.number)


class Validator:
    """Measures a checkpoint in the inference graph; keeps the best one.

    Parameters
    ----------
    args : argparse.Namespace
    split : dataset.Split
        The validation split.
    loader : dataset.BatchLoader
        With the disturbed validation pictures under the name ``val``.
    """

    def __init__(self, args, split, loader):
        self.classifier = build_classifier(args.image_size, args.threads, args.precision)
        self.split = split
        self.loader = loader
        self.batch_size = args.batch_size
        self.criterion = args.best_by
        self.folder = os.path.join(args.model_dir, "best")
        self.scored = {}  # what was validated last: labels and probabilities by kind
        with self.classifier.session.graph.as_default():
            self.saver = tf.train.Saver(max_to_keep=None, save_relative_paths=True)

    def __call__(self, checkpoint):
        """The validation columns of the history for a checkpoint, which rank 0 reads."""
        assign(self.classifier.session, distributed.from_first(
            read_checkpoint(checkpoint) if distributed.rank() == 0 else None))
        scores = score_split(self.classifier, self.split, self.batch_size, "validating")
        self.scored = {"val": (scores.labels, scores.face_probabilities),
                       "disturbed": self._disturbed()}
        row = {}
        for prefix, (labels, probabilities) in self.scored.items():
            figures = measure(labels, probabilities)
            row[prefix + "_loss"] = figures["log_loss"]
            for name in ("accuracy", "false_positive_rate", "false_negative_rate", "roc_auc"):
                row["{}_{}".format(prefix, name)] = figures[name]
        return row

    def _disturbed(self):
        """Labels and probabilities of FACE of the validation pictures, augmented the same way at
        every call."""
        steps, rank, ranks = (self.loader.sources["val"].steps_per_epoch, distributed.rank(),
                              distributed.size())
        mine = progress(self.loader.stream("val", rank, steps, ranks),
                        total=len(range(rank, steps, ranks)), desc="validating, disturbed",
                        unit="batch", leave=False)
        shares = distributed.gather([
            (truth, self.classifier(images)[:, FACE].astype(float)) for images, truth in mine])
        batches = [shares[step % ranks][step // ranks] for step in range(steps)]
        return tuple(np.concatenate(column) for column in zip(*batches))

    def keep_if_best(self, row):
        """Save the weights just validated if they are the best so far.

        The record beside them is written before older weights are removed: a kill in between
        leaves the older record with its weights, and the resumed run validates and saves once more.
        """
        record = self.best()
        if record and record["step"] < row["step"] and record[self.criterion] <= row[
                self.criterion]:
            return False
        os.makedirs(self.folder, exist_ok=True)
        prefix = save_checkpoint(self.saver, self.classifier.session, self.folder, row["step"])
        write_json(os.path.join(self.folder, "best.json"),
                   dict(row, checkpoint=os.path.basename(prefix)))
        keep_only(self.folder, [row["step"]])
        return True

    def best(self):
        """The row of the best checkpoint so far, or None."""
        return read_best(self.folder, self.criterion)

    def read_best(self):
        """The row and the weights of the best checkpoint."""
        record = self.best()
        if not record:
            raise UserError("{}: no best.json there; {}".format(self.folder, BEST_LOST))
        return record, read_checkpoint(os.path.join(self.folder, record["checkpoint"]))


def read_best(folder, criterion):
    """The record of the best checkpoint in a folder, or None.

    Returns
    -------
    dict
        A row of the history, and ``checkpoint``: the name of the checkpoint.

    Raises
    ------
    UserError
        If it is damaged, or lacks the column ``criterion``.
    """
    path = os.path.join(folder, "best.json")
    if not os.path.exists(path):
        return None
    record = read_json(path, BEST_LOST)
    numbers = [value for name, value in record.items() if name != "checkpoint"]
    if not ({"epoch", "step", criterion} < set(record) and all(
            type(each) in (int, float) for each in numbers) and isinstance(
                record.get("checkpoint"), str)):
        raise UserError("{}: not a record of the best checkpoint; {}".format(path, BEST_LOST))
    return record


class Trainer:
    """The session loop: feeds, runs, reports, saves.

    Parameters
    ----------
    args : argparse.Namespace
    loader : dataset.BatchLoader
        With the training batches under the name ``train``.
    validator : Validator
    stop : StopSignal
    """

    def __init__(self, args, loader, validator, stop):
        self.args = args
        self.loader = loader
        self.validator = validator
        self.stop = stop
        self.course = loader.sources["train"].course
        self.steps_per_epoch = self.course.steps_per_epoch
        self.checkpoint_dir = os.path.join(args.model_dir, "checkpoints")
        self.history_path = os.path.join(args.log_dir, "history.csv")
        graph = tf.Graph()
        with graph.as_default():
            self.net = build_training_graph(args, self.steps_per_epoch, self._learning_rate)
            self.session = new_session(graph, args.threads, args.precision)
            self.session.run(tf.global_variables_initializer())
        self.step = 0
        self.all_stop = False  # of several ranks: all know that one was asked to stop

    def _learning_rate(self, step):
        args, course = self.args, self.course
        return course.scale(step) * cyclical_learning_rate(
            course.clock(step), args.base_lr, args.max_lr,
            args.step_epochs * course.clock_of_epoch, args.policy, args.gamma)

    def run(self):
        """Train from wherever the newest checkpoint stands to the last epoch."""
        if distributed.rank() == 0:
            self._restore_or_start()
        distributed.share_variables(self.session)
        self.step = int(self.session.run(self.net.step))
        rows = distributed.from_first(self._history_so_far())
        with self._log() as writer:
            last_step = self.course.first_step(self.args.epochs)
            while True:
                finished, position = self.course.place(self.step)
                if not position and self._validates_after(finished) and (
                        not rows or rows[-1]["step"] < self.step):
                    self._finish_epoch(finished, rows, writer)
                if self.step >= last_step:
                    return
                self._train_epoch(finished, writer)

    def _history_so_far(self):
        """The history up to the checkpoint; the file is cut there too."""
        if distributed.rank():
            return None
        rows = [row for row in read_history(self.history_path) if row["step"] <= self.step]
        write_history(self.history_path, rows)
        return rows

    @contextlib.contextmanager
    def _log(self):
        """TensorBoard's log; None on ranks other than 0."""
        if distributed.rank():
            yield None
            return
        with tf.summary.FileWriter(self.args.log_dir, self.session.graph) as writer:
            # Tells TensorBoard to drop what a killed run logged beyond its last checkpoint.
            writer.add_session_log(
                tf.SessionLog(status=tf.SessionLog.START), global_step=self.step)
            yield writer

    def _validates_after(self, epoch):
        """Whether a validation pass follows epoch number ``epoch`` (from 1)."""
        return epoch and (epoch % self.args.validate_every == 0 or epoch == self.args.epochs)

    def _restore_or_start(self):
        checkpoint = _checkpoint_to_resume_from(self.args)
        settings = {name: getattr(self.args, name) for name in RUN_SETTINGS}
        settings["steps_per_epoch"] = self.course.clock_of_epoch  # of one process
        settings["file_lists"] = _digest_of_lists(self.loader, self.args.data_dir)
        settings_path = os.path.join(self.checkpoint_dir, "settings.json")
        if not checkpoint:
            warm_start(self.session, self.args)
            if self.args.restart:  # now that nothing is left that could refuse the command line
                remove_old_run(self.args)
            write_json(settings_path, settings)
            write_course(self.args, self.course)
            return
        _check_settings(read_json(settings_path, "train anew with --restart"), settings,
                        self.checkpoint_dir)
        try:
            self.net.saver.restore(self.session, checkpoint)
        except (tf.errors.OpError, ValueError) as error:
            raise UserError("{}: does not restore ({}); remove its files to use the one before, or "
                            "start anew with --restart".format(checkpoint, cause(error)))
        write_course(self.args, self.course)
        step = int(self.session.run(self.net.step))
        print("resuming at step {} (epoch {}) from {}{}".format(
            step, self.course.place(step)[0] + 1, checkpoint,
            "; --init-from was for its start" if self.args.init_from else ""))

    def _train_epoch(self, epoch, writer):
        """Train to the end of epoch number ``epoch`` (from 0), saving on the way."""
        end = self.course.first_step(epoch + 1)
        if self.course.place(self.step)[1] == 0:
            self.session.run(self.net.reset)
        self.started, self.trained = time.time(), 0
        bar = progress(total=self.steps_per_epoch,
                       initial=self.steps_per_epoch - (end - self.step),
                       desc="epoch {}/{}".format(epoch + 1, self.args.epochs), unit="step")
        with bar:
            for images, labels in self._batches(end):
                self._train_step(images, labels, bar, writer)
                if self.step % self.args.save_every == 0 or (
                        self.step == end and self._validates_after(epoch + 1)):
                    self._save()
        if self._is_to_stop():
            print("stopping: saved {}".format(self._save()))
            self.stop.exit()

    def _batches(self, end):
        """Training batches up to step ``end`` or a stop signal, whichever is first."""
        try:
            for batch in self.loader.stream("train", self.step, end):
                yield batch
                if self._is_to_stop():
                    return
        except UserError:
            if not self.stop.number:  # else the signal has ended the workers too
                raise
            if self.net.joint:  # the launcher's: it ends a job of which another rank has failed
                self.stop.exit()

    def _is_to_stop(self):
        """Whether to stop after this step; several ranks do at the same one."""
        return self.all_stop if self.net.joint else bool(self.stop.number)

    def _train_step(self, images, labels, bar, writer):
        if self.step == 0 and writer:
            writer.add_summary(batch_summary(images, labels), 0)
        wanted = [self.net.train_op, self.net.loss, self.net.learning_rate]
        logs = writer and self.step % self.args.log_every == 0
        if logs:
            wanted.append(self.net.summaries)
        feed = {self.net.images: images, self.net.labels: labels}
        if self.net.joint:
            feed[self.net.joint.weight] = self.course.share(self.step, distributed.rank()).weight
            feed[self.net.joint.stop] = bool(self.stop.number)
            wanted.append(self.net.joint.stopping)
        results = self.session.run(wanted, feed)
        if self.net.joint and results[-1]:
            self.all_stop, self.stop.number = True, self.stop.number or signal.SIGTERM
        if not np.isfinite(results[1]):
            raise self._astray("the loss at step {} is {}".format(self.step, results[1]))
        if logs:
            writer.add_summary(results[3], self.step)
        self.step += 1
        self.trained += len(images) * distributed.size()
        bar.update()
        if not bar.disable:
            means = self.session.run(self.net.running)
            bar.set_postfix_str("loss {:.4f}, accuracy {:.4f}, lr {:.2g}, {:.1f} images/s".format(
                means["loss"], means["accuracy"], results[2], self._speed()))

    def _speed(self):
        return self.trained / max(time.time() - self.started, 1e-6)

    def _save(self):
        """Save a checkpoint, unless a weight is no longer finite."""
        if not self.session.run(self.net.finite):
            raise self._astray("a weight is not finite at step {}".format(self.step))
        prefix = None
        if distributed.rank() == 0:
            prefix = save_checkpoint(
                self.net.saver, self.session, self.checkpoint_dir, self.step)
            keep_only(self.checkpoint_dir, newest_steps(self.checkpoint_dir, 2))
        distributed.wait_for_all()  # else one could leave, and the launcher end rank 0 meanwhile
        return prefix

    def _astray(self, what):
        """The error for a training that has no future."""
        checkpoint = newest_checkpoint(self.checkpoint_dir)
        return UserError("{}; {}: begin anew with a lower --max-lr and --restart".format(
            what, "the last good checkpoint is {}".format(checkpoint) if checkpoint
            else "there is no checkpoint yet"), exit_code=1)

    def _finish_epoch(self, epoch, rows, writer):
        """Validate, keep the best, and write the history of an epoch that is trained and saved."""
        speed = self._speed() if getattr(self, "trained", 0) else 0.0
        means, rate = self.session.run([self.net.running, self.net.learning_rate])
        row = dict(epoch=epoch, step=self.step, learning_rate=float(rate),
                   train_loss=float(means["loss"]), train_accuracy=float(means["accuracy"]),
                   images_per_second=speed)
        row.update(self.validator(os.path.join(
            self.checkpoint_dir, "model-{}".format(self.step))))
        rows.append(row)
        if distributed.rank():
            return
        best = self.validator.keep_if_best(row)
        write_history(self.history_path, rows)
        plot_history(os.path.join(self.args.log_dir, "history.png"), rows)
        summary = tf.Summary()
        for name, value in row.items():
            if name.startswith(("val_", "disturbed_")):
                group, _, rest = name.partition("_")
                summary.value.add(tag="{}/{}".format(group, rest), simple_value=value)
        writer.add_summary(summary, self.step)
        for name, (labels, probabilities) in self.validator.scored.items():
            writer.add_summary(pr_curve.pb(
                name + "/precision_recall", labels == FACE, probabilities), self.step)
        writer.add_summary(self.session.run(self.net.histograms), self.step)
        print("epoch {epoch}/{epochs}: loss {train_loss:.4f}, accuracy {train_accuracy:.4f}; "
              "validation loss {val_loss:.4f}, accuracy {val_accuracy:.4f}; disturbed loss "
              "{disturbed_loss:.4f}, accuracy {disturbed_accuracy:.4f}; {images_per_second:.1f} "
              "images/s{mark}".format(epochs=self.args.epochs, mark=" (best)" if best else "",
                                      **row), flush=True)
        if self._is_to_stop():
            self.stop.exit()


def warm_start(session, args):
    """Begin with the weights of --init-from, where there are any, as far as they fit."""
    if not args.init_from:
        if args.freeze_until:
            raise UserError("--freeze-until {}: these layers would stay as random as they are; "
                            "name trained weights by --init-from".format(args.freeze_until))
        return
    weights, message = weights_to_start_from(args.init_from, args.freeze_until)
    assign(session, weights)
    # The weights' averages, where kept, start at the weights: not at the random ones.
    suffix = "/ExponentialMovingAverage"
    averages = [each for each in session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
                if each.op.name.endswith(suffix)]
    averaged = session.run([each.op.name[:-len(suffix)] + ":0" for each in averages])
    set_variables(session, dict(zip(averages, averaged)))
    print(message)


def weights_to_start_from(path, freeze_until=0):
    """Read weights for a warm start: of this network, of its first layers, or for other classes.

    Parameters
    ----------
    path : str
        See :func:`model.weight_files.read_weights`.
    freeze_until : int
        How many layers are to stay as they are in the file, which then must hold them.

    Returns
    -------
    weights : dict of str to numpy.ndarray
        Without the last layer if the file's is for another number of classes.
    message : str
        What begins with the file's weights and what does not, and why.

    Raises
    ------
    UserError
        Naming each layer that does not fit, what was expected and what was found.
    """
    weights = read_weights(path, num_classes=None, partial=True)
    shapes = weight_shapes()
    others = [name for name in weights if weights[name].shape != shapes[name]]  # of the last layer
    reasons = ["{}: expected {}, found {}".format(
        name, list(shapes[name]), list(weights.pop(name).shape)) for name in others]
    loaded = len({name.split("/")[0] for name in weights})
    if loaded < freeze_until:
        raise UserError("{}: conv_{} is missing, so --freeze-until is at most {} with it".format(
            path, loaded, loaded))
    message = "starting from conv_0 to conv_{} of {}".format(loaded - 1, path)
    if loaded < NUM_CONVOLUTIONS:
        rest = " to ".join(collections.OrderedDict.fromkeys(["conv_{}".format(loaded), CLASSIFIER]))
        message += "; at random: {} ({})".format(rest, "; ".join(reasons) or "not in the file")
    return weights, message


def batch_summary(images, labels):
    """A training batch as a labelled sheet for TensorBoard, a tf.Summary."""
    sheet = contact_sheet(images, ["FACE" if label == FACE else "NON_FACE" for label in labels],
                          [BLUE if label == FACE else RED for label in labels], columns=8)
    image = tf.Summary.Image(width=sheet.width, height=sheet.height, colorspace=3,
                             encoded_image_string=encode_png(sheet))
    return tf.Summary(value=[tf.Summary.Value(tag="augmented_batch", image=image)])


def _check_settings(stored, settings, checkpoint_dir):
    """Refuse to go on with other settings than the checkpoints were made with."""
    for name, value in settings.items():
        if stored.get(name) != value:
            raise UserError(
                "{}: made with {} {}, not {}; use the same, or begin anew with --restart".format(
                    checkpoint_dir, name.replace("_", "-"), stored.get(name), value))


def _digest_of_lists(loader, data_dir):
    """Short digest of what is trained and validated on: it and its order stay while resuming."""
    names = [relative_to_data(path, data_dir) for source in sorted(loader.sources)
             for path in loader.sources[source].split.paths]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _checkpoint_to_resume_from(args):
    """The prefix of the newest checkpoint; None if there is none or the run is to begin anew."""
    folder = os.path.join(args.model_dir, "checkpoints")
    return None if args.restart else newest_checkpoint(folder)


def plan_course(args, split):
    """The course of this run: from the start, or from where its newest checkpoint stands.

    Rank 0 looks; a run that never had more than one process keeps no record of its course.

    Returns
    -------
    Course
    """
    checkpoint_dir = os.path.join(args.model_dir, "checkpoints")
    checkpoint = _checkpoint_to_resume_from(args) if distributed.rank() == 0 else None
    number = checkpoint.rpartition("-")[2] if checkpoint else "0"
    if not number.isdecimal():
        raise UserError("{}: not named as train.py names its checkpoints; remove it, or begin anew "
                        "with --restart".format(checkpoint))
    step, path, legs = int(number), os.path.join(checkpoint_dir, COURSE), [START]
    if step and os.path.exists(path):
        stored = read_json(path, "train anew with --restart")
        _check_settings(stored, {name: getattr(args, name) for name in RANK_SETTINGS},
                        checkpoint_dir)
        legs = _stored_legs(stored, path)
    course = Course(max(map(len, split)), args.batch_size // 2, legs, args.lr_scaling == "linear",
                    args.warmup_epochs)
    return distributed.from_first(course.go_on(step, distributed.size()))


def _stored_legs(stored, path):
    """The legs in a course's record, each number of which is checked."""
    try:
        legs = [Leg(*leg) for leg in stored["legs"]]
        whole = legs and all(
            all(type(number) is int and number >= 0 for number in leg[:4])
            and leg.ranks and type(leg.scale) in (int, float) and 0 < leg.scale < float("inf")
            for leg in legs)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError("{}: damaged; train anew with --restart".format(path))
    return legs


def write_course(args, course):
    """Record which ranks took which steps, once there is or was more than one rank."""
    path = os.path.join(args.model_dir, "checkpoints", COURSE)
    if course.legs != (START,) or os.path.exists(path):
        write_json(path, dict({name: getattr(args, name) for name in RANK_SETTINGS},
                              legs=course.legs))


def remove_old_run(args):
    """Remove what an earlier run left, by the names that this script gives, and nothing else."""
    paths = [os.path.join(args.log_dir, name)
             for name in ("history.csv", "history.png", "training_summary.png")]
    for folder, names in (("checkpoints", ("settings.json", COURSE)), ("best", ("best.json",))):
        folder = os.path.join(args.model_dir, folder)
        paths += other_files(folder, ())
        paths += [os.path.join(folder, name) for name in names + ("checkpoint",)]
    paths = [path for path in paths if os.path.exists(path)]
    start = os.path.realpath(args.init_from) if args.init_from else None
    for path in map(os.path.realpath, paths):
        if start in (path, os.path.splitext(path)[0], os.path.dirname(path)):
            raise UserError("--init-from {}: --restart removes it; copy it to another folder "
                            "first".format(args.init_from))
    for path in paths:
        os.remove(path)


def freeze_best(args, validator):
    """Freeze the best checkpoint, compared on validation pictures before it takes its name."""
    record, weights = validator.read_best()
    classifier = classifier_from_weights(weights, args.image_size, args.threads)
    paths = validator.split.faces[:16] + validator.split.negatives[:16]
    _, images, _ = next(read_batches(paths, len(paths), args.image_size))
    path = os.path.join(args.model_dir, "darknet19_frozen.pb")
    remove_leftovers(path)
    difference = freeze(classifier, path, images, {
        "step": int(record["step"]), "epoch": int(record["epoch"]),
        "validation": {name: value for name, value in record.items()
                       if name.startswith(("val_", "disturbed_"))}})
    print("wrote {} (step {}, largest difference from the checkpoint {:.1g})".format(
        path, int(record["step"]), difference))
    picture = os.path.join(args.log_dir, "training_summary.png")
    plot_training_summary(
        picture, read_history(os.path.join(args.log_dir, "history.csv")), record,
        {name: getattr(args, name) for name in RUN_SETTINGS})
    print("wrote {}".format(picture))


def lr_range_test(args, loader):
    """Smith's range test: raise the rate in a straight line and watch the accuracy.

    Writes ``lr_range_test.csv`` and ``lr_range_test.png`` in the log directory; no checkpoint is
    read or written.
    """
    steps_per_epoch = loader.sources["train"].steps_per_epoch
    total = args.epochs * steps_per_epoch
    rows = []
    with tf.Graph().as_default():
        net = build_training_graph(
            args, steps_per_epoch,
            lambda step: linear_learning_rate(step, 0, args.max_lr, total))
        with new_session(threads=args.threads, precision=args.precision) as session:
            session.run(tf.global_variables_initializer())
            warm_start(session, args)
            for images, labels in progress(loader.stream("train", 0, total), total=total,
                                           desc="range test", unit="step"):
                session.run(net.reset)  # so that the running accuracy is this batch's
                rate, _, loss = session.run([net.learning_rate, net.train_op, net.loss],
                                            {net.images: images, net.labels: labels})
                rows.append((rate, loss, session.run(net.running["accuracy"])))
                if not np.isfinite(loss):
                    warn("the loss is no longer finite at a rate of {:.2g}".format(rate))
                    break
    stem = os.path.join(args.log_dir, "lr_range_test")
    with write_atomically(stem + ".csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("learning_rate", "loss", "accuracy")] + rows)
    plot_range_test(stem + ".png", np.array(rows))
    print("wrote {0}.csv and {0}.png: --base-lr is where accuracy starts to rise, --max-lr where "
          "it turns ragged or falls".format(stem))


def _parser():
    parser = argparse.ArgumentParser(
        description="Train Darknet-19 on faces and non-faces, resuming where a checkpoint is, and "
                    "freeze the best.",
        formatter_class=HelpFormatter)
    positive, share = number_type(int, 1), number_type(float, 0, 1)
    rate = number_type(float, 0)
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models",
                        help="folder for checkpoints and the frozen graph")
    parser.add_argument("--log-dir", default="logs", help="folder for TensorBoard and history.csv")
    parser.add_argument("--image-size", type=number_type(int, STRIDE, LARGEST_SIZE), default=224,
                        help="input height and width, a multiple of 32")
    parser.add_argument("--batch-size", type=number_type(int, 2, LARGEST_BATCH), default=32,
                        help="images a step, half of them faces; even; of several ranks, each's")
    parser.add_argument("--epochs", type=positive, default=8,
                        help="passes over the larger class")
    parser.add_argument("--policy", choices=POLICIES, default="triangular",
                        help="shape of the cyclical learning rate")
    parser.add_argument("--base-lr", type=rate, default=1e-4, help="lower end of a cycle")
    parser.add_argument("--max-lr", type=rate, default=1e-3, help="upper end of a cycle")
    parser.add_argument("--step-epochs", type=number_type(float, 1e-3), default=2.0,
                        help="half a cycle, in epochs")
    parser.add_argument("--gamma", type=share, default=0.99994,
                        help="decay per step of the policy exp_range")
    parser.add_argument("--momentum", type=share, default=0.9,
                        help="of the batch norms' moving averages")
    parser.add_argument("--average-decay", type=share, default=0.998,
                        help="decay of the moving average of the weights, which is what is "
                             "validated and frozen; 0 uses the weights as they are")
    parser.add_argument("--label-smoothing", type=share, default=0.0,
                        help="how much of a label is spread evenly over both classes")
    parser.add_argument("--hard-negatives", type=share, default=1.0, metavar="SHARE",
                        help="learn from this share of a batch's non-faces alone, those that the "
                             "model finds hardest")
    parser.add_argument("--augment", choices=KINDS, default="all",
                        help="the whole augmentation or a part of it, to see what the part gives")
    parser.add_argument("--best-by", choices=("disturbed_loss", "val_loss"),
                        default="disturbed_loss",
                        help="choose the best epoch by the loss on validation images disturbed "
                             "like training images, or as they are")
    parser.add_argument("--init-from", metavar="FILE",
                        help="begin with the weights of an .npz, a frozen .pb, a checkpoint, a "
                             "SavedModel or darknet (darknet19.weights, darknet19_448.conv.23), "
                             "as far as they fit; only where there is no checkpoint to resume "
                             "from")
    parser.add_argument("--freeze-until", type=number_type(int, 0, 18), default=0, metavar="N",
                        help="leave the first N convolutions as --init-from has them")
    parser.add_argument("--seed", type=number_type(int, 0), default=0,
                        help="of the initial weights, the data order and the augmentation")
    parser.add_argument("--workers", type=number_type(int, 0, 256), default=2,
                        help="processes that prepare batches; 0 prepares them in between")
    parser.add_argument("--threads", type=number_type(int, 1, 1024), metavar="N",
                        help="threads inside an operation; with 1 a run on a CPU is repeatable to "
                             "the bit (default: all cores)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in; checkpoints and the frozen graph "
                             "stay float32")
    parser.add_argument("--save-every", type=positive, default=200, metavar="STEPS",
                        help="steps between checkpoints; one more before each validation pass")
    parser.add_argument("--validate-every", type=positive, default=1, metavar="EPOCHS",
                        help="epochs between validation passes; one more at the end")
    parser.add_argument("--log-every", type=positive, default=10, metavar="STEPS",
                        help="steps between TensorBoard summaries")
    parser.add_argument("--restart", action="store_true",
                        help="begin anew: removes the checkpoints and history of an earlier run")
    parser.add_argument("--lr-range-test", action="store_true",
                        help="raise the rate from 0 to --max-lr over --epochs and plot the "
                             "accuracy, without checkpoints")
    group = parser.add_argument_group("for several ranks, started by mpirun")
    group.add_argument("--lr-scaling", choices=("linear", "none"), default="linear",
                       help="multiply the learning rates by the number of ranks, as the images a "
                            "step are")
    group.add_argument("--warmup-epochs", type=number_type(float, 0), default=1.0,
                       metavar="EPOCHS", help="reach this multiple gradually over so many epochs")
    group.add_argument("--fp16-compression", action="store_true",
                       help="send gradients as float16: half the traffic, less precise")
    return parser


def _parse(argv=None):
    parser = _parser()
    args = parser.parse_args(argv)
    if args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    if args.batch_size % 2:
        parser.error("--batch-size is even: half of a batch are faces")
    if args.max_lr < args.base_lr:
        parser.error("--max-lr is below --base-lr")
    if args.lr_range_test and distributed.size() > 1:
        parser.error("--lr-range-test is for one process")
    return args


@cli
@distributed.job
def main():
    args = _parse()
    check_precision(args.precision)
    splits = {name: load_split(args.data_dir, name) for name in ("train", "val", "test")}
    check_disjoint(splits)
    distributed.check_same(
        [[os.path.relpath(path, args.data_dir) for path in split.paths]
         for split in splits.values()], "the file lists in {}".format(args.data_dir))
    if not is_mkl_build():
        print("this TensorFlow is built without MKL; requirements-mkl.txt trains about twice as "
              "fast on a CPU")
    course = None if args.lr_range_test else plan_course(args, splits["train"])
    sources = {
        "train": TrainingBatches(splits["train"], args.batch_size, args.image_size, args.seed,
                                 args.augment, course, distributed.rank()),
        "val": TrainingBatches(splits["val"], args.batch_size, args.image_size, seed=0),
    }
    print("training on {} faces and {} non-faces, validating on {} and {}".format(
        *map(len, splits["train"] + splits["val"])), flush=True)
    with BatchLoader(sources, args.workers) as loader:
        if args.lr_range_test:
            lr_range_test(args, loader)
        else:
            stop = StopSignal()
            validator = Validator(args, splits["val"], loader)
            Trainer(args, loader, validator, stop).run()
            if distributed.rank() == 0:
                freeze_best(args, validator)
        if loader.bad_files:
            warn("files that did not decode and were skipped: {}".format(loader.bad_files))


if __name__ == "__main__":
    main()
