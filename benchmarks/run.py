"""Measure this project beside what a user would pick instead, in one interleaved run.

    make bench-engines                        # the environments, then all of it: about 25 minutes
    make bench-engines BENCH="--rounds 2 --seconds 2" # rougher
    python benchmarks/run.py --help

Engines are processes that take turns: each round measures every task of every engine once, so that
a change of the machine's speed affects all of them. Results are medians over the rounds, with the
lowest and the highest. Before anything is timed, the engines' answers are compared on real
images. Writes results.json and results.png.
"""

import argparse
import collections
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.dirname(HERE))

import numpy as np  # noqa: E402
from environments import python_of  # noqa: E402
from memory import peak_memory  # noqa: E402
from prepare import prepare  # noqa: E402

from darknet19 import layer_table  # noqa: E402
from darknet_face.console import HelpFormatter, UserError, cli, number_type, progress  # noqa: E402
from darknet_face.options import image_size  # noqa: E402
from darknet_face.runtime.atomic_files import temporary_path, write_json  # noqa: E402

# In memory: measure only training and inference on images in memory, not the other tasks.
Engine = collections.namedtuple("Engine", "name title environment script in_memory precision",
                                defaults=["float32"])
ENGINES = (
    Engine("tf2", "this project, TensorFlow 2", "tf2", "engine_project.py", False),
    Engine("tf2-bfloat16", "this project, TensorFlow 2, bfloat16", "tf2", "engine_project.py",
           False, "bfloat16"),
    Engine("mkl", "this project, MKL build", "mkl", "engine_project.py", False),
    Engine("stock", "this project, stock build", "stock", "engine_project.py", True),
    Engine("plain-tf2", "plain TensorFlow 2", "tf2", "engine_plain.py", False),
    Engine("plain-mkl", "plain TensorFlow, MKL build", "mkl", "engine_plain.py", False),
    Engine("plain-stock", "plain TensorFlow, stock build", "stock", "engine_plain.py", True),
    Engine("pytorch", "PyTorch", "pytorch", "engine_pytorch.py", False),
    Engine("pytorch-bfloat16", "PyTorch, bfloat16", "pytorch", "engine_pytorch.py", False,
           "bfloat16"),
    Engine("onnxruntime", "ONNX Runtime", "onnxruntime", "engine_onnxruntime.py", False),
    Engine("onnxruntime-int8", "ONNX Runtime, int8", "onnxruntime", "engine_onnxruntime.py", False,
           "int8"),
    Engine("opencv", "OpenCV DNN", "opencv", "engine_opencv.py", False),
)
# How ratios name what they compare.
SHORT_TITLES = {
    "tf2": "TensorFlow 2", "tf2-bfloat16": "TensorFlow 2 in bfloat16", "mkl": "MKL",
    "stock": "stock", "plain-tf2": "a plain graph on it", "plain-mkl": "a plain graph on it",
    "plain-stock": "a plain graph on it", "pytorch": "PyTorch",
    "pytorch-bfloat16": "PyTorch in bfloat16", "onnxruntime": "ONNX Runtime",
    "onnxruntime-int8": "ONNX Runtime in int8"}
UNTIMED = ("answers", "accuracy")
PRODUCT = "matrix product"
PREPARATION = "preparation of training images, one core"
# In probability, between engines that hold the same weights. Lower precisions move what they move:
# how far is reported, with the accuracy, and only a broken engine is refused.
LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.5}


class EngineProcess:
    """An engine at work in its own environment; see worker.py for what is said to it.

    Attributes
    ----------
    version : str
        What the engine says it is.
    tasks : list of str

    Raises
    ------
    UserError
        Here or later, when it can't be started or has ended.
    """

    def __init__(self, engine, python, args, folder):
        self.engine = engine
        command = [python, os.path.join(HERE, engine.script), "--threads", str(args.threads),
                   "--image-size", str(args.image_size), "--batch-size", str(args.batch_size),
                   "--folder", folder, "--precision", engine.precision]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True,
                env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)))
        except OSError as error:
            raise UserError("{}: {}; name a working interpreter by --python".format(
                python, error.strerror))
        hello = self._reply()
        self.version = hello["version"]
        self.answers = "answers" in hello["tasks"]
        self.tasks = [name for name in hello["tasks"] if name not in UNTIMED and not (
            engine.in_memory and name != "training" and "batch " not in name)]

    def _reply(self):
        line = self.process.stdout.readline()
        if not line:
            raise UserError("{} ended with exit code {}; what it said is above".format(
                self.engine.title, self.process.wait()), exit_code=1)
        return json.loads(line)

    def run(self, task, steps=1):
        """The engine's reply: a dict with ``result`` and ``seconds``."""
        time.sleep(0.2)  # lets what others have still read ahead come to its end
        with contextlib.suppress(BrokenPipeError):  # it has ended, which _reply() tells
            self.process.stdin.write(json.dumps({"task": task, "steps": steps}) + "\n")
            self.process.stdin.flush()
        return self._reply()

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def check_answers(processes):
    """Make sure that all engines that hold the project's weights give the same answers.

    Returns
    -------
    dict of str to float
        The largest difference in probability from the first float32 engine, by engine.

    Raises
    ------
    UserError
        When one differs by more than :data:`LARGEST_DIFFERENCE`.
    """
    answering = sorted((each for each in processes if each.answers),
                       key=lambda each: each.engine.precision != "float32")
    answers = {each.engine: np.array(each.run("answers")["result"]) for each in answering}
    differences = {}
    for engine, found in answers.items():
        first = next(iter(answers))
        difference = differences[engine.name] = float(np.abs(found - answers[first]).max())
        if not difference <= LARGEST_DIFFERENCE[engine.precision]:
            raise UserError("{} answers otherwise than {}: a probability differs by {:.2g}".format(
                engine.name, first.name, difference), exit_code=1)
    return differences


def measure_accuracy(processes):
    """The share of scikit-image's 200 labelled images that each engine classifies correctly."""
    return {each.engine.name: each.run("accuracy")["result"] for each in processes
            if each.answers}


def measure(processes, args):
    """Measure every task of every engine in each round.

    Returns
    -------
    dict of (str, str) to list of float
        Images/s, or FLOP/s for a matrix product, by task and engine, one number a round.
    """
    jobs = [(process, task) for process in processes for task in process.tasks]
    steps, rates = {}, collections.defaultdict(list)
    with progress(total=len(jobs) * (args.rounds + 1), desc="measuring", unit="task") as bar:
        for round_number in range(args.rounds + 1):
            for process, task in jobs:
                key = task, process.engine.name
                if round_number == 0:
                    steps[key] = _calibrate(process, task, args.seconds)
                else:
                    reply = process.run(task, steps[key])
                    rates[key].append(reply["result"] / reply["seconds"])
                bar.update()
    return rates


def _calibrate(process, task, seconds):
    """How many steps take so many seconds, found by doing them, which warms the engine up too."""
    process.run(task, 2)
    reply = process.run(task, 2)
    return max(2, int(round(2 * seconds / reply["seconds"])))


def summarise(rates, image_size):
    """Medians with spread, and what share of the machine's matrix-product peak they reach.

    Parameters
    ----------
    rates : dict of (str, str) to list of float
        See :func:`measure`.
    image_size : int

    Returns
    -------
    rows : list of dict
        ``task``, ``engine``, ``median``, ``lowest``, ``highest``, ``rounds`` and, where the work
        is convolutions, ``share_of_peak``.
    peak : float
        FLOP/s: the highest median among the engines' matrix products.
    """
    products = [statistics.median(values) for (task, _), values in rates.items()
                if task == PRODUCT]
    peak = max(products) if products else float("nan")
    rows = []
    for (task, engine), values in sorted(rates.items(), key=lambda item: item[0][0]):
        row = dict(task=task, engine=engine, median=statistics.median(values),
                   lowest=min(values), highest=max(values), rounds=values)
        operations = operations_per_image(task, image_size)
        if operations:
            row["share_of_peak"] = row["median"] * operations / peak
        rows.append(row)
    return rows, peak


def operations_per_image(task, size):
    """Floating-point operations of the convolutions for one image, None for other tasks.

    Training does three products a layer, for the output and for the gradients of the input and
    of the kernel; the first layer needs no gradient of its input.
    """
    layers = [row["operations"] for row in layer_table(size=size)]
    if task.startswith("training"):
        return 3 * sum(layers) - layers[0]
    return sum(layers) if task.startswith("inference") else None


def ratios(batch_size):
    """The ratios to report: title, numerator and denominator, both (task, engine)."""
    many, single = "inference, batch {}".format(batch_size), "inference, batch 1"
    pairs = (
        ("training", "tf2", "pytorch"), ("training", "tf2-bfloat16", "pytorch-bfloat16"),
        ("training", "tf2", "mkl"), ("training", "tf2", "plain-tf2"),
        ("training", "mkl", "pytorch"), ("training", "mkl", "plain-mkl"),
        ("training", "stock", "plain-stock"),
        ("training from files", "tf2", "plain-tf2"), ("training from files", "mkl", "plain-mkl"),
        (many, "tf2", "pytorch"), (many, "tf2-bfloat16", "pytorch-bfloat16"),
        (many, "tf2", "onnxruntime"), (many, "tf2-bfloat16", "onnxruntime"),
        (many, "tf2-bfloat16", "onnxruntime-int8"), (many, "mkl", "onnxruntime"),
        (single, "tf2", "pytorch"), (single, "tf2-bfloat16", "pytorch-bfloat16"),
        (single, "tf2", "onnxruntime"), (single, "tf2-bfloat16", "onnxruntime"),
        (single, "tf2-bfloat16", "onnxruntime-int8"), (single, "mkl", "onnxruntime"))
    names = SHORT_TITLES
    rows = [("{}, {}, against {}".format(task, names[above], names[below]),
             (task, above), (task, below)) for task, above, below in pairs]
    for name in ("tf2", "tf2-bfloat16", "mkl"):
        for task, memory in (("training", "training"), ("inference", many)):
            rows.append(("{} from files against in memory, {}".format(task, names[name]),
                         (task + " from files", name), (memory, name)))
    return rows


def compare(rates, batch_size):
    """The ratios, taken round by round, so that both sides had the machine at the same speed.

    Returns
    -------
    list of dict
        ``title``, ``median``, ``lowest``, ``highest``; those whose engines ran.
    """
    rows = []
    for title, above, below in ratios(batch_size):
        if above in rates and below in rates:
            values = [a / b for a, b in zip(rates[above], rates[below])]
            rows.append(dict(title=title, median=statistics.median(values),
                             lowest=min(values), highest=max(values)))
    return rows


def format_results(results):
    """The results as text."""
    titles = {engine.name: engine.title for engine in ENGINES}
    width = max(len(title) for title in titles.values())
    lines = ["{0} x {0} pixels, batch {1}, {2} threads; median (lowest to highest) of {3} rounds"
             .format(results["image_size"], results["batch_size"], results["threads"],
                     results["rounds"])]
    task = None
    for row in results["rows"]:
        if row["task"] != task:
            task = row["task"]
            lines += ["", "{} ({})".format(task, "GFLOP/s" if task == PRODUCT else "images/s")]
        scale = 1e-9 if task == PRODUCT else 1
        lines.append("  {:<{width}} {:8.1f}  ({:.1f} to {:.1f}){}".format(
            titles[row["engine"]], *(scale * row[name] for name in ("median", "lowest", "highest")),
            "  {:.0%} of the peak".format(row["share_of_peak"]) if "share_of_peak" in row else "",
            width=width))
    if results["accuracy"]:
        lines += ["", "{:<{width}} {:>10} {:>20}".format(
            "answers", "accuracy", "largest difference", width=width + 2)]
        lines += ["  {:<{width}} {:10.1%} {:20.2g}".format(
            titles[name], share, results["largest_differences"][name], width=width)
            for name, share in results["accuracy"].items()]
    lines += ["", "ratios"]
    lines += ["  {title:<70} {median:5.2f}  ({lowest:.2f} to {highest:.2f})".format(**row)
              for row in results["ratios"]]
    if results["memory"]:
        lines += ["", "peak memory (MB)"]
        lines += ["  {:<48} {:6,.0f}".format(title, size / 1e6)
                  for title, size in results["memory"].items()]
    return "\n".join(lines)


def draw(path, results):
    """A bar chart: a panel a task, a bar an engine, whiskers from the lowest to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = {engine.name: engine.title for engine in ENGINES}
    tasks = list(collections.OrderedDict.fromkeys(
        row["task"] for row in results["rows"] if row["task"] not in (PRODUCT, PREPARATION)))
    counts = [sum(row["task"] == task for row in results["rows"]) for task in tasks]
    figure, axes = plt.subplots(
        len(tasks), squeeze=False, figsize=(8, 0.6 * len(tasks) + 0.34 * sum(counts)),
        gridspec_kw={"height_ratios": counts})
    for axis, task in zip(axes[:, 0], tasks):
        rows = [row for row in results["rows"] if row["task"] == task]
        rows.sort(key=lambda row: row["median"])
        medians = [row["median"] for row in rows]
        spread = [[row["median"] - row["lowest"] for row in rows],
                  [row["highest"] - row["median"] for row in rows]]
        colours = ["#1f77b4" if "this project" in titles[row["engine"]] else "#b0b7bf"
                   for row in rows]
        axis.barh([titles[row["engine"]] for row in rows], medians, xerr=spread, color=colours,
                  error_kw=dict(lw=1, capsize=3, ecolor="#444444"))
        for place, row in enumerate(rows):
            axis.annotate(" {:.1f}".format(row["median"]), (row["highest"], place), va="center",
                          fontsize=8)
        axis.set_title("{}, images/s".format(task), loc="left", fontsize=10)
        axis.margins(x=0.1)
        axis.spines["top"].set_visible(False)
        axis.spines["right"].set_visible(False)
    figure.tight_layout()
    with temporary_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _parser():
    parser = argparse.ArgumentParser(
        description="Measure this project beside plain TensorFlow, PyTorch, ONNX Runtime and "
                    "OpenCV on the same work.",
        formatter_class=HelpFormatter)
    parser.add_argument("--rounds", type=number_type(int, 1), default=5,
                        help="how often everything is measured")
    parser.add_argument("--seconds", type=number_type(float, 0), default=3.0,
                        help="about how long one measurement takes")
    parser.add_argument("--image-size", type=image_size, default=224,
                        help="height and width of the input, a multiple of 32")
    parser.add_argument("--batch-size", type=number_type(int, 2), default=16,
                        help="images a step, even")
    parser.add_argument("--threads", type=number_type(int, 1), default=os.cpu_count(),
                        help="threads of every engine")
    parser.add_argument("--pictures", type=number_type(int, 16), default=2000,
                        help="JPEGs to make from scikit-image's photographs")
    parser.add_argument("--engines", nargs="+", choices=[engine.name for engine in ENGINES],
                        default=[engine.name for engine in ENGINES], metavar="NAME",
                        help="which to measure: " + ", ".join(engine.name for engine in ENGINES))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH",
                        help="use this interpreter for an environment (tf2, mkl, stock, pytorch, "
                             "onnxruntime, opencv) instead of making one")
    parser.add_argument("--no-memory", action="store_true",
                        help="do not measure the peak memory of training and of inference")
    parser.add_argument("--out", default=os.path.join(HERE, "out"), metavar="DIR",
                        help="folder for results.json and results.png")
    return parser


@cli
def main():
    parser = _parser()
    args = parser.parse_args()
    if args.batch_size % 2:
        parser.error("--batch-size is even")
    given = dict(each.partition("=")[::2] for each in args.python)
    engines = [engine for engine in ENGINES if engine.name in args.engines]
    try:
        pythons = {name: given.get(name) or python_of(name)
                   for name in {engine.environment for engine in engines}}
    except subprocess.CalledProcessError as error:
        raise UserError("an environment could not be made: {} failed; see above".format(
            error.cmd[0]), exit_code=1)
    except OSError as error:
        raise UserError("{}: {}; name a python3 by PEER_PYTHON".format(
            error.filename, error.strerror))
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, args.pictures, args.image_size, args.batch_size,
                exports=bool({"onnxruntime", "opencv"} & set(pythons)))
        processes = []
        try:
            for engine in engines:
                processes.append(EngineProcess(engine, pythons[engine.environment], args, folder))
            differences = check_answers(processes)
            accuracy = measure_accuracy(processes)
            rates = measure(processes, args)
            versions = {process.engine.name: process.version for process in processes}
        finally:
            for process in processes:
                process.stop()
        memory = {} if args.no_memory else peak_memory(
            pythons.get("tf2") or pythons.get("mkl") or sys.executable, folder)
    rows, peak = summarise(rates, args.image_size)
    results = dict(
        image_size=args.image_size, batch_size=args.batch_size, threads=args.threads,
        rounds=args.rounds, machine=platform.processor() or platform.machine(),
        versions=versions, largest_differences=differences,
        accuracy=accuracy, peak_flops=peak, rows=rows,
        ratios=compare(rates, args.batch_size), memory=memory)
    print(format_results(results))
    write_json(os.path.join(args.out, "results.json"), results)
    draw(os.path.join(args.out, "results.png"), results)
    print("\nwrote results.json and results.png in {}".format(
        os.path.relpath(args.out, os.getcwd())))


if __name__ == "__main__":
    main()
