"""Which weights to use, and at which input size: your newest model, or the released one."""

from __future__ import annotations

import argparse
import os

from darknet_face.console import warn
from darknet_face.runtime import distributed
from darknet_face.runtime.safe_files import relative_to_here
from darknet_face.weights.metadata import read_metadata

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASED = os.path.join(ROOT, "saved_models", "darknet19_face.npz")
WORD = "released"  # stands for RELEASED on every command line
DEFAULT_SIZE = 224  # where neither the user nor the file of the weights says another
DEFAULT_THRESHOLD = 0.5

FORMS = ("an .npz, a frozen .pb, a checkpoint or its folder, a SavedModel's folder, darknet "
         ".weights, or the word {}".format(WORD))
# What a training and extract_weights.py leave in the model directory. Of equally new ones the
# first is taken.
OWN = ("darknet19_weights.npz", "darknet19_frozen.pb", "best")


def add_weights_argument(parser, default, *former):
    """Add ``--weights``, the option that every script has for the model.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    default : str
        What the script uses without it, for the help.
    former : sequence of str
        Earlier names of the option, which go on working.
    """
    parser.add_argument("--weights", metavar="PATH",
                        help="the model: {} (default: {})".format(FORMS, default))
    for name in former:
        parser.add_argument(name, dest="weights", help=argparse.SUPPRESS)


def locate(weights):
    """The file that a value of ``--weights`` stands for: the word ``released`` has one."""
    return RELEASED if weights == WORD else weights


def newest_model(model_dir):
    """The newest of your own models in a folder, or None.

    Parameters
    ----------
    model_dir : str

    Returns
    -------
    str or None
        The extracted weights, the frozen graph or the folder of the best checkpoint.
    """
    ages = {}
    for name in OWN:
        path = os.path.join(model_dir, name)
        dated = os.path.join(path, "best.json") if name == "best" else path
        if os.path.exists(dated):
            ages[path] = os.path.getmtime(dated)
    return max(ages, key=ages.get, default=None)


def choose_model(model_dir, weights=None, image_size=None, cfg=None):
    """The weights to use and the input size that belongs to them.

    The weights are ``weights``. Without them they are your newest model in the model directory:
    see :func:`newest_model`. Without one they are the released ones. A size that is not the one
    of the training causes a warning.

    Parameters
    ----------
    model_dir : str
    weights : str, optional
        Any file that :func:`darknet_face.weights.weight_files.read_weights` reads, or ``released``.
    image_size : int, optional
        Use this size, whatever the file says.
    cfg : str, optional
        darknet's description of ``weights``.

    Returns
    -------
    path : str
    image_size : int
    """
    path = locate(weights) or newest_model(model_dir)
    if not path:
        path = RELEASED if os.path.exists(RELEASED) else os.path.join(model_dir, OWN[0])
    trained = read_metadata(path, cfg).get("image_size")
    warn_of_size(path, trained, image_size)
    return path, image_size or trained or DEFAULT_SIZE


def warn_of_size(path, trained, image_size):
    """Say in one line when a model is run at another size than that of its training.

    Parameters
    ----------
    path : str
        The weights.
    trained : int or None
        The size that they were trained at, if they say it.
    image_size : int or None
        The size that the user asks for.
    """
    if distributed.rank():
        return
    if trained and image_size and image_size != trained:
        warn("{0}: trained at {1} x {1}, run at {2} x {2}; the answers may be worse: leave out "
             "--image-size".format(relative_to_here(path), trained, image_size))
    elif not trained and not image_size and os.path.exists(path):
        warn("{0}: does not say its input size; {1} x {1} is used: name another with --image-size"
             .format(relative_to_here(path), DEFAULT_SIZE))


def describe_model(path, image_size, threshold=None):
    """One line about the model in use, for the user.

    Parameters
    ----------
    path : str
    image_size : int
    threshold : float, optional
        What the user asked for; absent, the one stored with the model or 0.5 is used.
    """
    return "model: {0}{1}, input {2} x {2}, threshold {3}".format(
        relative_to_here(path), " (the released one)" if path == RELEASED else "", image_size,
        describe_threshold(path, threshold))


def describe_threshold(path, threshold=None):
    """The threshold in use as text, and whether it is the one stored with the model."""
    is_stored = threshold is None and "threshold" in read_metadata(path)
    return "{}{}".format(
        threshold_of(path, threshold), " (stored with the model)" if is_stored else "")


def threshold_of(path, threshold=None):
    """The threshold in use: the user's, otherwise the one stored with the model, or 0.5."""
    if threshold is not None:
        return threshold
    return read_metadata(path).get("threshold", DEFAULT_THRESHOLD)
