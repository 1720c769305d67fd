"""Train the YOLOv2 detector: the head on the frozen trunk first, then all of it.

    python train_detector.py --head yolov2 --wider-dir wider
    python train_detector.py --head yolov2 --wider-dir wider --weights data    # the two pickles
    python train_detector.py --head yolov2 --wider-dir wider --steps 500 --freeze-steps 500
    tensorboard --logdir runs/yolov2

In ``--run-dir`` it keeps the newest checkpoint, ``history.csv``, a chart and TensorBoard's events.
The detector with the best validation AP at IoU 0.5 becomes the frozen graph ``--model``. Interrupt
it at any moment: the same command resumes at the newest checkpoint.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import time
import typing

import numpy as np

import darknet19
from darknet_face.console import UserError, number_type, progress
from darknet_face.detection.datasets import (
    KEEP,
    Photograph,
    prune,
    read_photographs,
    read_wider,
)
from darknet_face.detection.evaluate import average_precision, detect_all
from darknet_face.detection.run_folder import AGAIN, RunFolder, check_finite, log_validation
from darknet_face.detection.yolov2 import data, history, network
from darknet_face.detection.yolov2.anchors import COUNT, face_sizes, find_anchors
from darknet_face.detection.yolov2.boxes import NUMBERS, detections, encode
from darknet_face.detection.yolov2.detector import (
    DEFAULT,
    Detector,
    freeze,
    is_detector,
    saved_variables,
)
from darknet_face.detection.yolov2.loss import yolo_loss
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.resize import resize
from darknet_face.runtime.safe_files import check_replaceable
from darknet_face.runtime.session import (
    PRECISIONS,
    check_precision,
    new_session,
    tf,
)
from darknet_face.training.lock import locked_folders
from darknet_face.training.stop import StopSignal
from darknet_face.training.summaries import EventLog
from darknet_face.training.workers import BatchLoader
from darknet_face.weights.arrays import assign
from darknet_face.weights.checkpoints import restore_checkpoint

CALIBRATION = 16, 224  # images and their size, for the batch norm of a random trunk

Options = collections.namedtuple(
    "Options", "weights run_dir model steps freeze_steps batch_size sizes val_size max_lr "
               "trunk_rate validate_every seed augment precision workers restart",
    defaults=("saved_models/darknet19_face.npz", "runs/yolov2", DEFAULT, 3000, 300, 16,
              (224, 256, 288, 320), 288, 1e-3, 0.2, 250, 0, True, "float32", 1, False))
Options.__doc__ = """Settings of a training; the command line's --help explains each."""
# With other values of these a checkpoint can't be resumed.
BOUND = ("weights", "steps", "freeze_steps", "batch_size", "sizes", "max_lr", "trunk_rate", "seed",
         "augment")

Graph = collections.namedtuple(
    "Graph", "images faces ignored target step rate loss train_head train_all summary boxes scores "
             "saver")


def build_graph(options: Options, anchors: np.ndarray, learning_rate: typing.Callable) -> Graph:
    """Add the training graph to the default graph.

    Parameters
    ----------
    options
    anchors
        float32, [k, 2], in cells.
    learning_rate
        The head's learning rate as a function of the global step, a tensor.

    Returns
    -------
    graph
        ``images`` is fed uint8; ``boxes`` and ``scores`` are the detections of one image.
    """
    count = len(anchors)
    images = tf.placeholder(tf.uint8, [None, None, None, 3], name="images")
    faces, ignored = (tf.placeholder(tf.float32, [None, None, 4]) for _ in range(2))
    target = tf.placeholder(tf.float32, [None, None, None, count, NUMBERS])
    pass_through, trunk = network.build_trunk(tf.cast(images, tf.float32) / 255)
    loss = yolo_loss(network.build_head(pass_through, trunk, count, training=True), target, faces,
                     ignored, anchors)
    boxes, scores = detections(network.build_head(pass_through, trunk, count, reuse=True), anchors)
    step = tf.train.get_or_create_global_step()
    rate = tf.convert_to_tensor(learning_rate(step), tf.float32)
    # Two optimisers, so that the trunk's moments begin when it is freed.
    head = tf.train.AdamOptimizer(rate, name="adam_head").minimize(
        loss.total, var_list=network.head_variables())
    trunk = tf.train.AdamOptimizer(rate * options.trunk_rate, name="adam_trunk").minimize(
        loss.total, var_list=network.trunk_variables())
    with tf.control_dependencies([head] + tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_head = tf.assign_add(step, 1)
    with tf.control_dependencies([train_head, trunk]):
        train_all = tf.identity(step)
    summary = tf.summary.merge([tf.summary.scalar("loss/" + name, value)
                                for name, value in loss._asdict().items()]
                               + [tf.summary.scalar("learning_rate", rate)])
    return Graph(images, faces, ignored, target, step, rate, loss, train_head, train_all, summary,
                 boxes, scores, tf.train.Saver(saved_variables(), max_to_keep=None))


class Trainer:
    """A training in a session of its own.

    Parameters
    ----------
    options
    photographs
        Lists ``train`` and ``val``.
    learning_rate
        See :func:`build_graph`.
    """

    def __init__(self, options: Options, photographs: dict[str, list[Photograph]],
                 learning_rate: typing.Callable) -> None:
        self.options, self.photographs = options, photographs
        self.anchors = _anchors(photographs["train"], options.sizes)
        self._folder = RunFolder(options.run_dir, history.HISTORY)
        graph = tf.Graph()
        with graph.as_default():
            tf.set_random_seed(options.seed)
            self.net = build_graph(options, self.anchors, learning_rate)
        self.session = new_session(graph, precision=options.precision)
        self._to_beat = -1.0
        self.rows = self._start_or_resume()

    def _start_or_resume(self) -> list[dict[str, float]]:
        """Initialise the variables, or restore the newest checkpoint; the history up to there."""
        options = self.options
        bound = {name: getattr(options, name) for name in BOUND}
        bound.update(anchors=self.anchors.tolist(), photographs=len(self.photographs["train"]))
        checkpoint, stored = (None, {}) if options.restart else self._folder.newest(bound)
        if not checkpoint:
            self._start(bound)
            return []
        known = stored.get("to_beat")
        self._to_beat = (_plain_number(known[1]) if isinstance(known, list)
                         and known[:1] == [options.model] and len(known) == 2
                         else self._measure_earlier_model())
        restore_checkpoint(self.net.saver, self.session, checkpoint, AGAIN)
        step = int(self.session.run(self.net.step))
        print("resuming at step {:,} of {:,}".format(step, options.steps), flush=True)
        rows = self._folder.rows(step)
        if rows and rows[-1]["step"] == step:
            self._freeze_if_best(checkpoint, rows)  # a run that was killed may not have come to it
        return rows

    def _start(self, bound):
        options = self.options
        with self.session.graph.as_default():
            self.session.run(tf.global_variables_initializer())
        assign(self.session, network.read_trunk(
            options.weights, self._calibration_images(), options.seed))
        self._to_beat = self._measure_earlier_model()
        self._folder.begin(dict(bound, to_beat=[options.model, self._to_beat]))

    def _measure_earlier_model(self) -> float:
        """AP50 of the detector that the model file holds before this training; -1 without one."""
        if not (os.path.exists(self.options.model) and os.path.getsize(self.options.model)):
            return -1.0
        with Detector(self.options.model, self.options.val_size) as detect:
            return _plain_number(average_precision(
                *detect_all(detect, self.photographs["val"]))[1])

    def _freeze_if_best(self, checkpoint, rows):
        """Freeze a checkpoint if the last row, its own, is better than all before it."""
        ap50, best = rows[-1]["ap50"], max([row["ap50"] for row in rows[:-1]], default=-1.0)
        if ap50 > max(best, self._to_beat):
            freeze(checkpoint, self.anchors, self.options.model)
        elif ap50 > best:
            print("{}: kept, since its AP50 is {:.3f}".format(
                self.options.model, self._to_beat), flush=True)
        return ap50 > best

    def _calibration_images(self) -> np.ndarray | None:
        """The first training images, for a random trunk; None for any other."""
        if self.options.weights != network.RANDOM:
            return None
        count, size = CALIBRATION
        images: list[np.ndarray] = []
        for each in self.photographs["train"]:
            if len(images) < count:
                with contextlib.suppress(BadImage):  # reported when its batch is made
                    images.append(resize(read_image(each.path), size, size))
        if not images:
            raise UserError("none of the {:,} training images decodes; check the disk".format(
                len(self.photographs["train"])))
        return np.stack(images)

    def run(self) -> list[dict[str, float]]:
        """Train to the end, validating on the way. Returns the history, oldest row first."""
        options, stop = self.options, StopSignal()
        first = int(self.session.run(self.net.step))
        batches = data.DetectionBatches(self.photographs["train"], options.batch_size,
                                        options.sizes, options.seed, options.augment)
        losses, start = [], time.time()
        with EventLog(options.run_dir, self.session.graph, first) as log, \
                BatchLoader({"train": batches}, options.workers) as loader, \
                progress(total=options.steps, initial=first, desc="training") as bar:
            for step, batch in enumerate(loader.stream("train", first, options.steps), first + 1):
                loss, summary = self._step(step, *batch)
                losses.append(loss)
                log.add(summary, step)
                bar.set_postfix_str("loss {:.3f}".format(loss.total), refresh=False)
                bar.update()
                if step % options.validate_every == 0 or step == options.steps:
                    speed = len(losses) * options.batch_size / (time.time() - start)
                    self._validate(step, np.mean(losses, 0), speed, log)
                    losses, start = [], time.time()
                elif stop.is_due:
                    self._save(step)
                if stop.is_due:
                    stop.exit()
        return self.rows

    def _step(self, step, images, truth):
        """One update. The trunk's begins after the frozen steps."""
        grid = images.shape[1] // 32
        target = np.stack([encode(data.without_padding(faces), grid, self.anchors)
                           for faces in truth.faces])
        net = self.net
        update = net.train_head if step <= self.options.freeze_steps else net.train_all
        loss, summary, _ = self.session.run([net.loss, net.summary, update], {
            net.images: images, net.faces: truth.faces, net.ignored: truth.ignored,
            net.target: target})
        check_finite(loss.total, step)
        return loss, summary

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and scores of an image of any shape, at the validation size."""
        size = self.options.val_size
        boxes, scores = self.session.run([self.net.boxes, self.net.scores],
                                         {self.net.images: resize(image, size, size)[None]})
        return boxes, scores

    def _validate(self, step, losses, speed, log):
        """Measure AP, save a checkpoint, and freeze the detector if it is the best so far."""
        ap40, ap50 = average_precision(*detect_all(self.detect, self.photographs["val"]))
        values = [step, self.session.run(self.net.rate)] + list(losses) + [ap40, ap50, speed]
        self.rows.append(dict(zip(history.HISTORY.columns, map(float, values))))
        log_validation(log, step, ap40=ap40, ap50=ap50)
        checkpoint = self._save(step)
        is_best = self._freeze_if_best(checkpoint, self.rows)
        history.plot_precision(os.path.join(self.options.run_dir, "history.png"), self.rows)
        print("step {:,} of {:,}: loss {:.3f}, AP40 {:.3f}, AP50 {:.3f}{}, {:.1f} images/s".format(
            step, self.options.steps, losses[0], ap40, ap50, " (best)" if is_best else "",
            speed), flush=True)

    def _save(self, step):
        return self._folder.save(self.net.saver, self.session, step, self.rows)


def _plain_number(value: typing.Any) -> float:
    """A number out of a file or a measurement; -1 for anything else, NaN included."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else -1.0


def _anchors(photographs: list[Photograph], sizes: typing.Sequence[int]) -> np.ndarray:
    """Anchors in cells, at the mean input size, of the faces that the rule counts.

    The others are many and tiny.
    """
    large = [each for each in (prune(each, "large") for each in photographs) if each]
    shares = find_anchors(face_sizes(large or photographs), COUNT)
    return shares * np.array(np.mean(sizes) / darknet19.STRIDE, np.float32)


def check_outputs(options: Options) -> None:
    """Check that a training replaces nothing but an earlier one; raises UserError."""
    check_replaceable(options.model, is_detector, "a detector of this program")
    RunFolder(options.run_dir, history.HISTORY).check(["anchors"])


def train(options: Options, photographs: dict[str, list[Photograph]],
          learning_rate: typing.Callable) -> list[dict[str, float]]:
    """Train a detector; see :class:`Trainer`. Returns the history, oldest row first."""
    check_precision(options.precision)
    check_outputs(options)
    with locked_folders({"--run-dir": options.run_dir}):
        trainer = Trainer(options, photographs, learning_rate)
        with trainer.session:
            return trainer.run()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this training to those of train_detector.py."""
    default = Options()

    def add(name, convert, text, **options):
        parser.add_argument("--" + name.replace("_", "-"), type=convert,
                            default=getattr(default, name), help=text, **options)

    parser.add_argument("--wider-dir", default="wider", help="WIDER FACE as distributed")
    for split in ("train", "val"):
        parser.add_argument("--{}-keep".format(split), choices=KEEP, default="pruned",
                            help="which {} images: see datasets.py".format(split))
    parser.add_argument("--also", nargs=2, action="append", default=[],
                        metavar=("IMAGES", "BOXES"),
                        help="more training images: their folder, and their boxes in WIDER FACE's "
                             "format, Pascal VOC's, YOLO's or COCO's")
    add("weights", str, "the trunk's: an .npz, a folder with the two pickles, or random")
    add("run_dir", str, "folder for checkpoints, history and events")
    add("model", str, "the frozen graph to write")
    add("steps", number_type(int, 1), "updates")
    add("freeze_steps", number_type(int, 0), "updates of the head alone, before all is trained")
    add("batch_size", number_type(int, 1, 1024), "images per update")
    add("sizes", number_type(int, 64, 1024), "input sizes to change between", nargs="+")
    add("val_size", number_type(int, 64, 1024), "input size of the validation")
    add("max_lr", number_type(float, 0), "highest learning rate; it rises to it until half way")
    add("trunk_rate", number_type(float, 0, 1), "the trunk's share of the learning rate")
    add("validate_every", number_type(int, 1), "updates between validations")
    add("seed", number_type(int, 0, 2 ** 31 - 1), "of the head and the order of images")
    add("workers", number_type(int, 0, 64), "processes that make batches")
    add("precision", str, "bfloat16 is faster on processors that have it", choices=PRECISIONS)
    parser.add_argument("--no-augment", dest="augment", action="store_false",
                        help="train on the images as they are")
    parser.add_argument("--restart", action="store_true", help="do not resume: begin again")


def read_options(args: dict, parser: argparse.ArgumentParser
                 ) -> tuple[Options, dict[str, list[Photograph]]]:
    """The options on the command line, and the images ``train`` and ``val``."""
    args["sizes"] = tuple(args["sizes"])
    if any(size % 32 for size in args["sizes"] + (args["val_size"],)):
        parser.error("--sizes and --val-size are multiples of 32")
    training = read_wider(args["wider_dir"], "train", args["train_keep"])
    for images, boxes in args["also"]:
        training += read_photographs(images, boxes, args["train_keep"])
    photographs = {"train": training, "val": read_wider(args["wider_dir"], "val", args["val_keep"])}
    print("{:,} training and {:,} validation images".format(
        len(training), len(photographs["val"])), flush=True)
    return Options(**{name: args[name] for name in Options._fields}), photographs
