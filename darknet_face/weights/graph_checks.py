"""Checks of a strange graph before it is run: it must be the network that darknet19.py builds.

A graph is a program: it could read and write files, ask for any amount of memory, or be another
network under the same names.
"""

from __future__ import annotations

import math

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import (
    OUTPUTS,
    classifier_from_weights,
    with_constants,
    without_newer_attributes,
)
from darknet_face.images.reader import LARGEST_SIZE
from darknet_face.runtime.session import tf
from darknet_face.weights.arrays import variable_name, weight_shapes
from darknet_face.weights.model_file import ModelFile

# All that the network is made of.
OPERATIONS = {"BiasAdd", "Const", "Conv2D", "FusedBatchNormV3", "Identity", "LeakyRelu", "MaxPool",
              "Mean", "Placeholder", "Softmax"}
MAX_CONSTANT_BYTES = 4096  # of a constant that is no weight, such as the axes of a mean

# TensorFlow raises the epsilon of 1e-5 to cuDNN's lower bound of 1.001e-5, but not in all versions.
FLOAT_TOLERANCE = 2e-3

_VARIABLES = {variable_name(name) for name in weight_shapes()}


class _Foreign(Exception):
    """The graph is not the network; the message says why."""


def check_graph(model: ModelFile) -> None:
    """Make sure that a frozen graph is this network with usable weights.

    Memory is taken for nothing whose size has not been compared with the network's.

    Raises
    ------
    UserError
        For other operations than :data:`OPERATIONS`, a damaged graph, another network, another
        number of classes, another input, and weights that are not finite or too large to be used.
    """
    graph_def = model.graph_def
    try:
        _check_operations(graph_def)
        _check_constants(graph_def)
        _check_input(graph_def)
        imported = tf.GraphDef()  # a copy: TensorFlow 2 writes defaults into what it imports
        imported.CopyFrom(graph_def)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(imported, name="")
        classifier = classifier_from_weights(model.weights, None, threads=1)
        with classifier.session:
            _compare(without_newer_attributes(graph.as_graph_def()), with_constants(classifier))
            _check_answers(classifier)
    except (_Foreign, ValueError, KeyError, IndexError, TypeError, AssertionError,
            tf.errors.OpError) as error:
        raise UserError("{}: not a frozen graph of this project ({}); run train.py again".format(
            model.path, getattr(error, "message", str(error)).partition("\n")[0]))


def _check_operations(graph_def):
    foreign = sorted({node.op for node in graph_def.node} - OPERATIONS)
    if foreign:
        raise _Foreign("it has " + ", ".join(foreign))
    if graph_def.library.function or graph_def.library.gradient:
        raise _Foreign("it has functions")
    for node in graph_def.node:
        if node.device:
            raise _Foreign("{} is bound to the device {}".format(node.name, ascii(node.device)))
    if len({node.name for node in graph_def.node}) < len(graph_def.node):
        raise _Foreign("two nodes have one name")


def _check_constants(graph_def):
    """Check the sizes that constants other than weights claim; weights are checked as such."""
    for node in graph_def.node:
        if node.op != "Const" or node.name in _VARIABLES:
            continue
        tensor = node.attr["value"].tensor
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        count = 1
        for size in sizes:
            count *= size
        if min(sizes, default=0) < 0 or not 0 <= count <= MAX_CONSTANT_BYTES or (
                tensor.ByteSize() > MAX_CONSTANT_BYTES):
            raise _Foreign("{} is a constant of {}".format(node.name, str(sizes)[:60]))


def _check_input(graph_def):
    """The input is a batch of any length, of squares whose side is a multiple of 32."""
    inputs = [node for node in graph_def.node if node.op == "Placeholder"]
    if [node.name for node in inputs] != ["input"]:
        raise _Foreign("not one placeholder, named input")
    shape = inputs[0].attr["shape"].shape
    sizes = [dimension.size for dimension in shape.dim]
    if shape.unknown_rank or len(sizes) != 4 or sizes[0] != -1 or sizes[3] != 3 or (
            sizes[1] != sizes[2] or not 0 < sizes[1] <= LARGEST_SIZE
            or sizes[1] % darknet19.STRIDE):
        raise _Foreign("an input of {}".format(str(sizes)[:60]))


def _compare(found, expected):
    """Walk through both graphs from their outputs on; every node must have its like.

    Identities are passed over. Attributes are compared, but for the input's shape and notes that
    begin with an underscore.
    """
    nodes, own = ({node.name: node for node in each.node} for each in (found, expected))
    seen, reached = set(), set()
    waiting = [(name, name) for name in OUTPUTS]
    while waiting:
        pair = waiting.pop()
        name, index = _without_identities(nodes, pair[0], reached)
        own_name, own_index = _without_identities(own, pair[1], set())
        if (name, own_name) in seen:
            continue
        seen.add((name, own_name))
        node, like = nodes[name], own[own_name]
        if index != own_index or node.op != like.op or len(node.input) != len(like.input):
            raise _Foreign("{} is not {}".format(name, own_name))
        _compare_attributes(node, like)
        waiting += zip(node.input, like.input)
    if len(reached) < len(nodes):
        raise _Foreign("{} is no part of the network".format(sorted(set(nodes) - reached)[0]))


def _without_identities(nodes, edge, reached):
    """The name and the output's number that an edge leads to, identities left out."""
    for _ in range(len(nodes) + 1):
        name, _, index = edge.partition(":")
        if name not in nodes:
            raise _Foreign("{} is no node".format(ascii(edge)[:60]))
        reached.add(name)
        if nodes[name].op != "Identity":
            return name, int(index or 0)
        edge = nodes[name].input[0]
    raise _Foreign("its identities go in a circle")


def _compare_attributes(node, like):
    keys = {key for each in (node, like) for key in each.attr if not key.startswith("_")}
    if like.op == "Const" and like.name in _VARIABLES:
        keys.discard("value")  # a weight: its shape and numbers are checked as such
        if node.name != like.name:
            raise _Foreign("{} in the place of {}".format(node.name, like.name))
    if node.op == "Placeholder":
        keys.discard("shape")
    for key in sorted(keys):
        if not _alike(node.attr[key], like.attr[key]):
            raise _Foreign("{} has another {}".format(node.name, key))


def _alike(value, own):
    if value.HasField("tensor") and own.HasField("tensor"):
        return np.array_equal(tf.make_ndarray(value.tensor), tf.make_ndarray(own.tensor))
    if value.WhichOneof("value") == own.WhichOneof("value") == "f":
        return math.isclose(value.f, own.f, rel_tol=FLOAT_TOLERANCE)
    return value == own


def _check_answers(classifier):
    """Run the network on small pictures: finite weights of 1e38 give answers that are not."""
    pictures = np.random.RandomState(0).randint(0, 256, (3, darknet19.STRIDE, darknet19.STRIDE, 3))
    pictures[0], pictures[1] = 0, 255
    if not np.isfinite(classifier(pictures.astype(np.uint8))).all():
        raise _Foreign("its answers are not finite numbers")
