"""The options that several commands have, each declared once with its checks."""

from __future__ import annotations

import argparse

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
