"""The network's weights as named arrays: names, shapes, checks, and the way into a session.

Everywhere in the project weights are an ordered dict of float32 arrays, named as in the ``.npz``:
``conv_0/kernel`` (HWIO), ``conv_0/gamma``, ``conv_0/beta``, ``conv_0/mean``, ``conv_0/variance``,
.. ``conv_17/variance``, ``conv_18/kernel``, ``conv_18/bias``. The files that hold them are read and
written in ``weight_files.py``.
"""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.session import tf

MAX_CLASSES = 100000  # far more than any classifier has; a hostile file could ask for 10^18

# These two parts have another name in a graph than in a file.
_PART_IN_GRAPH = {"mean": "moving_mean", "variance": "moving_variance"}


class StoredArray(namedtuple("StoredArray", "shape dtype load")):
    """An array in a file: the shape and type that the file claims, and a function that reads it."""


def variable_name(name):
    """The graph's name for a weight: ``conv_3/mean`` is the variable ``conv_3/moving_mean``."""
    layer, part = name.split("/")
    return "{}/{}".format(layer, _PART_IN_GRAPH.get(part, part))


def weight_shapes(num_classes=darknet19.NUM_CLASSES):
    """Shape of every weight, by name, in the order of the layers."""
    parts = {graph: file for file, graph in _PART_IN_GRAPH.items()}
    shapes = OrderedDict()
    for name, shape in darknet19.variable_shapes(num_classes).items():
        layer, part = name.split("/")
        shapes["{}/{}".format(layer, parts.get(part, part))] = shape
    return shapes


def check_weights(weights, source, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Make sure that weights are Darknet-19's, whole and finite, and put them in order.

    A file is treated as hostile: the shape that it claims is compared with the network's before
    memory is taken for the array.

    Parameters
    ----------
    weights : mapping of str to array or StoredArray
        float32 or float16.
    source : str
        The file's name, for the error line.
    num_classes : int or None
        None accepts any number of classes.
    partial : bool
        Accept weights of the first layers only.

    Returns
    -------
    OrderedDict of str to numpy.ndarray
        float32.

    Raises
    ------
    UserError
        Naming every layer that does not fit, what was expected and what was found.
    """
    if num_classes is None:
        num_classes = _count_classes(weights)
    expected = weight_shapes(num_classes)
    missing = [name for name in expected if name not in weights]
    if partial:
        missing = [name for name in missing if not _is_cut_off(name, missing, expected)]
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
    return OrderedDict(
        (name, _load_finite(name, weights[name], source)) for name in expected if name in weights)


def _count_classes(weights):
    """The length of the last layer's bias; this project's number of classes if it is unusable."""
    shape = getattr(weights.get(darknet19.CLASSIFIER + "/bias"), "shape", ())
    if len(shape) == 1 and 1 <= shape[0] <= MAX_CLASSES:
        return int(shape[0])
    return darknet19.NUM_CLASSES


def _is_cut_off(name, missing, expected):
    """Whether all of a missing weight's layer and of the later layers is missing, and that layer
    is not the first."""
    names = list(expected)
    first = names.index(name.split("/")[0] + "/kernel")
    return first > 0 and set(names[first:]) <= set(missing)


def _missing_layers(missing, expected):
    """Name what is missing: a whole layer by its own name, a part of one by the part's."""
    lines = []
    for layer in OrderedDict.fromkeys(name.split("/")[0] for name in missing):
        gone = [name for name in missing if name.split("/")[0] == layer]
        whole = len(gone) == sum(name.split("/")[0] == layer for name in expected)
        lines += ["{} is missing".format(name) for name in ([layer] if whole else gone)]
    return lines


def _fits(array, shape):
    return tuple(array.shape) == tuple(shape) and array.dtype in (np.float32, np.float16)


def _load_finite(name, stored, source):
    array = np.asarray(stored.load() if isinstance(stored, StoredArray) else stored)
    if not np.isfinite(array).all():
        raise UserError("{}: {}: element {} is not finite; the training diverged, use an earlier "
                        "file".format(source, name, int(np.argmin(np.isfinite(array).ravel()))))
    if name.endswith("/variance") and array.min() < 0:
        raise UserError("{}: {}: a negative variance; the file is damaged".format(source, name))
    return array.astype(np.float32)


def assign(session, weights):
    """Load weights into the variables of the session's graph.

    Parameters
    ----------
    session : tf.Session
    weights : mapping of str to numpy.ndarray
        A weight whose variable the graph lacks is an error.
    """
    variables = {variable.op.name: variable for variable in session.graph.get_collection(
        tf.GraphKeys.GLOBAL_VARIABLES)}
    set_variables(session, {variables[variable_name(name)]: array
                            for name, array in weights.items()})


def set_variables(session, values):
    """Set variables to values in one run of the session; one run per variable takes seconds.

    Parameters
    ----------
    session : tf.Session
    values : dict of tf.Variable to numpy.ndarray
    """
    session.run([variable.initializer for variable in values],
                {variable.initializer.inputs[1]: array for variable, array in values.items()})
