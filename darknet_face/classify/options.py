"""The options that all programs that classify share: which model, how far to search."""

from __future__ import annotations

import argparse

from darknet_face.classify.sliding_window import DEFAULT_SEARCH, SEARCH_CHOICES
from darknet_face.console import number_type
from darknet_face.detection import DETECTOR
from darknet_face.engines.engine import add_engine_argument, add_precision_argument
from darknet_face.options import (
    add_batch_size_argument,
    add_image_size_argument,
    add_weights_argument,
)


def add_model_arguments(parser: argparse._ActionsContainer, batch_size: int = 16) -> None:
    """Add the options of a program that answers with the newest model or any other."""
    parser.add_argument("--model-dir", default="saved_models", help="folder with your own model")
    add_weights_argument(parser)
    add_image_size_argument(parser)
    add_batch_size_argument(parser, batch_size)
    add_engine_argument(parser)
    add_answer_arguments(parser)


def add_answer_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the options that decide how a model's answers are computed and read."""
    parser.add_argument("--threshold", type=number_type(float, 0, 1),
                        help="call an image a face if its probability is at least this (default: "
                             "the one stored with the model, or 0.5)")
    add_precision_argument(parser)


def add_search_argument(parser: argparse._ActionsContainer, note: str = "") -> None:
    """Add ``--search``, how faces are looked for; ``note`` ends the help."""
    parser.add_argument(
        "--search", choices=(DETECTOR,) + SEARCH_CHOICES,
        help="detector finds faces and their boxes, which the classifier confirms. A number runs "
             "the classifier as a sliding window over the image, its shorter side enlarged to up "
             "to so many times the network's input: 4 finds faces from about 5 %% of the width on, "
             "2 from 10 %%, 1 from 20 %%, at 22, 6 and 2 times the cost of off, a single pass over "
             "the stretched image (default: detector, or {} for a model that none is calibrated "
             "for{})".format(DEFAULT_SEARCH, note))
