"""The network's weights as named arrays: names, shapes, checks, and the way into a session.

Everywhere in the project weights are an ordered dict of float32 arrays, named as in the ``.npz``:
``conv_0/kernel`` (HWIO), ``conv_0/gamma``, ``conv_0/beta``, ``conv_0/mean``, ``conv_0/variance``,
.. ``conv_17/variance``, ``conv_18/kernel``, ``conv_18/bias``. Files are read by ``model_file.py``.
There are always two classes, FACE and NON_FACE.
"""

from __future__ import annotations

import typing
import zlib
from collections import OrderedDict

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.session import tf

# These two parts have another name in a graph than in a file.
_PART_IN_GRAPH = {"mean": "moving_mean", "variance": "moving_variance"}


class StoredArray(typing.NamedTuple):
    """An array in a file: the shape and type that the file claims, and a function that reads it."""

    shape: tuple[int, ...]
    dtype: typing.Any
    load: typing.Callable[[], np.ndarray]


Arrays = typing.Mapping[str, np.ndarray]


def variable_name(name: str) -> str:
    """The graph's name for a weight: ``conv_3/mean`` is the variable ``conv_3/moving_mean``."""
    layer, part = name.split("/")
    return "{}/{}".format(layer, _PART_IN_GRAPH.get(part, part))


def weight_shapes(width: float = 1.0, num_classes: int = darknet19.NUM_CLASSES
                  ) -> OrderedDict[str, tuple[int, ...]]:
    """Shape of every weight, by name, in the order of the layers."""
    parts = {graph: file for file, graph in _PART_IN_GRAPH.items()}
    shapes = OrderedDict()
    for name, shape in darknet19.variable_shapes(num_classes, width).items():
        layer, part = name.split("/")
        shapes["{}/{}".format(layer, parts.get(part, part))] = shape
    return shapes


def width_of(weights: typing.Mapping[str, typing.Any]) -> float:
    """The share of Darknet-19's filters that weights have, by the first layer; 1.0 at the most."""
    shape: typing.Any = getattr(weights.get("conv_0/kernel"), "shape", ())
    whole = darknet19.CONVOLUTIONS[0][0]
    return shape[-1] / whole if len(shape) == 4 and 1 <= shape[-1] <= whole else 1.0


def check_weights(weights: typing.Mapping[str, typing.Any],
                  source: str) -> OrderedDict[str, np.ndarray]:
    """Check that weights are Darknet-19's, complete and finite, and order them.

    A file is treated as hostile: the shape that it claims is compared with the network's before
    memory is taken for the array.

    Parameters
    ----------
    weights
        Arrays or :class:`StoredArray`, float32 or float16.
    source
        The file's name, for the error line.

    Returns
    -------
    OrderedDict
        float32.

    Raises
    ------
    UserError
        Naming every layer that does not fit, what was expected and what was found.
    """
    expected = weight_shapes(width_of(weights))
    missing = [name for name in expected if name not in weights]
    if len(missing) == len(expected):
        raise UserError("{}: none of Darknet-19's layers is in it; use weights of this "
                        "Darknet-19".format(source))
    faults = _missing_layers(missing, expected)
    faults += ["{}: expected float {}, found {} {}".format(
        name, list(shape), weights[name].dtype, list(weights[name].shape))
        for name, shape in expected.items()
        if name in weights and not _fits(weights[name], shape)]
    if faults:
        raise UserError("{}: {}; use weights of this Darknet-19".format(source, "; ".join(faults)))
    return OrderedDict((name, _load_finite(name, weights[name], source)) for name in expected)


def _missing_layers(missing: list[str], expected: typing.Iterable[str]) -> list[str]:
    """Name what is missing: a whole layer by its own name, a part of one by the part's."""
    lines = []
    for layer in OrderedDict.fromkeys(name.split("/")[0] for name in missing):
        gone = [name for name in missing if name.split("/")[0] == layer]
        whole = len(gone) == sum(name.split("/")[0] == layer for name in expected)
        lines += ["{} is missing".format(name) for name in ([layer] if whole else gone)]
    return lines


def _fits(array: typing.Any, shape: tuple[int, ...]) -> bool:
    return tuple(array.shape) == tuple(shape) and array.dtype in (np.float32, np.float16)


def _load_finite(name: str, stored: typing.Any, source: str) -> np.ndarray:
    array = np.asarray(stored.load() if isinstance(stored, StoredArray) else stored)
    array = array.astype(np.float32)  # first: of halves, each question takes four times as long
    if not np.isfinite(array).all():
        raise UserError("{}: {}: element {} is not finite; the training diverged, use an earlier "
                        "file".format(source, name, int(np.argmin(np.isfinite(array).ravel()))))
    if name.endswith("/variance") and array.min() < 0:
        raise UserError("{}: {}: a negative variance; the file is damaged".format(source, name))
    return array


def fingerprint(weights: typing.Mapping[str, np.ndarray]) -> str:
    """Tells weights from others: every training changes biases and statistics."""
    checksum = 0
    for name in sorted(weights):
        if weights[name].ndim == 1:
            checksum = zlib.crc32(weights[name].astype("<f4").tobytes(), checksum)
    return "{:08x}".format(checksum)


def assign(session: typing.Any, weights: Arrays) -> None:
    """Load weights into the variables of the graph of a ``tf.Session``.

    A weight whose variable the graph lacks is an error.
    """
    variables = {variable.op.name: variable for variable in session.graph.get_collection(
        tf.GraphKeys.GLOBAL_VARIABLES)}
    set_variables(session, {variables[variable_name(name)]: array
                            for name, array in weights.items()})


def set_variables(session: typing.Any, values: typing.Mapping[typing.Any, np.ndarray]) -> None:
    """Set variables to values in one run of the session; one run per variable takes seconds."""
    session.run([variable.initializer for variable in values],
                {variable.initializer.inputs[1]: array for variable, array in values.items()})
