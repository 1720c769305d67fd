"""A model file of any format as one object, and the choice of one: your newest, or the released.

    model = choose_model("saved_models", args.weights, args.image_size, args.threshold)
    print(model)                                        # the line that every script begins with
    folded_classifier(model.weights, model.image_size)

:func:`read_model` reads a file, once. The parts of the object come from that one reading: code
that needs a part of a model takes the object, not the path. Reading an ``.npz`` or darknet's files
needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
import typing

import numpy as np

from darknet_face.console import warn
from darknet_face.runtime import distributed
from darknet_face.runtime.safe_files import relative_to_here
from darknet_face.weights import darknet_weights
from darknet_face.weights.arrays import check_weights, width_of
from darknet_face.weights.checkpoints import find_checkpoint, read_checkpoint
from darknet_face.weights.graph_files import (
    find_saved_model,
    is_frozen_graph,
    read_frozen,
    read_saved_model,
)
from darknet_face.weights.metadata import (
    metadata_of_checkpoint,
    metadata_of_darknet,
    metadata_of_saved_model,
)
from darknet_face.weights.npz import read_npz

if typing.TYPE_CHECKING:
    from darknet_face.engines.onnx_int8 import Ranges

HERE = os.path.dirname(os.path.abspath(__file__))
CLONE = os.path.dirname(os.path.dirname(HERE))
# In the clone, or where the wheel has it.
RELEASED = os.path.join(
    os.path.join(CLONE, "saved_models") if os.path.exists(os.path.join(CLONE, "pyproject.toml"))
    else HERE, "darknet19_face.npz")
WORD = "released"  # stands for RELEASED on every command line
DEFAULT_SIZE = 224  # where neither the user nor the file says another
DEFAULT_THRESHOLD = 0.5

# What a training and extract_weights.py leave in the model directory. Of equally new ones the
# first is taken.
OWN = ("darknet19_weights.npz", "darknet19_frozen.pb", "best")


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file that has been read.

    Attributes
    ----------
    path
        Where it was read from.
    weights
        By name and in order: see :mod:`darknet_face.weights.arrays`.
    metadata
        What the file says of itself, checked: see :mod:`darknet_face.weights.metadata`.
    graph_def
        The ``tf.GraphDef`` of a frozen graph, for who runs it as it is; otherwise None. It is not
        yet compared with the network: see :mod:`darknet_face.weights.graph_checks`.
    user_size, user_threshold
        What the user asks for, which overrules what the file says.
    """

    path: str
    weights: typing.Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    metadata: dict[str, typing.Any]
    graph_def: typing.Any = dataclasses.field(default=None, repr=False)
    user_size: int | None = None
    user_threshold: float | None = None

    @property
    def image_size(self) -> int:
        """Height and width of the input to use."""
        return self.user_size or self.metadata.get("image_size", DEFAULT_SIZE)

    @property
    def threshold(self) -> float:
        """The probability of FACE from which on an image is called a face."""
        if self.user_threshold is not None:
            return self.user_threshold
        return self.metadata.get("threshold", DEFAULT_THRESHOLD)

    @property
    def search_bias(self) -> float:
        """The bias of the sliding window, in log-odds."""
        return self.metadata.get("search_bias", 0.0)

    @property
    def width(self) -> float:
        """The share of Darknet-19's filters that the network has; 1.0 is the whole network."""
        return width_of(self.weights)

    @property
    def is_released(self) -> bool:
        return self.path == RELEASED

    def ranges(self) -> Ranges:
        """The ranges for 8-bit numbers: see :func:`darknet_face.engines.onnx_int8.read_ranges`."""
        from darknet_face.engines.onnx_int8 import read_ranges

        return read_ranges(self.path, self.weights)

    def describe_threshold(self) -> str:
        """The threshold in use, and whether it is the one stored with the model."""
        is_stored = self.user_threshold is None and "threshold" in self.metadata
        return "{}{}".format(self.threshold, " (stored with the model)" if is_stored else "")

    def __str__(self) -> str:
        return "model: {0}{1}, input {2} x {2}, threshold {3}".format(
            relative_to_here(self.path), " (the released one)" if self.is_released else "",
            self.image_size, self.describe_threshold())


def read_model(path: str, image_size: int | None = None, threshold: float | None = None,
               cfg: str | None = None) -> ModelFile:
    """Read a model file.

    Files are treated as hostile: the shape that a file claims is compared with the network's before
    memory is taken for it.

    Parameters
    ----------
    path
        An ``.npz``; a frozen ``.pb``; darknet's ``.weights``; a SavedModel's folder, or the one
        with its numbered versions (the last is taken); a checkpoint's prefix, one of its files, or
        the folder that holds it; the word ``released``.
    image_size, threshold
        Use these, whatever the file says.
    cfg
        darknet's description of its weights; see
        :func:`darknet_face.weights.darknet_weights.read_network`.

    Raises
    ------
    UserError
        Missing, damaged, of another network or of an unknown kind; damaged metadata.
    """
    path = locate(path)
    weights, metadata, graph_def = _read(path, cfg)
    return ModelFile(path, weights, metadata, graph_def, image_size, threshold)


def _read(path: str, cfg: str | None) -> tuple[
        typing.Mapping[str, np.ndarray], dict[str, typing.Any], typing.Any]:
    """Weights, metadata and the graph, if there is one."""
    if cfg or darknet_weights.is_darknet_file(path):
        arrays, description = darknet_weights.read_network(path, cfg)
        return check_weights(arrays, path), metadata_of_darknet(description), None
    if path.lower().endswith(".npz"):
        return read_npz(path) + (None,)
    if is_frozen_graph(path):
        return read_frozen(path)
    folder = find_saved_model(path)
    if folder:
        return read_saved_model(folder), metadata_of_saved_model(folder), None
    prefix = find_checkpoint(path)
    return read_checkpoint(prefix), metadata_of_checkpoint(prefix), None


def choose_model(model_dir: str, weights: str | None = None, image_size: int | None = None,
                 threshold: float | None = None, cfg: str | None = None) -> ModelFile:
    """Read the model to use: the one that ``weights`` names, otherwise :func:`newest_model` in the
    model directory, otherwise the released one. Warn of an input size other than the training's.

    The other parameters are those of :func:`read_model`.
    """
    path = weights or newest_model(model_dir)
    if not path:
        path = RELEASED if os.path.exists(RELEASED) else os.path.join(model_dir, OWN[0])
    model = read_model(path, image_size, threshold, cfg)
    _warn_of_size(model)
    return model


def newest_model(model_dir: str) -> str | None:
    """The newest of your own models in a folder, or None.

    That is the extracted weights, the frozen graph or the folder of the best checkpoint.
    """
    ages = {}
    for name in OWN:
        path = os.path.join(model_dir, name)
        dated = os.path.join(path, "best.json") if name == "best" else path
        if os.path.exists(dated):
            ages[path] = os.path.getmtime(dated)
    return max(ages, key=lambda path: ages[path], default=None)


def locate(weights: str) -> str:
    """The file that a value of ``--weights`` stands for, also that of the word ``released``."""
    return RELEASED if weights == WORD else weights


def _warn_of_size(model: ModelFile) -> None:
    if distributed.rank():
        return
    trained, path = model.metadata.get("image_size"), relative_to_here(model.path)
    if trained and trained != model.image_size:
        warn("{0}: trained at {1} x {1}, run at {2} x {2}; the answers may be worse: leave out "
             "--image-size".format(path, trained, model.image_size))
    elif not trained and not model.user_size:
        warn("{0}: does not say its input size; {1} x {1} is used: name another with --image-size"
             .format(path, DEFAULT_SIZE))
