"""This project, on whichever TensorFlow the environment has: run by run.py."""

import os
import sys

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import worker

import train
from darknet_face.classify.find_inputs import find_inputs
from darknet_face.classify.predict import classify_single_pass
from darknet_face.engines.tensorflow_classifier import folded_classifier
from darknet_face.images.file_lists import Split
from darknet_face.runtime.session import is_mkl_build, new_session, tf
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.settings import Settings
from darknet_face.training.workers import BatchLoader
from darknet_face.weights.model_file import read_model


def training_tasks(args, pictures):
    """Training steps with the images in memory, and from files through the batch workers.

    Returns
    -------
    dict of str to callable
    """
    settings = Settings(image_size=args.image_size)
    graph = tf.Graph()
    with graph.as_default():
        net = train.build_training_graph(settings, lambda step: settings.max_lr)
        session = new_session(graph, args.threads, args.precision)
        session.run(tf.global_variables_initializer())

    def step(images, labels):
        session.run([net.train_op, net.loss, net.learning_rate],
                    {net.images: images, net.labels: labels})

    labels = np.arange(len(pictures)) % 2
    batches = training_batches(args)
    tasks = {"training": lambda steps: sum(
        step(pictures, labels) or len(pictures) for _ in range(steps))}
    stream = BatchLoader({"train": batches}, settings.workers).stream("train", 0, 1 << 30)

    def from_files(steps):
        for _ in range(steps):
            step(*next(stream))
        return steps * args.batch_size

    def preparation(steps):
        for number in range(steps):
            batches.batch(number)
        return steps * args.batch_size

    return dict(tasks, **{"training from files": from_files,
                          "preparation of training images, one core": preparation})


def training_batches(args):
    """Batches from the prepared image files: which is a face does not matter here."""
    folder = os.path.join(args.folder, "pictures")
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return TrainingBatches(Split(paths[::2], paths[1::2]), args.batch_size, args.image_size)


def file_inference(args, classifier):
    """Inference from files, as inference.py does it; a step is a batch."""
    def results():
        while True:
            pictures = find_inputs([os.path.join(args.folder, "pictures")])
            yield from classify_single_pass(classifier, pictures, args.batch_size)

    stream = results()

    def from_files(steps):
        return sum(len(next(stream)[0]) for _ in range(steps))

    return from_files


def matrix_product(args, size=4096):
    """FLOP of ``steps`` large float32 matrix products."""
    graph = tf.Graph()
    with graph.as_default():
        operand = tf.get_variable("operand", initializer=tf.random_uniform([size, size]))
        product = tf.matmul(operand, operand).op
        session = new_session(graph, args.threads)
        session.run(operand.initializer)

    def run(steps):
        for _ in range(steps):
            session.run(product)
        return steps * 2.0 * size ** 3

    return run


def main():
    args = worker.arguments()
    pictures = worker.prepared_pictures(args)
    weights = read_model(os.path.join(args.folder, "weights.npz")).weights
    classifier = folded_classifier(weights, args.image_size, args.threads, args.precision)
    tasks = worker.inference_tasks(classifier, args)
    tasks.update(training_tasks(args, pictures))
    tasks["inference from files"] = file_inference(args, classifier)
    if args.precision == "float32":
        tasks["matrix product"] = matrix_product(args)
    worker.serve("TensorFlow {}{}".format(tf.VERSION, " with MKL" if is_mkl_build() else ""), tasks)


if __name__ == "__main__":
    main()
