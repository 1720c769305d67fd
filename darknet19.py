"""Darknet-19 as a TensorFlow 1.x graph, built from one table of layers.

Source: Redmon & Farhadi, "YOLO9000: Better, Faster, Stronger", 2016, Table 6, and darknet's
``cfg/darknet19.cfg``: 19 convolutions and 5 max-pools, then global average pooling.

``python darknet19.py`` prints the layers with their parameter and operation counts.
"""

from __future__ import annotations

import argparse
import functools
import typing
from collections import OrderedDict

from darknet_face.classes import CLASS_NAMES
from darknet_face.console import HelpFormatter, cli, number_type
from darknet_face.runtime.session import has_gpu, is_mkl_build, tf

NUM_CLASSES = len(CLASS_NAMES)
MAX_POOL = "max-pool 2x2, stride 2"

# (filters, kernel size) of each convolution. The last, a 1x1 with one filter per class, depends on
# the task and is appended by build().
LAYERS: tuple = (
    (32, 3), MAX_POOL,
    (64, 3), MAX_POOL,
    (128, 3), (64, 1), (128, 3), MAX_POOL,
    (256, 3), (128, 1), (256, 3), MAX_POOL,
    (512, 3), (256, 1), (512, 3), (256, 1), (512, 3), MAX_POOL,
    (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3),
)  # fmt: skip

CONVOLUTIONS = tuple(layer for layer in LAYERS if layer != MAX_POOL)
NUM_CONVOLUTIONS = len(CONVOLUTIONS) + 1
CLASSIFIER = "conv_{}".format(NUM_CONVOLUTIONS - 1)
STRIDE = 32  # of the whole network: inputs are multiples of it
PASS_THROUGH = "conv_12"  # the last layer before the fifth max-pool
TRUNK = "conv_17"  # the last layer before the classifier

LEAKY_SLOPE = 0.1
# The YOLOv2 consumer of these weights normalises with this epsilon; TensorFlow's default of 1e-3
# would make the two networks disagree.
BATCH_NORM_EPSILON = 1e-5


def layers_of(width: float = 1.0) -> tuple:
    """The rows of :data:`LAYERS` with a share of every layer's filters, at least one each.

    Parameters
    ----------
    width
        The share, above 0; 1 is the network of the paper.
    """
    return tuple(layer if layer == MAX_POOL else (max(1, int(round(layer[0] * width))), layer[1])
                 for layer in LAYERS)


def build(images: typing.Any, num_classes: int = NUM_CLASSES, training: bool = False,
          momentum: float = 0.9, fixed_layers: int = 0, width: float = 1.0,
          ) -> tuple[typing.Any, dict[str, typing.Any]]:
    """Add Darknet-19 to the graph that ``images`` is in.

    Variables are ``conv_<i>/kernel`` with ``gamma``, ``beta``, ``moving_mean`` and
    ``moving_variance`` for i = 0 .. 17, and ``conv_18/kernel`` and ``conv_18/bias``.

    Parameters
    ----------
    images
        A tensor: float32, [batch, height, width, 3], RGB 0..1; height and width are multiples of
        32.
    num_classes
        Filters of the last convolution.
    training
        A Python constant: True normalises by the batch and adds the moving averages' updates to
        ``tf.GraphKeys.UPDATE_OPS``; False normalises by the moving averages. Build a second graph
        to have both.
    momentum
        Share of the old value that a moving average keeps at each update.
    fixed_layers
        The first so many convolutions are not trainable, and normalise by their moving averages
        in training too.
    width
        The share of every layer's filters; see :func:`layers_of`. The channels below are for 1.

    Returns
    -------
    logits : tf.Tensor
        float32, [batch, num_classes], before the softmax.
    end_points : dict of str to tf.Tensor
        ``conv_0`` .. ``conv_17`` (after the activation), ``pass_through`` (stride 16, 512
        channels), ``trunk`` (stride 32, 1024 channels), ``class_map`` (stride 32, one channel per
        class: the logits' share of every place; their mean is the logits).

    Raises
    ------
    ValueError
        If a known height or width is not a positive multiple of 32.
    """
    for size in images.shape.as_list()[1:3]:
        if size is not None and (size <= 0 or size % STRIDE):
            raise ValueError("input sizes are multiples of {}, not {}".format(STRIDE, size))
    with tf.get_default_graph().gradient_override_map(fast_gradients(training)):
        return _add_layers(images, layers_of(width), num_classes, training, momentum, fixed_layers)


def _add_layers(images, layers, num_classes, training, momentum, fixed_layers):
    end_points = OrderedDict()
    net = images
    index = 0
    for layer, following in zip(layers, layers[1:] + (None,)):
        if layer == MAX_POOL:
            continue  # done with the convolution before it
        name = "conv_{}".format(index)
        fixed = index < fixed_layers
        net = convolution(
            net, layer, name, training and not fixed, momentum, trainable=not fixed)
        end_points[name] = tf.nn.leaky_relu(net, LEAKY_SLOPE)
        if following == MAX_POOL:
            # The activation never falls, so the maximum may be taken before it: the same numbers
            # to the bit from a quarter of the work. The end point is computed if asked for.
            net = tf.nn.leaky_relu(
                tf.layers.max_pooling2d(net, 2, 2, padding="valid"), LEAKY_SLOPE)
        else:
            net = end_points[name]
        index += 1
    class_map = tf.layers.conv2d(
        net, num_classes, 1, name=CLASSIFIER, kernel_initializer=_initializer())
    end_points["pass_through"] = end_points[PASS_THROUGH]
    end_points["trunk"] = end_points[TRUNK]
    end_points["class_map"] = class_map
    return tf.reduce_mean(class_map, axis=[1, 2], name="logits"), end_points


def convolution(net: typing.Any, layer: tuple[int, int], name: str, training: bool,
                momentum: float, trainable: bool = True) -> typing.Any:
    """Convolution without bias, then batch norm; the variables share the scope ``name``.

    ``layer`` is filters and kernel size, ``net`` a tensor of rank 4; the result has its height and
    width. The detectors' heads are made of these too.
    """
    filters, kernel_size = layer
    net = tf.layers.conv2d(
        net, filters, kernel_size, padding="same", use_bias=False,
        kernel_initializer=_initializer(), trainable=trainable, name=name)
    return tf.layers.batch_normalization(
        net, momentum=momentum, epsilon=BATCH_NORM_EPSILON, training=training, fused=True,
        trainable=trainable, name=name)


def fast_gradients(training: bool) -> dict[str, str]:
    """Which operations' gradients to replace, as ``tf.Graph.gradient_override_map`` takes them.

    TensorFlow's own gradient of a convolution's input is slow on CPUs unless MKL computes it.
    """
    on_plain_cpu = not is_mkl_build() and not has_gpu()
    return {"Conv2D": _registered_gradient()} if training and on_plain_cpu else {}


@functools.lru_cache(None)
def _registered_gradient():
    """The name under which TensorFlow knows the gradient below; it takes a name only once."""
    tf.RegisterGradient("Conv2DByConv2D")(_convolution_gradient)
    return "Conv2DByConv2D"


def _convolution_gradient(convolution, gradient):
    """The gradients of a convolution of stride 1 that pads to its input's size.

    That of the input is itself such a convolution, with the kernel turned by 180 degrees and its
    channels exchanged.
    """
    images, kernel = convolution.inputs
    turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    return (tf.nn.conv2d(gradient, turned, strides=1, padding="SAME"),
            tf.nn.conv2d_backprop_filter(
                images, kernel.shape, gradient, strides=[1, 1, 1, 1], padding="SAME"))


def _initializer():
    """He initialisation: a normal distribution of variance 2 / fan-in."""
    return tf.variance_scaling_initializer(scale=2.0, mode="fan_in")


def variable_shapes(num_classes: int = NUM_CLASSES, width: float = 1.0,
                    ) -> OrderedDict[str, tuple[int, ...]]:
    """Shape of every variable of the inference graph, by name.

    Parameters
    ----------
    num_classes
    width
        See :func:`layers_of`.

    Returns
    -------
    OrderedDict of str to tuple of int
        In the order of the layers; kernels are [height, width, channels in, filters] (HWIO).
    """
    shapes: OrderedDict[str, tuple[int, ...]] = OrderedDict()
    channels = 3
    convolutions = [layer for layer in layers_of(width) if layer != MAX_POOL]
    for index, (filters, size) in enumerate(convolutions):
        shapes["conv_{}/kernel".format(index)] = (size, size, channels, filters)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes["conv_{}/{}".format(index, part)] = (filters,)
        channels = filters
    shapes[CLASSIFIER + "/kernel"] = (1, 1, channels, num_classes)
    shapes[CLASSIFIER + "/bias"] = (num_classes,)
    return shapes


def layer_table(num_classes: int = NUM_CLASSES, size: int = 224,
                width: float = 1.0) -> list[dict]:
    """What each layer costs at one input size.

    Parameters
    ----------
    num_classes
    size
        Height and width of the input, a multiple of 32.
    width
        See :func:`layers_of`.

    Returns
    -------
    list of dict
        ``layer``, ``filters``, ``kernel``, ``output`` (height and width), ``parameters``
        (trainable) and ``operations`` (two per multiply-add, convolutions only, as darknet
        counts them).
    """
    rows = []
    channels, index = 3, 0
    for layer in layers_of(width) + ((num_classes, 1),):
        if layer == MAX_POOL:
            size //= 2
            rows.append(dict(layer="max-pool", filters=channels, kernel=2, output=size,
                             parameters=0, operations=0))
            continue
        filters, kernel = layer
        weights = kernel * kernel * channels * filters
        scales = filters if index == NUM_CONVOLUTIONS - 1 else 2 * filters
        rows.append(dict(layer="conv_{}".format(index), filters=filters, kernel=kernel,
                         output=size, parameters=weights + scales,
                         operations=2 * weights * size * size))
        channels, index = filters, index + 1
    return rows


@cli
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print Darknet-19's layers, parameters and operations.",
        formatter_class=HelpFormatter)
    parser.add_argument("--classes", type=number_type(int, 1), default=2, help="output classes")
    parser.add_argument("--image-size", type=number_type(int, STRIDE), default=224,
                        help="input height and width, a multiple of 32")
    parser.add_argument("--width", type=number_type(float, 0.01, 4), default=1.0,
                        help="share of every layer's filters; 1 is the network of the paper")
    args = parser.parse_args()
    if args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    rows = layer_table(args.classes, args.image_size, args.width)
    print("{:>10} {:>8} {:>7} {:>10} {:>12} {:>16}".format(
        "layer", "filters", "kernel", "output", "parameters", "operations"))
    for row in rows:
        print("{layer:>10} {filters:8d} {kernel:3d} x {kernel:d} {output:4d} x {output:<3d} "
              "{parameters:12,d} {operations:16,d}".format(**row))
    print("{:>10} {:41,d} {:16,d}".format(
        "total", sum(row["parameters"] for row in rows), sum(row["operations"] for row in rows)))


if __name__ == "__main__":
    main()
