"""The detector's trunk: the weights of either file, as the public detector builds it."""

import os

import numpy as np
from conftest import plausible_weights
from slim import make_slim

from darknet19 import build
from darknet_face.detection.yolov2 import network
from darknet_face.runtime.session import tf
from darknet_face.weights import handoff
from darknet_face.weights.arrays import assign


def pickles(weights, folder):
    handoff.write_handoff(weights, *(os.path.join(folder, name) for name in handoff.FILES))


def test_both_files_give_one_trunk(tiny_model, tmp_path):
    pickles(tiny_model.weights, str(tmp_path))
    ours, theirs = network.read_trunk(tiny_model.npz), network.read_trunk(str(tmp_path))
    assert set(ours) == set(theirs) and len(ours) == 5 * 18
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_trunk_equals_the_public_detectors(tmp_path, monkeypatch):
    """Layers 0 to 17 from the pickles, as the public detector builds them, at two sizes."""
    make_slim(set_attribute=monkeypatch.setattr)
    images = np.random.RandomState(0).randint(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    pickles(plausible_weights(images, width=1.0), str(tmp_path))
    weights = network.read_trunk(str(tmp_path))
    for size in (64, 96):
        pictures = np.random.RandomState(size).rand(2, size, size, 3).astype(np.float32)
        with tf.Graph().as_default(), tf.Session() as session:
            ours = network.build_trunk(tf.constant(pictures))
            session.run(tf.global_variables_initializer())
            assign(session, weights)
            ours, theirs = session.run([ours, public_backbone(tf.constant(pictures), weights)])
        assert ours[0].shape == (2, size // 16, size // 16, 512 // 16)
        assert ours[1].shape == (2, size // 32, size // 32, 1024 // 16)
        for one, other in zip(ours, theirs):
            np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max(), rtol=0)


def public_backbone(net, weights):
    """Convolution, batch norm with epsilon 1e-5, leaky ReLU 0.1; max-pools of kind VALID."""
    kept = []
    for k in range(18):
        part = {name: weights["conv_{}/{}".format(k, name)]
                for name in ("kernel", "mean", "variance", "beta", "gamma")}
        net = tf.nn.leaky_relu(tf.nn.batch_normalization(
            tf.nn.conv2d(net, part["kernel"], 1, "SAME"), part["mean"], part["variance"],
            part["beta"], part["gamma"], 1e-5), 0.1)
        if k in (12, 17):
            kept.append(net)
        if k in (0, 1, 4, 7, 12):
            net = tf.nn.max_pool(net, 2, 2, "VALID")
    return kept


def test_a_random_trunk_is_normalised():
    pictures = np.random.RandomState(0).randint(0, 255, (4, 64, 64, 3)).astype(np.uint8)
    weights = network.read_trunk(network.RANDOM, pictures, seed=3)
    with tf.Graph().as_default(), tf.Session() as session:
        _, ends = build(tf.constant(pictures / np.float32(255)))
        session.run(tf.global_variables_initializer())
        assign(session, weights)
        deep = session.run(ends["conv_11"])
    # Batch norm makes unit variance; after a leaky ReLU the mean square is near 0.5.
    assert 0.4 < np.square(deep).mean() < 0.6
    other = network.read_trunk(network.RANDOM, pictures, seed=4)
    assert not np.array_equal(other["conv_3/kernel"], weights["conv_3/kernel"])
