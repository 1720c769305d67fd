"""The detector's network: this project's trunk, its pass-through layer, and a light head.

Layers 0 to 17 are those of darknet19.py. The pass-through (layer 12, stride 16) is reduced to 64
channels, reorganised to the trunk's grid (space to depth, stride 32) and joined with the trunk.
Source: "YOLO9000", 2016, section 2, and darknet's ``cfg/yolov2-voc.cfg``, whose head has 1,024
channels where this one has 256: for one class they do not detect better, and take 61 MB.

Batch norm of the trunk always uses the moving statistics that come with the weights, also after
the trunk is freed: batches of a few images at changing sizes would give worse ones, and so the
trunk computes the same in training and detection. Batch norm of the head is trained as usual.
"""

from __future__ import annotations

import os
import typing

import numpy as np

import darknet19
from darknet_face.detection.yolov2.boxes import NUMBERS
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights import handoff
from darknet_face.weights.arrays import assign, weight_shapes
from darknet_face.weights.model_file import read_model

HEAD = "head"
CHANNELS = 256
MOMENTUM = 0.95  # of the head's moving statistics: a training has a few hundred steps or more
RANDOM = "random"


def build_trunk(images: typing.Any) -> tuple[typing.Any, typing.Any]:
    """Layers 0 to 17.

    Parameters
    ----------
    images
        float32, [n, height, width, 3], RGB 0..1; sides are multiples of 32.

    Returns
    -------
    pass_through
        float32, [n, height / 16, width / 16, 512].
    trunk
        float32, [n, height / 32, width / 32, 1024].
    """
    with tf.get_default_graph().gradient_override_map(darknet19.fast_gradients(True)):
        _, ends = darknet19.build(images)
    return ends["pass_through"], ends["trunk"]


def build_head(pass_through: typing.Any, trunk: typing.Any, anchors: int, training: bool = False,
               reuse: bool = False) -> typing.Any:
    """The detection head: four convolutions with batch norm, then a linear one.

    Returns its output: float32, [n, height / 32, width / 32, 5 * anchors].

    Parameters
    ----------
    pass_through, trunk
        See :func:`build_trunk`.
    anchors
        How many.
    training
        Normalise by the batch, and add the moving averages' updates to
        ``tf.GraphKeys.UPDATE_OPS``.
    reuse
        Use the variables of an earlier call.
    """
    with tf.get_default_graph().gradient_override_map(darknet19.fast_gradients(training)):
        with tf.variable_scope(HEAD, reuse=reuse):
            net = _layer(_layer(trunk, CHANNELS, 1, training, "conv_0"), CHANNELS, 3, training,
                         "conv_1")
            fine = tf.space_to_depth(_layer(pass_through, 64, 1, training, "reduce"), 2)
            net = _layer(tf.concat([fine, net], -1), CHANNELS, 3, training, "conv_2")
            return tf.layers.conv2d(
                net, NUMBERS * anchors, 1, name="output",
                kernel_initializer=tf.random_normal_initializer(stddev=0.01))


def _layer(net: typing.Any, filters: int, size: int, training: bool, name: str) -> typing.Any:
    net = darknet19.convolution(net, (filters, size), name, training, MOMENTUM)
    return tf.nn.leaky_relu(net, darknet19.LEAKY_SLOPE)


def head_variables() -> list[typing.Any]:
    """The trainable variables of the head."""
    return tf.trainable_variables(HEAD + "/")


def trunk_variables() -> list[typing.Any]:
    """The trainable variables of layers 0 to 17."""
    prefixes = tuple("conv_{}/".format(k) for k in range(darknet19.NUM_CONVOLUTIONS - 1))
    return [each for each in tf.trainable_variables() if each.op.name.startswith(prefixes)]


def read_trunk(source: str, images: np.ndarray | None = None, seed: int = 0
               ) -> dict[str, np.ndarray]:
    """The trunk's weights, named as in the ``.npz``: :func:`darknet_face.weights.arrays.assign`.

    Parameters
    ----------
    source
        A folder with the two pickles of the hand-off, any file that ``extract_weights.py`` reads,
        or ``random``.
    images
        uint8, [n, height, width, 3], for the batch norm of random weights.
    seed
        For random weights.
    """
    if source == RANDOM:
        return _random_trunk(images, seed)
    paths = [os.path.join(source, name) for name in handoff.FILES]
    weights = handoff.read_handoff(*paths) if os.path.exists(
        paths[0]) else read_model(source).weights
    return {name: array for name, array in weights.items()
            if not name.startswith(darknet19.CLASSIFIER + "/")}


def _random_trunk(images, seed):
    """He initialisation, with the moving statistics of real images.

    With means of 0 and variances of 1 instead, batch norm would normalise nothing, and the
    comparison with trained weights would be unfair.
    """
    rng = np.random.RandomState(seed)
    weights = {name: _initial(name, shape, rng) for name, shape in weight_shapes().items()}
    graph = tf.Graph()
    with graph.as_default(), new_session(graph) as session:
        # With momentum 0 an update copies the batch's statistics.
        darknet19.build(tf.constant(images / np.float32(255)), training=True, momentum=0.0)
        assign(session, weights)
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        for part in ("mean", "variance"):
            for k in range(darknet19.NUM_CONVOLUTIONS - 1):
                weights["conv_{}/{}".format(k, part)] = session.run(
                    "conv_{}/moving_{}:0".format(k, part))
    return {name: array for name, array in weights.items()
            if not name.startswith(darknet19.CLASSIFIER + "/")}


def _initial(name, shape, rng):
    part = name.split("/")[1]
    if part == "kernel":
        return (rng.randn(*shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)
    return np.full(shape, part in ("gamma", "variance"), np.float32)
