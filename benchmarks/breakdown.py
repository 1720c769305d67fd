"""Where a step's time goes, by kind of operation, on whichever build runs this.

    python benchmarks/breakdown.py training --batch-size 16
    python benchmarks/breakdown.py inference --precision bfloat16
"""

import argparse
import collections
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.dirname(HERE))

import numpy as np  # noqa: E402
from prepare import RELEASED  # noqa: E402

import train  # noqa: E402
from darknet19 import STRIDE  # noqa: E402
from darknet_face.console import HelpFormatter, cli, number_type  # noqa: E402
from darknet_face.engines.tensorflow_classifier import folded_classifier  # noqa: E402
from darknet_face.runtime.session import PRECISIONS, new_session, tf  # noqa: E402
from darknet_face.training.settings import Settings  # noqa: E402
from darknet_face.weights.model_file import read_model  # noqa: E402


def inference(args):
    """A session with what to fetch and feed for a step of inference."""
    classifier = folded_classifier(
        read_model(RELEASED).weights, args.image_size, precision=args.precision)
    shape = args.batch_size, args.image_size, args.image_size, 3
    return classifier.session, classifier.probabilities, {
        classifier.input: np.random.RandomState(0).rand(*shape)}


def training(args):
    """A session with what to fetch and feed for a step of training."""
    with tf.Graph().as_default() as graph:
        settings = Settings(image_size=args.image_size)
        net = train.build_training_graph(settings, lambda step: settings.max_lr)
        session = new_session(graph, precision=args.precision)
        session.run(tf.global_variables_initializer())
    shape = args.batch_size, args.image_size, args.image_size, 3
    return session, [net.train_op, net.loss], {
        net.images: np.random.RandomState(0).randint(0, 256, shape),
        net.labels: np.arange(args.batch_size) % 2}


def milliseconds_by_operation(session, fetch, feed, steps):
    """Mean milliseconds of a step that each kind of operation took, a collections.Counter."""
    options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    totals = collections.Counter()
    for number in range(steps + 2):
        metadata = tf.RunMetadata()
        session.run(fetch, feed, options=options, run_metadata=metadata)
        for device in metadata.step_stats.dev_stats if number > 1 else ():
            for node in device.node_stats:  # labelled "name = Operation(inputs)"
                name = node.timeline_label.split(" = ")[-1].split("(")[0]
                totals[name] += (node.op_end_rel_micros - node.op_start_rel_micros) / 1e3 / steps
    return totals


@cli
def main():
    parser = argparse.ArgumentParser(
        description="Tell where a step's time goes.",
        formatter_class=HelpFormatter)
    parser.add_argument("work", choices=("training", "inference"))
    parser.add_argument("--image-size", type=number_type(int, STRIDE), default=224,
                        help="height and width, a multiple of 32")
    parser.add_argument("--batch-size", type=number_type(int, 1), default=16,
                        help="images a step")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in")
    parser.add_argument("--steps", type=number_type(int, 1), default=3,
                        help="steps to average over")
    args = parser.parse_args()
    if args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    work = training if args.work == "training" else inference
    totals = milliseconds_by_operation(*work(args), args.steps)
    for name, value in totals.most_common(16):
        print("{:<32} {:9.1f} ms {:6.1%}".format(name, value, value / sum(totals.values())))


if __name__ == "__main__":
    main()
