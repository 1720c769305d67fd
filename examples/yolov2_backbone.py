"""A YOLOv2 graph on the extracted weights: fixed backbone, pass-through and detection head.

Carry it into a detector and add the loss. Source: "YOLO9000", 2016, section 2."""
import argparse
import io
import os
import pathlib
import pickle
import pickletools

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TensorFlow 2's tf.layers needs Keras 2
import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

LAYERS = [32, "M", 64, "M", 128, 64, 128, "M", 256, 128, 256, "M", 512, 256, 512, 256, 512, "M",
          1024, 512, 1024, 512, 1024]
FILES = "conv_weights.pickle", "bn_weights.pickle"
ANCHORS, CLASSES = 5, 1  # each anchor predicts x, y, width, height, objectness and the classes


class ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):  # runs nothing that arrays do not need
        if (module, name) == ("numpy", "ndarray"):
            return lambda shape, _, content: np.frombuffer(content, "<f4").reshape(shape)
        if (module, name) == ("__builtin__", "bytearray"):
            return lambda text, _: bytearray(text, "latin-1")
        raise pickle.UnpicklingError("it asks for {}.{}".format(module, name))


def load(path):
    content = path.read_bytes()
    for each, _, _ in pickletools.genops(content):  # what is shared could take for ever to hash
        if each.name.endswith(("PUT", "GET", "DUP", "MEMOIZE")):
            raise pickle.UnpicklingError("it has the instruction " + each.name)
    return ArrayUnpickler(io.BytesIO(content)).load()


def backbone(net, kernels, norms):
    """Layers 0 to 17 with the given weights: [N, H/16, W/16, 512] and [N, H/32, W/32, 1024]."""
    names = iter(norms)
    for layer in LAYERS:
        if layer == "M":
            before_pool, net = net, tf.nn.max_pool(net, 2, 2, "VALID")
            continue
        name = next(names)
        part = {key: tf.get_variable(name + "/" + key, initializer=value, trainable=False)
                for key, value in dict(norms[name], kernel=kernels[name]).items()}
        net = tf.nn.conv2d(net, part["kernel"], 1, "SAME")
        net = tf.nn.leaky_relu(tf.nn.batch_normalization(
            net, part["mean"], part["variance"], part["beta"], part["gamma"], 1e-5), 0.1)
    return before_pool, net


def head_layer(net, filters, size, name):
    net = tf.layers.conv2d(net, filters, size, padding="same", use_bias=False, name=name)
    return tf.nn.leaky_relu(tf.layers.batch_normalization(net, training=True, name=name), 0.1)


def detector(images, kernels, norms):
    """float32 [N, H, W, 3], RGB 0..1 -> [N, H / 32, W / 32, ANCHORS * (5 + CLASSES)]."""
    pass_through, net = backbone(images, kernels, norms)
    net = head_layer(head_layer(net, 1024, 3, "head_0"), 1024, 3, "head_1")
    fine = tf.space_to_depth(head_layer(pass_through, 64, 1, "head_2"), 2)
    net = head_layer(tf.concat([fine, net], -1), 1024, 3, "head_3")
    return tf.layers.conv2d(net, ANCHORS * (5 + CLASSES), 1, name="head_4")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="data", help="folder with the pickles (data)")
    parser.add_argument("--image-size", type=int, default=416, metavar="SIZE",
                        choices=range(64, 1025, 32), help="a multiple of 32 from 64 on (416)")
    args = parser.parse_args()
    tf.disable_v2_behavior()
    try:
        kernels, norms = (load(pathlib.Path(args.data_dir, name)) for name in FILES)
        boxes = detector(tf.random_uniform([1] + 2 * [args.image_size] + [3]), kernels, norms)
    except Exception as error:
        parser.exit(2, "error: {}: {!r}; run extract_weights.py\n".format(args.data_dir, error))
    gradients = tf.gradients(tf.reduce_mean(tf.square(boxes)), tf.trainable_variables())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        print("{} of 18 trunk kernels equal those in the files".format(sum(
            np.array_equal(session.run(name + "/kernel:0"), kernels[name]) for name in norms)))
        for each, gradient in zip(tf.trainable_variables(), session.run(gradients)):
            print("{:<13} gradient norm {:.3g}".format(each.op.name, np.linalg.norm(gradient)))


if __name__ == "__main__":
    main()
