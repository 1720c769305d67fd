"""Measure settings of one build of TensorFlow: the variants below, interleaved.

    python benchmarks/explore.py                              # whatever build runs this
    python benchmarks/explore.py --variants shipped "inter-op 2" --tasks training --rounds 5

Each variant is a process (OpenMP reads its environment once) that waits for its turn, as in run.py.
Prints images/s and the ratio to what is shipped, medians over the rounds.
"""

import argparse
import collections
import os
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.dirname(HERE))

import worker  # noqa: E402
from prepare import RELEASED, add_size_arguments, check_sizes, prepare  # noqa: E402
from processes import WorkerProcess  # noqa: E402

from darknet_face.console import HelpFormatter, cli, number_type  # noqa: E402

# A variant: variables of the environment, in capitals, and what _config() and _training() know.
# KMP_BLOCKTIME=infinite can't be among them: its threads spin while the others are measured.
VARIANTS = collections.OrderedDict([
    ("shipped", {}),
    ("KMP_BLOCKTIME 0", {"KMP_BLOCKTIME": "0"}),
    ("KMP_BLOCKTIME 30", {"KMP_BLOCKTIME": "30"}),
    ("KMP_BLOCKTIME 200", {"KMP_BLOCKTIME": "200"}),
    ("KMP_AFFINITY compact", {"KMP_AFFINITY": "granularity=fine,compact,1,0"}),
    ("inter-op 1", {"inter_op": 1}),
    ("inter-op 2", {"inter_op": 2}),
    ("no graph rewriting", {"rewriting": False}),
    ("NCHW", {"nchw": True}),
    ("batch norm not folded", {"fold": False}),
    ("TensorFlow's own gradients", {"own_gradients": True}),
    ("XLA", {"xla": True, "TF_XLA_FLAGS": "--tf_xla_cpu_global_jit"}),
])


def _config(variant):
    """The session's configuration: as session.new_session makes it but for the variant."""
    from darknet_face.runtime.session import is_mkl_build, tf

    config = tf.ConfigProto()
    config.inter_op_parallelism_threads = variant.get("inter_op", int(is_mkl_build()))
    if not variant.get("rewriting", True):
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
    if variant.get("xla"):
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return config


def to_nchw(graph_def):
    """A folded NHWC graph with its inner layers channels first; the input stays as it is."""
    from darknet_face.runtime.session import tf

    first = tf.GraphDef()
    for node in graph_def.node:
        copy = first.node.add()
        copy.CopyFrom(node)
        if "data_format" in node.attr:
            copy.attr["data_format"].s = b"NCHW"
        for name in ("strides", "ksize", "dilations"):
            if name in node.attr:
                sizes = copy.attr[name].list.i
                sizes[:] = [sizes[0], sizes[3], sizes[1], sizes[2]]
        if node.op == "Conv2D" and node.input[0] == "input":
            copy.input[0] = "channels_first"
        if node.op == "Mean":
            copy.input[1] = "height_and_width"
    for name, value in (("permutation", [0, 3, 1, 2]), ("height_and_width", [2, 3])):
        tensor = tf.make_tensor_proto(value, tf.int32)
        first.node.add(op="Const", name=name, attr={
            "dtype": tf.AttrValue(type=tensor.dtype), "value": tf.AttrValue(tensor=tensor)})
    first.node.add(op="Transpose", name="channels_first", input=["input", "permutation"], attr={
        "T": tf.AttrValue(type=tf.float32.as_datatype_enum),
        "Tperm": tf.AttrValue(type=tf.int32.as_datatype_enum)})
    return first


def serve_variant(args, variant):
    """Be the process of a variant."""
    from darknet_face.engines import tensorflow_classifier as graphs
    from darknet_face.runtime.session import is_mkl_build, tf
    from darknet_face.weights.model_file import read_model

    graphs.new_session = lambda graph, *_: tf.Session(graph=graph, config=_config(variant))
    pictures = worker.prepared_pictures(args)
    folded = variant.get("fold", True)
    classifier = (graphs.folded_classifier if folded else graphs.classifier_from_weights)(
        read_model(RELEASED).weights, args.image_size)
    if variant.get("nchw"):
        classifier = graphs.import_classifier(to_nchw(classifier.session.graph.as_graph_def()))
    tasks = worker.inference_tasks(classifier, args)
    if folded and not variant.get("nchw") and "training" in args.tasks:
        tasks["training"] = _training(args, variant, pictures)
    worker.serve("MKL" if is_mkl_build() else "stock", tasks)


def _training(args, variant, pictures):
    """Training steps on pictures in memory, as a task of worker.serve()."""
    import numpy as np

    import darknet19
    import train
    from darknet_face.runtime.session import tf
    from darknet_face.training.settings import Settings

    if variant.get("own_gradients"):
        darknet19.fast_gradients = lambda training: {}
    settings = Settings(image_size=args.image_size)
    graph = tf.Graph()
    with graph.as_default():
        net = train.build_training_graph(settings, lambda step: settings.max_lr)
    session = tf.Session(graph=graph, config=_config(variant))
    with graph.as_default():
        session.run(tf.global_variables_initializer())
    feed = {net.images: pictures, net.labels: np.arange(len(pictures)) % 2}

    def training(steps):
        for _ in range(steps):
            session.run([net.train_op, net.loss], feed)
        return steps * len(pictures)

    return training


class Variant(WorkerProcess):
    """The process of one variant."""

    def __init__(self, name, folder, args):
        self.name = name
        command = [sys.executable, os.path.abspath(__file__), "--serve", name, "--folder", folder,
                   "--image-size", str(args.image_size), "--batch-size", str(args.batch_size),
                   "--tasks"] + args.tasks
        super().__init__("the variant " + name, command, dict(os.environ, **{
            key: value for key, value in VARIANTS[name].items() if key.isupper()}))

    def rate(self, task, seconds, clock="seconds"):
        """Images/s over about so many seconds, by the wall's clock or the processors'."""
        reply = self.run(task, 2)
        steps = max(2, int(round(2 * seconds / reply["seconds"])))
        reply = self.run(task, steps)
        return reply["result"] / reply[clock]


@cli
def main():
    parser = argparse.ArgumentParser(
        description="Measure what settings of TensorFlow give.",
        formatter_class=HelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS),
                        metavar="NAME", help="which to measure: " + ", ".join(VARIANTS))
    parser.add_argument("--tasks", nargs="+", metavar="TASK",
                        help='what to measure: training, "inference, batch 16" (or whatever the '
                             'batch size is), "inference, batch 1" (default: all)')
    parser.add_argument("--rounds", type=number_type(int, 1), default=3, help="how often")
    parser.add_argument("--seconds", type=number_type(float, 0), default=3,
                        help="about how long each time")
    add_size_arguments(parser)
    parser.add_argument("--cpu-time", action="store_true",
                        help="count seconds of the processors, not of the clock: for a machine "
                             "with other work, best with OMP_NUM_THREADS=1")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    check_sizes(parser, args)
    known = ["training", "inference, batch {}".format(args.batch_size), "inference, batch 1"]
    args.tasks = args.tasks or known
    if not set(args.tasks) <= set(known):
        parser.error("--tasks are among: " + "; ".join(known))
    if args.serve:
        serve_variant(args, VARIANTS[args.serve])
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, 2 * args.batch_size, args.image_size, args.batch_size, exports=False)
        variants = [Variant(name, folder, args) for name in args.variants]
        rates = collections.defaultdict(list)
        for _ in range(args.rounds):
            for variant in variants:
                for task in set(args.tasks) & set(variant.tasks):
                    rates[task, variant.name].append(variant.rate(
                        task, args.seconds, "cpu_seconds" if args.cpu_time else "seconds"))
        for variant in variants:
            variant.stop()
    print("{} build, {} pixels".format(variants[0].version, args.image_size))
    for task in args.tasks:
        base = rates.get((task, "shipped"))
        for variant in variants:
            values = rates.get((task, variant.name))
            if values:
                ratio = "" if not base else "  {:5.2f} of shipped".format(
                    statistics.median(a / b for a, b in zip(values, base)))
                print("{:<20} {:<28} {:7.2f} images/s ({:.2f} to {:.2f}){}".format(
                    task, variant.name, statistics.median(values), min(values), max(values),
                    ratio), flush=True)


if __name__ == "__main__":
    main()
