"""What an engine is, and which there are.

An engine holds the network with its weights and turns images into class maps: for every cell of
32 x 32 pixels a number for FACE and one for NON_FACE. Their means over all cells are the logits of
the image, and their means over a window's cells those of the window. So sliding windows, heat maps
and the Python API work alike on every engine.
"""

from __future__ import annotations

import importlib.util
import typing

import numpy as np

from darknet19 import STRIDE
from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import UserError
from darknet_face.runtime import session

if typing.TYPE_CHECKING:
    from darknet_face.engines.onnx_int8 import Ranges

# By the value of the option --engine; the first that is installed and computes in the precision
# that is asked for is the default.
ENGINES = ("onnxruntime", "tensorflow")
# What an engine computes in; each has some of these.
PRECISIONS = session.PRECISIONS + ("int8",)
PRECISIONS_OF = {"onnxruntime": ("float32", "int8"), "tensorflow": session.PRECISIONS}

_Engine = typing.TypeVar("_Engine", bound="Engine")


class Engine:
    """The network with its weights, ready to run. Several threads may use one engine at once.

    Parameters
    ----------
    image_size : int
        Height and width of the input in training, in pixels: those of a sliding window.
    """

    name: str

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def prepare(self) -> None:
        """Open what would otherwise open with the first images."""

    def class_map(self, images: np.ndarray) -> np.ndarray:
        """The class map of a batch.

        Parameters
        ----------
        images : numpy.ndarray
            uint8, [batch, height, width, 3], RGB; height and width are multiples of 32.

        Returns
        -------
        numpy.ndarray
            float32, [batch, height / 32, width / 32, 2].

        Raises
        ------
        UserError
            When the engine fails, most likely for want of memory.
        """
        raise NotImplementedError

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The probabilities of FACE and NON_FACE, float32 [batch, 2]; ``images`` as above."""
        logits = finite(self.class_map(images).mean(axis=(1, 2)))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def window_log_odds(self, images: np.ndarray) -> np.ndarray:
        """The log-odds of FACE in every window of ``image_size``, one cell apart.

        ``images`` as above, not smaller than a window.

        Returns
        -------
        numpy.ndarray
            float32, [batch, rows, columns].
        """
        class_map = self.class_map(images)
        means, cells = class_map[..., FACE] - class_map[..., NON_FACE], self.image_size // STRIDE
        for axis in (1, 2):
            places = means.shape[axis] - cells + 1
            means = sum(means.take(range(cell, cell + places), axis)
                        for cell in range(cells)) / np.float32(cells)
        return finite(means)

    def close(self) -> None:
        """Free the memory; the engine can't be used afterwards."""

    def __enter__(self: _Engine) -> _Engine:
        return self

    def __exit__(self, *_: typing.Any) -> None:
        self.close()


def finite(answers: np.ndarray) -> np.ndarray:
    """The same answers; raises UserError if they are no numbers: weights can be finite and huge."""
    if not np.isfinite(answers).all():
        raise UserError("the model's answers are not finite numbers; train it again")
    return answers


def add_engine_argument(parser: typing.Any) -> None:
    """Add ``--engine``, an option of the scripts that classify."""
    parser.add_argument("--engine", choices=ENGINES,
                        help="what runs the network (default: the first of these that is "
                             "installed and has the precision)")


def add_precision_argument(parser: typing.Any) -> None:
    """Add ``--precision``, an option of the scripts that classify."""
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in; int8 needs ONNX Runtime")


def open_engine(weights: typing.Mapping[str, np.ndarray], image_size: int,
                name: str | None = None, threads: int | None = None,
                precision: str = "float32",
                ranges: typing.Callable[[], Ranges] | None = None) -> Engine:
    """Open an engine with the network of these weights.

    Parameters
    ----------
    weights
        Named as in :mod:`darknet_face.weights.arrays`.
    image_size
        See :class:`Engine`.
    name
        One of :data:`ENGINES`; by default the first that is installed and has the precision.
    threads
        All cores if absent.
    precision
        One of :data:`PRECISIONS`.
    ranges
        Reads the ranges that int8 needs; called for that precision alone.

    Raises
    ------
    UserError
        For an engine that is not installed, a precision that it or the processor lacks, and
        whatever ``ranges`` raises.
    """
    if choose_engine(name, precision) == "onnxruntime":
        from darknet_face.engines.onnx_runtime import OnnxRuntimeEngine

        if precision != "int8":
            return OnnxRuntimeEngine(weights, image_size, threads)
        if ranges is None:
            raise UserError("--precision int8: these weights have no ranges; use float32")
        return OnnxRuntimeEngine(weights, image_size, threads, ranges())
    from darknet_face.engines.tensorflow_classifier import folded_classifier

    return folded_classifier(weights, image_size, threads, precision)


def choose_engine(name: str | None, precision: str = "float32") -> str:
    """The engine to use: see :func:`open_engine`."""
    able = [each for each in ENGINES if precision in PRECISIONS_OF[each]]
    if name and name not in able:
        raise UserError("--precision {}: {} computes in {} only; use --engine {}".format(
            precision, name, " and ".join(PRECISIONS_OF[name]), able[0]))
    for each in [name] if name else able:
        if importlib.util.find_spec(each):
            return each
    raise UserError("not installed: {0}; pip install {0}".format(name or able[0]))
