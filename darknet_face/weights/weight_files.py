"""The network's weights out of any file: ``.npz``, checkpoint, frozen graph, SavedModel, darknet's.

:func:`read_weights` reads any of them into named arrays (see ``weights.py``). Files are treated as
hostile: the shape that a file claims is compared with the network's before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import os

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.session import checkpoint_errors, tf
from darknet_face.weights import darknet_weights
from darknet_face.weights.arrays import StoredArray, check_weights, variable_name, weight_shapes
from darknet_face.weights.checkpoint_index import check_index
from darknet_face.weights.checkpoints import cause, find_checkpoint
from darknet_face.weights.graph_files import read_constants, read_graph_def, read_meta_graph
from darknet_face.weights.literal_names import literal
from darknet_face.weights.npz import read_npz


def read_checkpoint(prefix, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a checkpoint of train.py, averaged ones if it holds both.

    Parameters
    ----------
    prefix : str
        The path without ``.index``.
    """
    entries = check_index(prefix)
    with literal(prefix) as name:
        return _read_checkpoint(name, prefix, entries, num_classes, partial)


def _read_checkpoint(name, prefix, entries, num_classes, partial):
    try:
        reader = tf.train.NewCheckpointReader(name)
        stored = {}
        for name in weight_shapes():
            variable = variable_name(name)
            averaged = variable + "/ExponentialMovingAverage"
            chosen = averaged if averaged in entries else variable
            if chosen in entries:
                entry = entries[chosen]
                stored[name] = StoredArray(
                    tuple(dimension.size for dimension in entry.shape.dim),
                    np.dtype(tf.as_dtype(entry.dtype).as_numpy_dtype),
                    lambda chosen=chosen: reader.get_tensor(chosen))
        return check_weights(stored, prefix, num_classes, partial)
    except checkpoint_errors() as error:  # a wrong checksum, for one
        raise UserError("{}: not a whole checkpoint ({}); use another or train again".format(
            prefix, cause(error)))


def read_frozen(path, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a frozen graph: the constants that were variables."""
    return read_constants(read_graph_def(path), path, num_classes, partial)


def read_saved_model(folder, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a SavedModel: its variables, or its constants if it has none.

    Parameters
    ----------
    folder : str
        With ``saved_model.pb`` in it.
    """
    prefix = os.path.join(folder, "variables", "variables")
    if os.path.exists(prefix + ".index"):
        return read_checkpoint(prefix, num_classes, partial)
    return read_constants(read_meta_graph(folder).graph_def, os.path.join(folder, "saved_model.pb"),
                          num_classes, partial)


def read_weights(path, num_classes=darknet19.NUM_CLASSES, partial=False, cfg=None):
    """Read weights from any file that holds them.

    Parameters
    ----------
    path : str
        An ``.npz``; a frozen ``.pb``; darknet's ``.weights`` or a part of it (``*.conv.23``); a
        SavedModel's folder, or the one with its numbered versions (the last is taken); a
        checkpoint's prefix, one of its files, or the folder that holds it.
    num_classes : int or None
        None accepts any number of classes.
    partial : bool
        Accept weights of the first layers only.
    cfg : str, optional
        darknet's description of its weights; see :func:`darknet_weights.read_weights`.

    Returns
    -------
    OrderedDict of str to numpy.ndarray

    Raises
    ------
    UserError
        Missing, damaged, of another network or of an unknown kind.
    """
    if cfg or darknet_weights.is_darknet_file(path):
        return check_weights(darknet_weights.read_weights(path, cfg), path, num_classes, partial)
    if path.endswith(".npz"):
        return read_npz(path, num_classes, partial)
    if is_frozen_graph(path):
        return read_frozen(path, num_classes, partial)
    folder = find_saved_model(path)
    if folder:
        return read_saved_model(folder, num_classes, partial)
    return read_checkpoint(find_checkpoint(path), num_classes, partial)


def is_frozen_graph(path):
    """Whether a path names a frozen graph, by its ending."""
    return path.endswith(".pb") and os.path.basename(path) != "saved_model.pb"


def find_saved_model(path):
    """The SavedModel that a folder, its parent or its ``saved_model.pb`` stands for, or None."""
    if os.path.basename(path) == "saved_model.pb":
        return os.path.dirname(path) or "."
    versions = []
    with contextlib.suppress(OSError):
        versions = sorted((name for name in os.listdir(path) if name.isdecimal()), key=int)
    for folder in [path] + [os.path.join(path, name) for name in reversed(versions)]:
        if os.path.isfile(os.path.join(folder, "saved_model.pb")):
            return folder
    return None
