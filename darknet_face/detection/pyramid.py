"""The one-pass detector as a graph: Darknet-19's layers, a pyramid of three strides, its loss.

The layers before the last three max-pools (strides 8, 16 and 32) are reduced to a few channels,
summed from the coarse to the fine, and answer five numbers a cell: a logit, and the distances from
the cell's centre to the sides of the face's box.

Sources: Lin et al., "Feature Pyramid Networks for Object Detection", 2017 (arXiv 1612.03144);
"Focal Loss for Dense Object Detection", 2017 (arXiv 1708.02002); Rezatofighi et al., "Generalized
Intersection over Union", 2019 (arXiv 1902.09630).
"""

from __future__ import annotations

import collections
import typing

import numpy as np

import darknet19
from darknet_face.detection.targets import BACKGROUND, FACE, LEVELS, NUMBERS
from darknet_face.runtime.session import tf

HEAD = "head"
END_POINTS = ("conv_7", "conv_12", "conv_17")  # of the strides 8, 16 and 32
CHANNELS = 32
MOMENTUM = 0.97  # of the moving statistics
PRIOR = 0.01  # what an untrained head says of every cell
MAX_LOG_DISTANCE = 5.0  # e^5 strides: bounds what an untrained network says
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0

# Scalars, float32; total is score + box. iou: the mean IoU of the cells that have a face.
Loss = collections.namedtuple("Loss", "total score box iou")


def build_network(images: typing.Any, width: float, channels: int = CHANNELS,
                  training: bool = False) -> typing.Any:
    """Add the detector's layers to the graph.

    Parameters
    ----------
    images
        float32, [n, height, width, 3], RGB 0..1; sides are multiples of 32.
    width
        The share of the filters of Darknet-19: see :func:`darknet19.build`.
    channels
        Of the head.
    training
        Normalise by the batch, and add the moving averages' updates to
        ``tf.GraphKeys.UPDATE_OPS``.

    Returns
    -------
    tf.Tensor
        float32, [n, cells, 5], level by level and row by row: a logit, and the logarithms of the
        four distances in strides.
    """
    _, ends = darknet19.build(images, training=training, momentum=MOMENTUM, width=width)
    with tf.get_default_graph().gradient_override_map(darknet19.fast_gradients(training)):
        with tf.variable_scope(HEAD):
            return _build_head([ends[name] for name in END_POINTS], channels, training)


def _build_head(features, channels, training):
    above, outputs = None, []
    for level, net in reversed(list(zip(LEVELS, features))):
        name = "stride_{}".format(level.stride)
        net = darknet19.convolution(net, (channels, 1), name + "/lateral", training, MOMENTUM)
        if above is not None:
            net += tf.image.resize_nearest_neighbor(above, tf.shape(net)[1:3])
        above = net
        net = _activated(tf.nn.leaky_relu(net, darknet19.LEAKY_SLOPE), channels, training,
                         name + "/conv_0")
        net = _activated(net, channels, training, name + "/conv_1")
        net = tf.layers.conv2d(
            net, NUMBERS, 1, name=name + "/output",
            kernel_initializer=tf.random_normal_initializer(stddev=0.01),
            bias_initializer=tf.constant_initializer([np.log(PRIOR / (1 - PRIOR))] + 4 * [0.5]))
        outputs.append(tf.reshape(net, [-1, tf.reduce_prod(tf.shape(net)[1:3]), NUMBERS]))
    return tf.concat(outputs[::-1], 1)


def _activated(net, filters, training, name):
    net = darknet19.convolution(net, (filters, 3), name, training, MOMENTUM)
    return tf.nn.leaky_relu(net, darknet19.LEAKY_SLOPE)


def network_variables() -> list:
    """The variables of the detector; the classifier's last layer is built, but not part of it."""
    return [each for each in tf.global_variables()
            if each.op.name.startswith(("conv_", HEAD + "/"))
            and not each.op.name.startswith(darknet19.CLASSIFIER + "/")
            and "/Adam" not in each.op.name and "/ExponentialMovingAverage" not in each.op.name]


def variable_shapes(width: float, channels: int = CHANNELS) -> dict[str, tuple[int, ...]]:
    """The shape of each of the detector's variables, by name, without building a graph."""
    shapes = {name: shape for name, shape in darknet19.variable_shapes(width=width).items()
              if not name.startswith(darknet19.CLASSIFIER + "/")}
    for level, end_point in zip(LEVELS, END_POINTS):
        name = "{}/stride_{}/".format(HEAD, level.stride)
        coming = shapes[end_point + "/kernel"][-1]
        for layer, size, before in (("lateral", 1, coming), ("conv_0", 3, channels),
                                    ("conv_1", 3, channels)):
            shapes[name + layer + "/kernel"] = (size, size, before, channels)
            for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                shapes[name + layer + "/" + part] = (channels,)
        shapes[name + "output/kernel"] = (1, 1, channels, NUMBERS)
        shapes[name + "output/bias"] = (NUMBERS,)
    return shapes


def decode(output: typing.Any, height: typing.Any, width: typing.Any) -> typing.Any:
    """Boxes in pixels of the input: float32, [n, cells, 4], left, top, right, bottom.

    Parameters
    ----------
    output
        See :func:`build_network`.
    height, width
        Of the input, int or scalar tensor.
    """
    centers, strides = [], []
    for level in LEVELS:
        y, x = tf.meshgrid(tf.range(height // level.stride), tf.range(width // level.stride),
                           indexing="ij")
        cells = tf.reshape(tf.stack([x, y], -1), [-1, 2])
        centers.append((tf.cast(cells, tf.float32) + 0.5) * level.stride)
        strides.append(tf.zeros_like(centers[-1][:, :1]) + level.stride)
    center = tf.concat(centers, 0)[None]
    distances = tf.exp(tf.minimum(output[..., 1:], MAX_LOG_DISTANCE)) * tf.concat(strides, 0)[None]
    return tf.concat([center - distances[..., :2], center + distances[..., 2:]], -1)


def detector_loss(output: typing.Any, target: typing.Any, size: int) -> Loss:
    """The loss of a batch: focal loss of the scores, and 1 - GIoU of the boxes.

    Both are sums over the cells, divided by the number of cells that have a face.

    Parameters
    ----------
    output
        See :func:`build_network`.
    target
        float32, [n, cells, 5]: see :func:`darknet_face.detection.targets.encode`.
    size
        The scenes' side in pixels.
    """
    has_face = tf.cast(tf.equal(target[..., 0], FACE), tf.float32)
    counts = tf.cast(target[..., 0] >= BACKGROUND, tf.float32)
    faces = tf.maximum(tf.reduce_sum(has_face), 1.0)
    score = tf.reduce_sum(counts * _focal(output[..., 0], has_face)) / faces
    iou, generalized = overlaps(decode(output, size, size), target[..., 1:])
    box = tf.reduce_sum(has_face * (1 - generalized)) / faces
    return Loss(tf.add(score, box, name="loss"), score, box,
                tf.reduce_sum(has_face * iou) / faces)


def _focal(logits, truth):
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits)
    probability = tf.sigmoid(logits)
    miss = truth * (1 - probability) + (1 - truth) * probability
    alpha = truth * FOCAL_ALPHA + (1 - truth) * (1 - FOCAL_ALPHA)
    return alpha * tf.pow(miss, FOCAL_GAMMA) * entropy


def overlaps(ours: typing.Any, theirs: typing.Any) -> tuple:
    """IoU and generalized IoU of boxes [..., 4], pair by pair: each [...]."""
    common = _area(tf.maximum(ours[..., :2], theirs[..., :2]),
                   tf.minimum(ours[..., 2:], theirs[..., 2:]))
    hull = _area(tf.minimum(ours[..., :2], theirs[..., :2]),
                 tf.maximum(ours[..., 2:], theirs[..., 2:]))
    union = _area(ours[..., :2], ours[..., 2:]) + _area(theirs[..., :2], theirs[..., 2:]) - common
    iou = common / tf.maximum(union, 1e-6)
    return iou, iou - (hull - union) / tf.maximum(hull, 1e-6)


def _area(low, high):
    return tf.reduce_prod(tf.maximum(high - low, 0.0), -1)
