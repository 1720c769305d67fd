"""The options of the scripts that measure on the test lists; quick to import, for their --help."""

from __future__ import annotations

import argparse
import typing

from darknet_face.console import number_type


class EvaluationOptions(typing.NamedTuple):
    """What to measure."""

    false_positive_rate: float | None = None  # also report which threshold keeps it
    robustness: bool = False  # also measure on corrupted images
    report: str | None = None  # the folder for the report
    batch_size: int = 16
    data_dir: str | None = "data"  # where the report finds the lists; None if there are none
    log_dir: str | None = None  # of the training's history; absent, where train.py wrote it
    search: str | None = "off"  # also measure as darknet-face answers; see load()
    precision: str = "float32"  # of those answers
    model_dir: str = "saved_models"  # with your own detector, if there is one


def add_evaluation_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the options of every script that measures on the test lists."""
    parser.add_argument("--at-fpr", type=number_type(float, 0, 1), metavar="RATE",
                        help="also report which threshold keeps this false-positive rate on the "
                             "test images; to choose and store one on the validation lists, use "
                             "--at-fpr of train.py or extract_weights.py")
    parser.add_argument("--robustness", action="store_true",
                        help="also measure with every test image grey, blurred, noisy, shrunk, "
                             "moved, .. (takes 12 times as long)")
    parser.add_argument("--report", metavar="DIR",
                        help="write report.json and a self-contained index.html there")
    parser.add_argument("--log-dir",
                        help="folder with the history.csv of the model's training, for the report "
                             "(default: where train.py wrote it, otherwise logs)")


def evaluation_options(args: argparse.Namespace, search: str | None = "off") -> EvaluationOptions:
    """The record for the parsed options of an evaluation, --batch-size and --data-dir."""
    return EvaluationOptions(
        args.at_fpr, args.robustness, args.report, args.batch_size, args.data_dir, args.log_dir,
        search, args.precision, args.model_dir)
