"""The options of a training: a record with defaults, and the command line that fills it."""

from __future__ import annotations

import argparse
import typing

from darknet19 import CONVOLUTIONS, STRIDE
from darknet_face.console import HelpFormatter, number_type
from darknet_face.images.contact_sheets import image_name
from darknet_face.images.file_lists import add_rate_argument
from darknet_face.images.reader import LARGEST_BATCH
from darknet_face.options import (
    FORMS,
    add_data_argument,
    image_size,
)
from darknet_face.runtime import distributed
from darknet_face.runtime.session import PRECISIONS
from darknet_face.training.augment import KINDS
from darknet_face.training.mixture import ONE_SOURCE, parse_source
from darknet_face.weights.model_file import locate

BEST_BY = ("disturbed_loss", "val_loss")
# Widths are multiples of one by this, the filters of the first layer: so the number of filters in a
# file tells its width exactly.
NARROWEST = int(CONVOLUTIONS[0][0])
LR_SCALINGS = ("linear", "none")

# The options that a resumed run must share with its checkpoints.
RUN_SETTINGS = (
    "sources", "epoch_images", "image_size", "batch_size", "seed", "augment", "policy", "base_lr",
    "max_lr", "step_epochs", "gamma", "width", "momentum", "average_decay", "label_smoothing",
    "freeze_until", "teacher_weight", "temperature", "lr_scaling", "warmup_epochs",
)  # fmt: skip


class Settings(typing.NamedTuple):
    """The options of train.py; ``python train.py --help`` says what each one does."""

    data_dir: str = "data"
    model_dir: str = "saved_models"
    log_dir: str = "logs"
    preview: str | None = None
    lr_range_test: bool = False
    restart: bool = False
    # images
    sources: tuple = ONE_SOURCE
    epoch_images: int = 0
    image_size: int = 224
    batch_size: int = 32
    augment: str = "all"
    seed: int = 0
    workers: int = 2
    # learning rate
    epochs: int = 8
    policy: str = "triangular"
    base_lr: float = 1e-4
    max_lr: float = 1e-3
    step_epochs: float = 2.0
    gamma: float = 0.99994
    # network and loss
    width: float = 1.0
    init_from: str | None = None
    freeze_until: int = 0
    momentum: float = 0.9
    average_decay: float = 0.998
    label_smoothing: float = 0.0
    teacher: str | None = None
    teacher_weight: float = 0.5
    temperature: float = 2.0
    best_by: str = "disturbed_loss"
    patience: int = 0
    at_fpr: float | None = None
    # computation, saving
    threads: int | None = None
    precision: str = "float32"
    save_every: int = 200
    validate_every: int = 1
    log_every: int = 10
    # several ranks
    lr_scaling: str = "linear"
    warmup_epochs: float = 1.0
    fp16_compression: bool = False


def from_command_line(policies: typing.Sequence[str], arguments: typing.Sequence[str] | None = None
                     ) -> Settings:
    """Read the command line.

    Parameters
    ----------
    policies
        The learning-rate policies that train.py knows.
    arguments
        Those of this process if absent.

    Raises
    ------
    SystemExit
        With code 2, for options that are out of range or do not fit together.
    """
    parser = argparse.ArgumentParser(
        description="Train Darknet-19 on faces and non-faces, or resume at the newest checkpoint, "
                    "and freeze the best epoch.",
        formatter_class=HelpFormatter)
    _add_tasks(parser)
    _add_picture_options(parser.add_argument_group("pictures"))
    _add_rate_options(parser.add_argument_group("learning rate"), policies)
    _add_network_options(parser.add_argument_group("network and loss"))
    _add_running_options(parser.add_argument_group("computing, saving and validating"))
    _add_rank_options(parser.add_argument_group("several ranks, started by mpirun"))
    settings = Settings(**vars(parser.parse_args(arguments)))
    settings = settings._replace(
        init_from=settings.init_from and locate(settings.init_from),
        teacher=settings.teacher and locate(settings.teacher))
    if settings.width * NARROWEST % 1:
        parser.error("--width must be a multiple of 1/{}: 0.03125, 0.0625, ..".format(NARROWEST))
    if settings.batch_size % 2:
        parser.error("--batch-size must be even: half of a batch are faces")
    if settings.max_lr < settings.base_lr:
        parser.error("--max-lr is below --base-lr")
    if (settings.lr_range_test or settings.preview) and distributed.size() > 1:
        parser.error("--lr-range-test and --preview are for one process")
    return settings


def _add(parser, name, *others, **options):
    """Add an option with the default that :class:`Settings` has; ``others`` are further names."""
    field = name.lstrip("-").replace("-", "_")
    parser.add_argument(name, *others, default=Settings._field_defaults[field], **options)


def _add_tasks(parser):
    add_data_argument(parser)
    _add(parser, "--model-dir", help="folder for checkpoints and the frozen graph")
    _add(parser, "--log-dir", help="folder for TensorBoard and history.csv")
    _add(parser, "--preview", type=image_name, metavar="PNG",
         help="draw the first training batch as the network sees it, and stop")
    _add(parser, "--lr-range-test", action="store_true",
         help="raise the learning rate from 0 to --max-lr over --epochs, plot the accuracy, and "
              "stop; writes no checkpoint")
    _add(parser, "--restart", action="store_true",
         help="begin again: removes the checkpoints and the history of an earlier run")


def _add_picture_options(group):
    _add(group, "--sources", nargs="+", type=parse_source, metavar="NAME[=WEIGHT]",
         help="the lists to train on: celeba stands for the six of the original; NAME=2 counts "
              "twice as much as NAME=1, NAME=2:1 weighs faces and non-faces apart (default: "
              "celeba)")
    _add(group, "--epoch-images", type=number_type(int, 0), metavar="N",
         help="images of each class in an epoch; with 0 as many as the larger class has")
    _add(group, "--image-size", type=image_size,
         help="input height and width, a multiple of {}".format(STRIDE))
    _add(group, "--batch-size", type=number_type(int, 2, LARGEST_BATCH),
         help="images per step and rank; even, half of them are faces")
    _add(group, "--augment", choices=KINDS,
         help="the whole augmentation, a harder one that hides, cuts and turns more faces, or one "
              "part of it")
    _add(group, "--seed", type=number_type(int, 0),
         help="of the initial weights, the data order and the augmentation")
    _add(group, "--workers", type=number_type(int, 0, 256),
         help="processes that prepare batches; 0 prepares them in the main process")


def _add_rate_options(group, policies):
    rate = number_type(float, 0)
    _add(group, "--epochs", type=number_type(int, 1),
         help="passes over the larger class, or over --epoch-images")
    _add(group, "--policy", choices=policies, help="shape of the cyclical learning rate")
    _add(group, "--base-lr", type=rate, help="lower end of a cycle")
    _add(group, "--max-lr", type=rate, help="upper end of a cycle")
    _add(group, "--step-epochs", type=number_type(float, 1e-3), help="half a cycle, in epochs")
    _add(group, "--gamma", type=number_type(float, 0, 1),
         help="decay per step of the policy exp_range")


def _add_network_options(group):
    share = number_type(float, 0, 1)
    _add(group, "--width", type=number_type(float, 1 / NARROWEST, 1),
         help="share of the filters of every layer, a multiple of 1/{}; 0.25 computes a sixteenth "
              "of the whole network".format(NARROWEST))
    _add(group, "--init-from", "--weights", metavar="PATH",
         help="start from these weights, as far as they fit, instead of random ones: {}, or the "
              "first layers of a darknet file (darknet19_448.conv.23); their own validation is the "
              "first row of the history; ignored where there is a checkpoint to resume from".format(
                  FORMS))
    _add(group, "--freeze-until", type=number_type(int, 0, 18), metavar="N",
         help="do not train the first N convolutions; they stay as in --init-from")
    _add(group, "--momentum", type=share, help="of the moving averages in batch norm")
    _add(group, "--average-decay", type=share,
         help="decay of the moving average of the weights, which is validated and frozen; 0 "
              "validates and freezes the weights themselves")
    _add(group, "--label-smoothing", type=share,
         help="share of each label that is spread evenly over both classes")
    _add(group, "--teacher", metavar="PATH",
         help="learn from this trained model too, as init-from names one: its probabilities for "
              "the very images of the batch are soft targets beside the labels")
    _add(group, "--teacher-weight", type=share,
         help="how much the teacher counts; the labels have the rest")
    _add(group, "--temperature", type=number_type(float, 0.1, 100),
         help="divides the logits before the teacher's probabilities are compared; above 1 the "
              "teacher's doubts count for more")
    _add(group, "--best-by", choices=BEST_BY,
         help="choose the best epoch by the loss on validation images that are augmented like "
              "training images, or on the images as they are")
    _add(group, "--patience", type=number_type(int, 0), metavar="EPOCHS",
         help="stop after so many epochs without a better loss of --best-by; 0 never does. Take at "
              "least a cycle of the learning rate, 2 x --step-epochs")
    add_rate_argument(group)


def _add_running_options(group):
    count = number_type(int, 1)
    _add(group, "--threads", type=number_type(int, 1, 1024), metavar="N",
         help="threads inside an operation; with 1 a run on a CPU is repeatable to the bit "
              "(default: all cores)")
    _add(group, "--precision", choices=PRECISIONS,
         help="number format of the convolutions; checkpoints and the frozen graph stay float32")
    _add(group, "--save-every", type=count, metavar="STEPS",
         help="steps between checkpoints; there is one before each validation too")
    _add(group, "--validate-every", type=count, metavar="EPOCHS",
         help="epochs between validations; there is one after the last epoch too")
    _add(group, "--log-every", type=count, metavar="STEPS",
         help="steps between TensorBoard summaries")


def _add_rank_options(group):
    _add(group, "--lr-scaling", choices=LR_SCALINGS,
         help="multiply the learning rate by the number of ranks, or leave it")
    _add(group, "--warmup-epochs", type=number_type(float, 0), metavar="EPOCHS",
         help="raise the learning rate to this multiple over the first epochs")
    _add(group, "--fp16-compression", action="store_true",
         help="send gradients as float16: half the traffic, less precise")
