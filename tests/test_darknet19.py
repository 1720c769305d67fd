"""The network against the paper's Table 6 and darknet's cfg/darknet19.cfg."""

import numpy as np
import pytest
from conftest import WIDTH
from skimage.measure import block_reduce

import darknet19
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime.session import tf
from darknet_face.weights.arrays import assign

# Table 6 of the paper at 224x224: type, filters, kernel, output size.
TABLE_6 = [
    ("conv", 32, 3, 224), ("max", 32, 2, 112),
    ("conv", 64, 3, 112), ("max", 64, 2, 56),
    ("conv", 128, 3, 56), ("conv", 64, 1, 56), ("conv", 128, 3, 56), ("max", 128, 2, 28),
    ("conv", 256, 3, 28), ("conv", 128, 1, 28), ("conv", 256, 3, 28), ("max", 256, 2, 14),
    ("conv", 512, 3, 14), ("conv", 256, 1, 14), ("conv", 512, 3, 14), ("conv", 256, 1, 14),
    ("conv", 512, 3, 14), ("max", 512, 2, 7),
    ("conv", 1024, 3, 7), ("conv", 512, 1, 7), ("conv", 1024, 3, 7), ("conv", 512, 1, 7),
    ("conv", 1024, 3, 7), ("conv", 1000, 1, 7),
]  # fmt: skip


def test_layer_table_is_the_papers():
    rows = [(row["layer"][:3] if row["layer"] == "max-pool" else row["layer"][:4], row["filters"],
             row["kernel"], row["output"]) for row in darknet19.layer_table(1000)]
    assert rows == TABLE_6


@pytest.mark.parametrize("classes, parameters, billions", [
    (1000, 20842376, 5.58),  # the paper: 5.58 billion operations
    (2, 19819426, 5.48),
])
def test_parameters_and_operations(classes, parameters, billions):
    rows = darknet19.layer_table(classes)
    assert sum(row["parameters"] for row in rows) == parameters
    assert round(sum(row["operations"] for row in rows) / 1e9, 2) == billions


@pytest.mark.parametrize("classes", [2, 1000])
def test_the_graph_has_what_the_table_says(classes):
    with tf.Graph().as_default():
        logits, end_points = darknet19.build(
            tf.placeholder(tf.float32, [None, 224, 224, 3]), classes, training=True)
        trainable = sum(int(np.prod(each.shape.as_list())) for each in tf.trainable_variables())
        shapes = {each.op.name: tuple(each.shape.as_list()) for each in tf.global_variables()}
    rows = darknet19.layer_table(classes)
    assert trainable == sum(row["parameters"] for row in rows)
    assert shapes == darknet19.variable_shapes(classes)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) - trainable == 14400
    assert logits.shape.as_list() == [None, classes]
    assert end_points["pass_through"].shape.as_list() == [None, 14, 14, 512]
    assert end_points["trunk"].shape.as_list() == [None, 7, 7, 1024]
    assert end_points["class_map"].shape.as_list() == [None, 7, 7, classes]


@pytest.mark.parametrize("width", [0.125, 0.25, 0.3])
def test_a_narrow_network_has_that_share_of_every_layers_filters(width):
    with tf.Graph().as_default():
        _, end_points = darknet19.build(
            tf.placeholder(tf.float32, [None, 64, 64, 3]), width=width)
        shapes = {each.op.name: tuple(each.shape.as_list()) for each in tf.global_variables()}
    assert shapes == darknet19.variable_shapes(width=width)
    for whole, part in zip(darknet19.layer_table(), darknet19.layer_table(width=width)):
        is_classifier = whole["layer"] == darknet19.CLASSIFIER
        assert part["filters"] == (2 if is_classifier else round(whole["filters"] * width))
    assert end_points["trunk"].shape.as_list() == [None, 2, 2, round(1024 * width)]
    assert min(layer[0] for layer in darknet19.layers_of(0.01) if layer != darknet19.MAX_POOL) == 1


def test_operations_as_tensorflow_counts_them():
    """An independent count: TensorFlow's profiler over the convolutions of a batch of one."""
    with tf.Graph().as_default() as graph:
        darknet19.build(tf.zeros([1, 224, 224, 3]), 1000)
        options = tf.profiler.ProfileOptionBuilder(
            tf.profiler.ProfileOptionBuilder.float_operation()).with_empty_output().build()
        profile = tf.profiler.profile(graph, cmd="op", options=options)
    found, nodes = 0, [profile]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        found += node.float_ops if node.name == "Conv2D" else 0
    assert found == sum(row["operations"] for row in darknet19.layer_table(1000))


def reference_layer(x, kernel, gamma, beta, mean, variance):
    """Convolution, batch norm and leaky ReLU in float64 NumPy, for one image [h, w, c]."""
    size = kernel.shape[0]
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)], mode="constant")
    out = sum(padded[i:i + x.shape[0], j:j + x.shape[1]] @ kernel[i, j]
              for i in range(size) for j in range(size))
    out = (out - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    return np.where(out > 0, out, 0.1 * out)


def test_forward_pass_equals_numpys(tiny_model, sample_dir):
    """The whole network on one real image, against layers written out in NumPy."""
    _, pictures, _ = next(read_batches(load_split(sample_dir, "test").paths, 1, 64))
    image = pictures[0].astype(np.float64) / 255
    weights = {name: array.astype(np.float64) for name, array in tiny_model.weights.items()}
    x, index = image, 0
    for layer in darknet19.LAYERS:
        if layer == darknet19.MAX_POOL:
            x = block_reduce(x, (2, 2, 1), np.max)
            continue
        x = reference_layer(x, *[weights["conv_{}/{}".format(index, part)] for part in (
            "kernel", "gamma", "beta", "mean", "variance")])
        index += 1
    expected = (x @ weights["conv_18/kernel"][0, 0] + weights["conv_18/bias"]).mean(axis=(0, 1))
    classifier = classifier_from_weights(tiny_model.weights, 64)
    logits = classifier.session.run("logits:0", {"input:0": image[np.newaxis]})
    np.testing.assert_allclose(logits[0], expected, rtol=1e-4, atol=1e-4)


def test_class_map_averages_to_the_logits(tiny_model):
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        images = tf.placeholder(tf.float32, [None, None, None, 3])
        logits, end_points = darknet19.build(images, width=WIDTH)
        assign(session, tiny_model.weights)
        picture = np.random.RandomState(0).rand(1, 96, 64, 3)
        averaged, class_map = session.run([logits, end_points["class_map"]], {images: picture})
    assert class_map.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(class_map.mean(axis=(1, 2)), averaged, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("height, width", [(112, 112), (224, 230), (0, 32)])
def test_sizes_that_do_not_fit_are_refused(height, width):
    with tf.Graph().as_default(), pytest.raises(ValueError, match="multiples of 32"):
        darknet19.build(tf.placeholder(tf.float32, [None, height, width, 3]))


def test_batch_norm_updates_in_training_only():
    with tf.Graph().as_default():
        darknet19.build(tf.placeholder(tf.float32, [None, 32, 32, 3]), training=False)
        assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []
    with tf.Graph().as_default():
        darknet19.build(tf.placeholder(tf.float32, [None, 32, 32, 3]), training=True)
        assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 36


def test_fixed_layers_neither_train_nor_update():
    with tf.Graph().as_default():
        darknet19.build(tf.placeholder(tf.float32, [None, 32, 32, 3]), training=True,
                        fixed_layers=13)
        layers = {each.op.name.split("/")[0] for each in tf.trainable_variables()}
        assert layers == {"conv_{}".format(index) for index in range(13, 19)}
        assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 10


def test_command_prints_the_totals(run_script):
    outcome = run_script(darknet19, "--classes", 1000)
    assert outcome.code == 0
    assert "20,842,376" in outcome.out
    assert "5,58" in outcome.out.splitlines()[-1].split()[-1]
    assert run_script(darknet19, "--image-size", 100).code == 2
    assert "1,241,962" in run_script(darknet19, "--width", 0.25).out.splitlines()[-1]


def test_pooling_before_the_activation_changes_no_bit(tiny_model):
    """Each pool's output against NumPy's maximum over the activation before it."""
    rng = np.random.RandomState(0)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, 64, 64, 3])
        _, end_points = darknet19.build(images, width=WIDTH)
        assign(session, tiny_model.weights)
        pooled = [graph.get_operation_by_name("conv_{}/Conv2D".format(index)).inputs[0]
                  for index in (1, 2, 5, 8, 13)]
        activated = [end_points["conv_{}".format(index)] for index in (0, 1, 4, 7, 12)]
        found, expected = session.run(
            [pooled, activated], {images: rng.rand(2, 64, 64, 3).astype(np.float32)})
    for one, other in zip(found, expected):
        assert (other < 0).any() and (other > 0).any()
        np.testing.assert_array_equal(one, block_reduce(other, (1, 2, 2, 1), np.max))


def test_gradients_are_tensorflows(monkeypatch):
    """Those of a plain CPU's own way of computing them, against TensorFlow's, in one graph."""
    rng = np.random.RandomState(0)
    pictures = rng.rand(2, 32, 32, 3).astype(np.float32)
    gradients = {}
    for name, override in (("own", {"Conv2D": darknet19._registered_gradient()}),
                           ("tensorflow", {})):
        monkeypatch.setattr(darknet19, "fast_gradients", lambda _, override=override: override)
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(0)
            images = tf.constant(pictures)
            logits, _ = darknet19.build(images, training=True)
            targets = [images] + tf.trainable_variables()
            wanted = tf.gradients(tf.reduce_sum(logits ** 2), targets)
            session.run(tf.global_variables_initializer())
            gradients[name] = session.run(wanted)
    assert len(gradients["own"]) == 57
    for one, other in zip(gradients["own"], gradients["tensorflow"]):
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max(), rtol=0)
