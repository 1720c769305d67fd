"""Graphs in protobuf files: frozen graphs (``.pb``) and SavedModels, and the weights in them."""

from __future__ import annotations

import os
import warnings

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.safe_files import regular_size
from darknet_face.runtime.session import protobuf, tf
from darknet_face.weights.arrays import StoredArray, check_weights, variable_name, weight_shapes

MAX_PROTO_BYTES = (1 << 31) - 1  # protobuf's own bound


def read_graph_def(path):
    """Parse a ``.pb`` file.

    Returns
    -------
    tf.GraphDef

    Raises
    ------
    UserError
        Missing, empty, truncated or not a graph.
    """
    graph_def = _read_proto(path, tf.GraphDef, "frozen graph", "run train.py")
    if not graph_def.node:
        raise UserError("{}: no graph in it; run train.py again".format(path))
    return graph_def


def _read_proto(path, message, kind, remedy):
    size = regular_size(path, remedy)
    if size > MAX_PROTO_BYTES:
        raise UserError("{}: {:,} bytes are more than a {} can have; {} again".format(
            path, size, kind, remedy))
    try:
        # protobuf warns of bytes after the message instead of refusing them
        with open(path, "rb") as stream, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            content = message.FromString(stream.read())
        if warned:
            raise ValueError(warned[0].message)
        return content
    except OSError as error:
        raise UserError("{}: {}; {} again".format(path, error.strerror, remedy))
    except Exception as error:  # protobuf's decode errors have no common public base
        raise UserError("{}: not a whole {} ({}); {} again".format(path, kind, error, remedy))


def read_meta_graph(folder):
    """Parse a SavedModel's ``saved_model.pb``.

    Parameters
    ----------
    folder : str
        With ``saved_model.pb`` in it.

    Returns
    -------
    tf.MetaGraphDef
        The first one in it.
    """
    saved_model_pb2 = protobuf("saved_model_pb2")

    path = os.path.join(folder, "saved_model.pb")
    model = _read_proto(path, saved_model_pb2.SavedModel, "SavedModel", "run export.py savedmodel")
    if not model.meta_graphs:
        raise UserError("{}: no graph in it; run export.py savedmodel again".format(path))
    return model.meta_graphs[0]


def read_constants(graph_def, path, num_classes=darknet19.NUM_CLASSES, partial=False):
    """The weights in a frozen graph: the constants that were variables.

    Parameters
    ----------
    graph_def : tf.GraphDef
    path : str
        Its file, for the error line.
    num_classes, partial
        See :func:`darknet_face.weights.weight_files.read_weights`.
    """
    wanted = {variable_name(name): name for name in weight_shapes()}
    stored = {}
    for node in graph_def.node:
        if node.op == "Const" and node.name in wanted:
            tensor = node.attr["value"].tensor
            try:
                dtype = np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype)
            except TypeError:
                dtype = "unknown type"
            stored[wanted[node.name]] = StoredArray(
                tuple(dim.size for dim in tensor.tensor_shape.dim), dtype,
                lambda tensor=tensor: tf.make_ndarray(tensor))
    try:
        return check_weights(stored, path, num_classes, partial)
    except (ValueError, TypeError) as error:  # fewer numbers than the shape has places for
        raise UserError("{}: not a whole frozen graph ({}); run train.py again".format(path, error))
