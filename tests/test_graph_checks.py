"""Strange graphs are refused in one line, before they are run and before memory is taken."""

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import classifier_from_weights, with_constants
from darknet_face.runtime.session import tf
from darknet_face.weights import frozen_graph, graph_checks, graph_files
from darknet_face.weights.arrays import weight_shapes
from darknet_face.weights.model_file import ModelFile


@pytest.fixture(scope="module")
def narrow():
    """The frozen graph of a network with a sixteenth of the filters."""
    rng = np.random.RandomState(0)
    weights = {name: (rng.uniform(2, 4, shape) / np.prod(shape[:-1], dtype=int)).astype(np.float32)
               for name, shape in weight_shapes(1 / 16).items()}
    with classifier_from_weights(weights, 32) as classifier:
        return with_constants(classifier)


@pytest.fixture
def graph_def(narrow):
    """A copy, to be changed."""
    changed = tf.GraphDef()
    changed.CopyFrom(narrow)
    return changed


def node(graph_def, name):
    found, = (each for each in graph_def.node if each.name == name)
    return found


def check(graph_def):
    model = ModelFile("x.pb", graph_files.read_constants(graph_def, "x.pb"),
                      graph_files._input_size(graph_def), graph_def)
    frozen_graph.load(model, threads=1).close()


def refuse(graph_def, cause):
    with pytest.raises(UserError, match="x.pb: not a frozen graph of this project .*" + cause
                       ) as caught:
        check(graph_def)
    assert "\n" not in str(caught.value)


def test_the_project_s_own_graph_passes(graph_def):
    before = graph_def.SerializeToString(deterministic=True)
    check(graph_def)
    assert graph_def.SerializeToString(deterministic=True) == before


def test_operations_devices_functions_and_names(graph_def):
    changed = tf.GraphDef()
    changed.CopyFrom(graph_def)
    node(changed, "logits").device = "/gpu:7"
    refuse(changed, "logits is bound to the device")
    changed.CopyFrom(graph_def)
    changed.library.function.add().signature.name = "f"
    refuse(changed, "it has functions")
    changed.CopyFrom(graph_def)
    changed.node.add(op="ReadFile", name="read")
    refuse(changed, "it has ReadFile")
    changed.CopyFrom(graph_def)
    changed.node.add().CopyFrom(node(changed, "logits"))
    refuse(changed, "two nodes have one name")


@pytest.mark.parametrize("sizes", [(-1, 32, 64, 3), (-1, 33, 33, 3), (4, 32, 32, 3),
                                   (-1, 32, 32, 4), (-1, -1, -1, 3), (-1, 320000, 320000, 3),
                                   (-1, 32, 32), ()])
def test_inputs_of_another_kind(graph_def, sizes):
    shape = node(graph_def, "input").attr["shape"].shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add(size=size)
    refuse(graph_def,
           "(its input is no square|input has another shape|[Dd]imensions|rank|[Dd]epth)")


def test_an_input_that_is_a_constant(graph_def):
    node(graph_def, "input").name = "images"
    refuse(graph_def, "its input is no square")


@pytest.mark.parametrize("sizes", [(1 << 60,), (1 << 31, 1 << 31, 1 << 31), (-5,), (5000,)])
def test_constants_that_claim_the_memory(graph_def, sizes):
    """A few bytes that are to be repeated 2^60 times."""
    constant = graph_def.node.add(op="Const", name="filling")
    constant.attr["dtype"].type = 1
    tensor = constant.attr["value"].tensor
    tensor.dtype = 1
    tensor.float_val.append(1)
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    refuse(graph_def, "filling is a constant of")


@pytest.mark.parametrize("classes", [1, 3])
def test_other_numbers_of_classes(graph_def, classes):
    for name, shape in (("kernel", (1, 1, 64, classes)), ("bias", (classes,))):
        node(graph_def, "conv_18/" + name).attr["value"].tensor.CopyFrom(
            tf.make_tensor_proto(np.zeros(shape, np.float32)))
    with pytest.raises(UserError, match="conv_18/kernel: expected"):
        check(graph_def)


@pytest.mark.parametrize("value, cause", [
    (np.nan, "conv_3/beta: element 3 is not finite"), (np.inf, "conv_3/beta: element 3 is not"),
    (3e38, "its answers are not finite numbers")])
def test_weights_that_are_no_use(graph_def, value, cause):
    beta = np.zeros(4, np.float32)
    beta[3] = value
    node(graph_def, "conv_3/beta").attr["value"].tensor.CopyFrom(tf.make_tensor_proto(beta))
    with pytest.raises(UserError, match="x.pb: .*" + cause):
        check(graph_def)


def convolution(graph_def, index):
    return [each for each in graph_def.node if each.op == "Conv2D"][index]


def exchange_inputs(graph_def):
    """A layer reads what one two layers before it reads."""
    first, second = convolution(graph_def, 3), convolution(graph_def, 5)
    second.input[0] = first.input[0]


def make_cycle(graph_def):
    convolution(graph_def, 3).input[0] = node(graph_def, "logits").name


def cut_an_edge(graph_def):
    convolution(graph_def, 3).input[0] = "nowhere"


def other_output(graph_def):
    batch_norm = next(each for each in graph_def.node if each.op == "FusedBatchNormV3")
    reader = next(each for each in graph_def.node if batch_norm.name in each.input)
    reader.input[list(reader.input).index(batch_norm.name)] = batch_norm.name + ":1"


def two_kernels_exchanged(graph_def):
    one, other = convolution(graph_def, 10), convolution(graph_def, 12)  # of one shape
    one.input[1], other.input[1] = other.input[1], one.input[1]


def drop_the_softmax(graph_def):
    graph_def.node.remove(node(graph_def, "probabilities"))


def stride_of_two(graph_def):
    convolution(graph_def, 3).attr["strides"].list.i[1] = 2


def another_slope(graph_def):
    next(each for each in graph_def.node if each.op == "LeakyRelu").attr["alpha"].f = 0.2


def a_note_of_no_use(graph_def):
    graph_def.node.add(op="Const", name="note").attr["dtype"].type = 1
    graph_def.node[-1].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(1)))


@pytest.mark.parametrize("change, cause", [
    (exchange_inputs, "no part of the network|is not"), (make_cycle, "cycle"),
    (cut_an_edge, "nowhere"), (other_output, "is not|must be rank 4"),
    (two_kernels_exchanged, "in the place of"), (drop_the_softmax, "probabilities"),
    (stride_of_two, "another strides|shape"), (another_slope, "another alpha"),
    (a_note_of_no_use, "note is no part of the network"),
])
def test_other_networks(graph_def, change, cause):
    change(graph_def)
    refuse(graph_def, cause)


def test_identities_make_no_difference(graph_def):
    """TensorFlow 1 and 2 leave others in a frozen graph."""
    reader = convolution(graph_def, 3)
    identity = graph_def.node.add(op="Identity", name="more", input=[reader.input[1]])
    identity.attr["T"].type = 1
    reader.input[1] = "more"
    check(graph_def)


def small_graph(size=2, repeats=2, kind=tf.float32, extra=None):
    """A graph with a pooling, a repetition and a weight, as a tf.GraphDef, and its weights."""
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(kind, [None, 8, 8, 3], "input")
        net = tf.nn.max_pool2d(images, size, size, "SAME")
        net = tf.tile(net, [1, 1, 1, repeats])
        if extra is not None:
            net = tf.concat([net, extra], 3)
        net *= tf.get_variable("scale", [], kind, tf.ones_initializer())
        tf.identity(net, "result")
        return graph.as_graph_def()


def frozen(graph_def):
    """The same with a constant for the variable."""
    changed = tf.GraphDef()
    for each in graph_def.node:
        if each.op == "VariableV2":
            changed.node.add(op="Const", name=each.name, attr={
                "dtype": tf.AttrValue(type=1),
                "value": tf.AttrValue(tensor=tf.make_tensor_proto(np.float32(5)))})
        elif not each.name.startswith("scale/") or each.op == "Identity":
            changed.node.add().CopyFrom(each)
    return changed


def compare(changed):
    return graph_checks.check_same(changed, small_graph(), ["result"], {"scale": ()})


class TestAnyGraph:
    def test_weights_and_notes_may_differ(self):
        changed = frozen(small_graph())
        node(changed, "scale").attr["_note"].s = b"mine"
        clean = compare(changed)
        assert len(clean.node) == len(changed.node)
        assert "_note" not in node(clean, "scale").attr and "_note" in node(changed, "scale").attr

    @pytest.mark.parametrize("options, cause", [
        ({"repeats": 1000000000}, "has another value"),  # would take 7 GB and more
        ({"size": 1000000}, "has another ksize"),  # would take a minute an image
        ({"extra": np.zeros((1, 4, 4, 1), np.float32)}, "it has ConcatV2"),
    ])
    def test_what_takes_memory_or_time(self, options, cause):
        with pytest.raises(graph_checks.DifferentGraph, match=cause):
            compare(frozen(small_graph(**options)))

    @pytest.mark.parametrize("change, cause", [
        (lambda found: node(found, "input").attr["shape"].shape.dim[0].__setattr__("size", 4),
         "input has another shape"),
        (lambda found: node(found, "scale").attr["value"].tensor.tensor_shape.dim.add(size=1 << 40),
         "scale: expected float"),
        (lambda found: node(found, "scale").attr["value"].tensor.__setattr__("dtype", 2),
         "scale: expected float"),
        (lambda found: node(found, "scale").__setattr__("name", "other"), "other|scale"),
        (lambda found: node(found, "MaxPool2d").attr["padding"].__setattr__("s", b"VALID"),
         "another padding|[Dd]imension"),
    ])
    def test_other_attributes_and_shapes(self, change, cause):
        found = frozen(small_graph())
        change(found)
        with pytest.raises((ValueError, KeyError), match=cause):
            compare(found)
