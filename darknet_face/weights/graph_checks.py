"""Checks of an untrusted graph before it is run: it must be a graph that this project writes.

A graph is a program: it could read and write files, ask for any amount of memory, or be another
network under the same names. So it is compared with the project's own graph, node by node: see
:func:`check_same`. Only the numbers of the weights may differ.
"""

from __future__ import annotations

import math
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import (
    OUTPUTS,
    Classifier,
    build_classifier,
    without_newer_attributes,
)
from darknet_face.runtime.session import tf
from darknet_face.weights.arrays import variable_name
from darknet_face.weights.metadata import is_image_size
from darknet_face.weights.model_file import ModelFile

MAX_CONSTANT_BYTES = 4096  # of a constant that is no weight, such as the axes of a mean

# TensorFlow raises the epsilon of 1e-5 to cuDNN's lower bound of 1.001e-5, but not in all versions.
FLOAT_TOLERANCE = 2e-3

Nodes = typing.Dict[str, typing.Any]  # tf.NodeDef by name
Names = typing.Container[str]


class DifferentGraph(ValueError):
    """The graph is not the expected one; the message says why."""


def check_graph(model: ModelFile) -> typing.Any:
    """Make sure that a frozen graph is the classifier's.

    Returns
    -------
    tf.GraphDef
        The graph without notes, for images of any size.

    Raises
    ------
    UserError
        Another network or another input.
    """
    variables = {variable_name(name): array.shape for name, array in model.weights.items()}
    size = model.metadata.get("image_size")
    try:
        if not is_image_size(size):
            raise DifferentGraph("its input is no square whose side is a multiple of 32")
        with build_classifier(size, width=model.width) as classifier:
            own = classifier.session.graph.as_graph_def()
        return _for_any_size(check_same(model.graph_def, own, OUTPUTS, variables))
    except _failures() as error:
        raise refusal(model.path, error)


def check_answers(classifier: Classifier, path: str) -> None:
    """Run a classifier on small images: finite weights of 1e38 give non-finite answers."""
    images = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    images[0], images[1] = 0, 255
    if not np.isfinite(classifier.class_map(images)).all():
        raise refusal(path, "its answers are not finite numbers")


def refusal(path: str, cause: typing.Any) -> UserError:
    """The error line for a graph that is not the classifier's."""
    return UserError("{}: not a frozen graph of this project ({}); run train.py again".format(
        path, getattr(cause, "message", str(cause)).partition("\n")[0]))


def _failures() -> tuple[type[BaseException], ...]:
    """What TensorFlow raises for a graph that it can't import, and what a comparison raises."""
    return (ValueError, KeyError, IndexError, TypeError, AssertionError, tf.errors.OpError)


def check_same(graph_def: typing.Any, own: typing.Any, outputs: typing.Sequence[str],
               variables: typing.Mapping[str, typing.Sequence[int]]) -> typing.Any:
    """Check that an untrusted frozen graph is one of this project's; only its weights may differ.

    Memory is allocated only for what has an expected size.

    Parameters
    ----------
    graph_def
        The untrusted tf.GraphDef; it is not changed.
    own
        The tf.GraphDef that the project builds, with variables, or constants of any numbers.
    outputs
        The operations that give the results.
    variables
        The shapes of the weights, by name. They are float32.

    Returns
    -------
    tf.GraphDef
        The untrusted graph without its notes, which are attributes that begin with an underscore.

    Raises
    ------
    DifferentGraph
        For any other operation, attribute, constant, shape or type.
    ValueError, KeyError, TypeError, tf.errors.OpError
        Where TensorFlow refuses to import the graph.
    """
    operations = {node.op for node in _reachable(own, outputs).values()}
    _check_operations(graph_def, operations - {"VariableV2"} | {"Const", "Identity"})
    _check_constants(graph_def, variables)
    clean = _without_notes(graph_def)
    imported = tf.GraphDef()  # a copy: TensorFlow 2 writes defaults into what it imports
    imported.CopyFrom(clean)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(imported, name="")
    _compare({node.name: node for node in without_newer_attributes(graph.as_graph_def()).node},
             {node.name: node for node in without_newer_attributes(_copy(own)).node},
             outputs, variables)
    return clean


def _copy(graph_def: typing.Any) -> typing.Any:
    copied = tf.GraphDef()
    copied.CopyFrom(graph_def)
    return copied


def _without_notes(graph_def: typing.Any) -> typing.Any:
    clean = without_newer_attributes(_copy(graph_def))
    for node in clean.node:
        for key in [key for key in node.attr if key.startswith("_")]:
            del node.attr[key]
    return clean


def _for_any_size(graph_def: typing.Any) -> typing.Any:
    """The graph with an input of any height and width, which changes no other node."""
    for node in graph_def.node:
        if node.op == "Placeholder":
            for dimension in node.attr["shape"].shape.dim[1:3]:
                dimension.size = -1
    return graph_def


def _reachable(graph_def: typing.Any, outputs: typing.Iterable[str]) -> Nodes:
    """The nodes that the outputs need; the rest of a graph with variables only sets these."""
    nodes = {node.name: node for node in graph_def.node}
    found: Nodes = {}
    waiting = list(outputs)
    while waiting:
        name = waiting.pop().partition(":")[0]
        if name not in found:
            found[name] = nodes[name]
            waiting += nodes[name].input
    return found


def _check_operations(graph_def: typing.Any, operations: set[str]) -> None:
    foreign = sorted({node.op for node in graph_def.node} - operations)
    if foreign:
        raise DifferentGraph("it has " + ", ".join(foreign))
    if graph_def.library.function or graph_def.library.gradient:
        raise DifferentGraph("it has functions")
    for node in graph_def.node:
        if node.device:
            raise DifferentGraph("{} is bound to the device {}".format(
                node.name, ascii(node.device)))
    if len({node.name for node in graph_def.node}) < len(graph_def.node):
        raise DifferentGraph("two nodes have one name")


def _check_constants(graph_def: typing.Any,
                     variables: typing.Mapping[str, typing.Sequence[int]]) -> None:
    """Compare what weights claim with what is expected, and bound what other constants claim."""
    for node in graph_def.node:
        if node.op != "Const":
            continue
        tensor = node.attr["value"].tensor
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        if node.name in variables:
            if sizes != list(variables[node.name]) or tensor.dtype != tf.float32.as_datatype_enum:
                raise DifferentGraph("{}: expected float {}, found {}".format(
                    node.name, list(variables[node.name]), str(sizes)[:60]))
            continue
        count = 1
        for size in sizes:
            count *= size
        if min(sizes, default=0) < 0 or not 0 <= count <= MAX_CONSTANT_BYTES or (
                tensor.ByteSize() > MAX_CONSTANT_BYTES):
            raise DifferentGraph("{} is a constant of {}".format(node.name, str(sizes)[:60]))


def _compare(nodes: Nodes, own: Nodes, outputs: typing.Iterable[str], variables: Names) -> None:
    """Walk through both graphs from their outputs on; every node must have a counterpart.

    Identities are skipped: TensorFlow 1 and 2 leave different ones in a frozen graph.
    """
    seen: set[tuple[str, str]] = set()
    reached: set[str] = set()
    waiting = [(name, name) for name in outputs]
    while waiting:
        pair = waiting.pop()
        name, index = _without_identities(nodes, pair[0], reached)
        own_name, own_index = _without_identities(own, pair[1], set())
        if (name, own_name) in seen:
            continue
        seen.add((name, own_name))
        node, like = nodes[name], own[own_name]
        if own_name in variables:
            if (node.op, name) != ("Const", own_name):
                raise DifferentGraph("{} in the place of {}".format(name, own_name))
            continue
        if index != own_index or node.op != like.op or len(node.input) != len(like.input):
            raise DifferentGraph("{} is not {}".format(name, own_name))
        _compare_attributes(node, like)
        waiting += zip(node.input, like.input)
    if len(reached) < len(nodes):
        raise DifferentGraph("{} is no part of the network".format(
            sorted(set(nodes) - reached)[0]))


def _without_identities(nodes: Nodes, edge: str, reached: set[str]) -> tuple[str, int]:
    """The name and the output's number that an edge leads to, identities skipped."""
    for _ in range(len(nodes) + 1):
        name, _, index = edge.partition(":")
        if name not in nodes:
            raise DifferentGraph("{} is no node".format(ascii(edge)[:60]))
        reached.add(name)
        if nodes[name].op != "Identity":
            return name, int(index or 0)
        edge = nodes[name].input[0]
    raise DifferentGraph("its identities go in a circle")


def _compare_attributes(node: typing.Any, like: typing.Any) -> None:
    keys = {key for each in (node, like) for key in each.attr if not key.startswith("_")}
    for key in sorted(keys):
        if not _alike(node.attr[key], like.attr[key]):
            raise DifferentGraph("{} has another {}".format(node.name, key))


def _alike(value: typing.Any, own: typing.Any) -> bool:
    if value.HasField("tensor") and own.HasField("tensor"):
        return (value.tensor.dtype == own.tensor.dtype
                and np.array_equal(tf.make_ndarray(value.tensor), tf.make_ndarray(own.tensor)))
    if value.WhichOneof("value") == own.WhichOneof("value") == "f":
        return math.isclose(value.f, own.f, rel_tol=FLOAT_TOLERANCE)
    return value == own
