"""Graphs in protobuf files: frozen graphs (``.pb``) and SavedModels, and the weights in them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import typing
import warnings
from collections import OrderedDict

import numpy as np

from darknet_face.console import UserError
from darknet_face.runtime.safe_files import read_json, regular_size
from darknet_face.runtime.session import protobuf, tf
from darknet_face.weights.arrays import StoredArray, check_weights, variable_name, weight_shapes
from darknet_face.weights.checkpoints import read_checkpoint
from darknet_face.weights.metadata import Metadata, is_image_size, metadata_beside

MAX_PROTO_BYTES = (1 << 31) - 1  # protobuf's own bound


def is_frozen_graph(path: str) -> bool:
    """Whether a path names a frozen graph, by its ending."""
    return path.lower().endswith(".pb") and os.path.basename(path) != "saved_model.pb"


def read_frozen(path: str) -> tuple[OrderedDict[str, np.ndarray], Metadata, typing.Any]:
    """The weights of a frozen graph, its metadata, and the graph itself.

    Raises
    ------
    UserError
        Damaged, of another network, or not the file that the ``.json`` beside it describes.
    """
    graph_def = read_graph_def(path)
    metadata = dict(metadata_beside(path), **_input_size(graph_def))
    return read_constants(graph_def, path), metadata, graph_def


def read_graph_def(path: str, remedy: str = "run train.py") -> typing.Any:
    """Parse a ``.pb`` file to a ``tf.GraphDef``; ``remedy`` is what writes such a file.

    Raises
    ------
    UserError
        Missing, empty, truncated or not a graph; or not the file whose SHA-256 stands in the
        ``.json`` of the same name.
    """
    content = _read_bytes(path, "frozen graph", remedy)
    described = os.path.splitext(path)[0] + ".json"
    if os.path.exists(described):
        expected = read_json(described, remedy + " again").get("sha256")
        if expected not in (None, hashlib.sha256(content).hexdigest()):
            raise UserError("{}: not the file that {} describes (SHA-256 differs); {} to write "
                            "both again".format(path, described, remedy))
    graph_def = _parse(content, tf.GraphDef, path, "frozen graph", remedy)
    if not graph_def.node:
        raise UserError("{}: no graph in it; {} again".format(path, remedy))
    return graph_def


def _input_size(graph_def: typing.Any) -> Metadata:
    """The input size of a frozen graph; none if the input is no square."""
    for node in graph_def.node:
        if (node.op, node.name) == ("Placeholder", "input"):
            sizes = {dim.size for dim in node.attr["shape"].shape.dim[1:3]}
            size = sizes.pop() if len(sizes) == 1 else 0
            return {"image_size": size} if is_image_size(size) else {}
    return {}


def _read_bytes(path: str, kind: str, remedy: str) -> bytes:
    size = regular_size(path, remedy)
    if size > MAX_PROTO_BYTES:
        raise UserError("{}: {:,} bytes are more than a {} can have; {} again".format(
            path, size, kind, remedy))
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise UserError("{}: {}; {} again".format(path, error.strerror, remedy))


def _parse(content: bytes, message: typing.Any, path: str, kind: str, remedy: str) -> typing.Any:
    try:
        # protobuf warns of bytes after the message instead of refusing them
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            parsed = message.FromString(content)
        if warned:
            raise ValueError(warned[0].message)
        return parsed
    except Exception as error:  # protobuf's decode errors have no common public base
        raise UserError("{}: not a whole {} ({}); {} again".format(path, kind, error, remedy))


def find_saved_model(path: str) -> str | None:
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


def read_saved_model(folder: str) -> OrderedDict[str, np.ndarray]:
    """The weights of a SavedModel: its variables, or its constants if it has none.

    ``saved_model.pb`` is in the folder.
    """
    prefix = os.path.join(folder, "variables", "variables")
    if os.path.exists(prefix + ".index"):
        return read_checkpoint(prefix)
    return read_constants(
        read_meta_graph(folder).graph_def, os.path.join(folder, "saved_model.pb"))


def read_meta_graph(folder: str) -> typing.Any:
    """Parse the ``saved_model.pb`` in a folder; return the first ``tf.MetaGraphDef`` in it."""
    saved_model_pb2 = protobuf("saved_model_pb2")
    path = os.path.join(folder, "saved_model.pb")
    kind, remedy = "SavedModel", "run export.py savedmodel"
    model = _parse(_read_bytes(path, kind, remedy), saved_model_pb2.SavedModel, path, kind, remedy)
    if not model.meta_graphs:
        raise UserError("{}: no graph in it; run export.py savedmodel again".format(path))
    return model.meta_graphs[0]


def read_constants(graph_def: typing.Any, path: str) -> OrderedDict[str, np.ndarray]:
    """The weights in a ``tf.GraphDef``: the constants that were variables.

    ``path`` is its file, for the error line.
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
                functools.partial(tf.make_ndarray, tensor))
    try:
        return check_weights(stored, path)
    except (ValueError, TypeError) as error:  # fewer numbers than the shape has places for
        raise UserError("{}: not a whole frozen graph ({}); run train.py again".format(path, error))
