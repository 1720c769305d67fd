"""The options that several commands have, each declared once with its checks."""

from __future__ import annotations

import argparse

from darknet19 import STRIDE
from darknet_face.console import number_type
from darknet_face.images.file_lists import CELEBA, source_name
from darknet_face.images.reader import LARGEST_BATCH, LARGEST_SIZE
from darknet_face.weights.model_file import WORD

FORMS = ("an .npz, a frozen .pb, a checkpoint or its folder, a SavedModel's folder, darknet "
         ".weights, or the word {}".format(WORD))
NEWEST = "your newest in the model directory, otherwise the released one"


def add_weights_argument(parser: argparse._ActionsContainer, default: str = NEWEST,
                         *former: str) -> None:
    """Add ``--weights``, the model that a command uses.

    Parameters
    ----------
    default
        What the command uses without it, for the help.
    former
        Earlier names of the option, which go on working.
    """
    parser.add_argument("--weights", metavar="PATH",
                        help="the model: {} (default: {})".format(FORMS, default))
    for name in former:
        parser.add_argument(name, dest="weights", help=argparse.SUPPRESS)


def image_size(text: str) -> int:
    """An argparse ``type``: an input size of the network, a multiple of 32."""
    size = number_type(int, STRIDE, LARGEST_SIZE)(text)
    if size % STRIDE:
        raise argparse.ArgumentTypeError("{} is not a multiple of {}".format(text, STRIDE))
    return size


def add_image_size_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--image-size``, by default the model's own."""
    parser.add_argument("--image-size", type=image_size, metavar="PIXELS",
                        help="height and width of the network's input, a multiple of 32 "
                             "(default: as in training)")


def add_batch_size_argument(parser: argparse._ActionsContainer, default: int = 16) -> None:
    """Add ``--batch-size`` of inference."""
    parser.add_argument("--batch-size", type=number_type(int, 1, LARGEST_BATCH), default=default,
                        metavar="N", help="images per batch")


def add_sources_argument(parser: argparse._ActionsContainer, purpose: str,
                         nargs: str = "+") -> None:
    """Add ``--sources``, the names of datasets, which are part of their lists' file names.

    ``purpose`` is the help.
    """
    parser.add_argument("--sources", nargs=nargs, default=[CELEBA], metavar="NAME",
                        type=source_name, help=purpose)


def add_data_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--data-dir``."""
    parser.add_argument("--data-dir", default="data", help="folder with the file lists")
