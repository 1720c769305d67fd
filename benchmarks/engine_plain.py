"""The yardstick: Darknet-19 in plain TensorFlow, trained in the way that the original was.

One process reads, augments and feeds float32 through feed_dict. There is one graph with an
``is_training`` placeholder. Threads are set as TensorFlow and OpenMP set them. Run by run.py.
"""

import os
import sys

os.environ["KMP_BLOCKTIME"] = "200"  # OpenMP's default, which runtime/session.py would change
sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import cv2
import numpy as np
import worker

from darknet19 import LAYERS, MAX_POOL
from darknet_face.runtime.session import is_mkl_build, tf
from darknet_face.training.augment import iaa


def build(images, is_training):
    """The logits of a plain Darknet-19 for two classes."""
    net = images
    for layer in LAYERS:
        if layer == MAX_POOL:
            net = tf.layers.max_pooling2d(net, 2, 2)
            continue
        net = tf.layers.conv2d(net, *layer, padding="same", use_bias=False)
        net = tf.layers.batch_normalization(net, training=is_training)
        net = tf.nn.leaky_relu(net, 0.1)
    return tf.reduce_mean(tf.layers.conv2d(net, 2, 1), axis=[1, 2])


def augmentation():
    """Flips, crops, blur, contrast, noise, brightness and an affine map, by imgaug."""
    return iaa.Sequential([
        iaa.Fliplr(0.5),
        iaa.Crop(percent=(0, 0.1)),
        iaa.Sometimes(0.5, iaa.GaussianBlur(sigma=(0, 0.5))),
        iaa.LinearContrast((0.75, 1.5)),
        iaa.AdditiveGaussianNoise(loc=0, scale=(0.0, 0.05 * 255), per_channel=0.5),
        iaa.Multiply((0.8, 1.2), per_channel=0.2),
        iaa.Affine(scale=(0.8, 1.2), translate_percent=(-0.2, 0.2), rotate=(-25, 25),
                   shear=(-8, 8)),
    ], random_order=True)


def main():
    args = worker.arguments()
    images = tf.placeholder(tf.float32, [None, args.image_size, args.image_size, 3])
    labels = tf.placeholder(tf.int32, [None])
    is_training = tf.placeholder(tf.bool, [])
    loss = tf.losses.sparse_softmax_cross_entropy(labels, build(images, is_training))
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = tf.train.AdamOptimizer(1e-4).minimize(loss)
    session = tf.Session()
    session.run(tf.global_variables_initializer())

    def step(batch):
        session.run([train_op, loss], {
            images: batch, labels: np.arange(len(batch)) % 2, is_training: True})
        return len(batch)

    def read(path):
        picture = cv2.resize(cv2.imread(path), (args.image_size, args.image_size))
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    folder = os.path.join(args.folder, "pictures")
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    augment = augmentation()
    rng = np.random.RandomState(0)

    def from_files():
        batch = [read(path) for path in rng.choice(paths, args.batch_size)]
        return np.stack(augment(images=batch)) / 255.0

    in_memory = worker.prepared_pictures(args) / np.float32(255)
    worker.serve("TensorFlow {}{}".format(tf.VERSION, " with MKL" if is_mkl_build() else ""), {
        "training": lambda steps: sum(step(in_memory) for _ in range(steps)),
        "training from files": lambda steps: sum(step(from_files()) for _ in range(steps)),
    })


if __name__ == "__main__":
    main()
