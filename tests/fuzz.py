"""Attack every reader of files with mutated ones: 300 of each kind, in child processes.

    python tests/fuzz.py                          # make fuzz
    python tests/fuzz.py --kinds png npz --count 1000 --seed 3
    python tests/fuzz.py --repeat npz:17 --seed 3 # one mutation again, with its traceback

A child has limits on memory and time. Each mutation must end in an answer or in one clean refusal:
one line, exit code 2. A traceback, a signal, a hang and a lack of memory are bad; then the input is
kept, the command that repeats it is printed, and the exit code is 1. The network is slim, so that
files of weights are small: see ``slim.py``.
"""

import argparse
import collections
import contextlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# TensorFlow's idle threads are no danger to a fork; those of the others are not started.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path[:0] = [path for path in (HERE, ROOT) if path not in sys.path]

from fuzzing import samples, worker  # noqa: E402
from slim import make_slim  # noqa: E402

from darknet_face.console import UserError, cli, number_type, progress  # noqa: E402
from darknet_face.runtime.atomic_files import write_json  # noqa: E402

make_slim()
KINDS = tuple(worker.KINDS)
OUTCOMES = ("answered", "refused", "bad")
CHUNK = 100  # mutations that a child reads before a new one takes over
START_SECONDS = 300  # for a child to read the samples, which loads libraries

Options = collections.namedtuple("Options", "seed numbers seconds megabytes jobs keep")
Options.__doc__ = """How to attack: limits are per mutation; bad inputs go to the folder keep."""

Bad = collections.namedtuple("Bad", "kind number cause")


class Child:
    """A process that reads some mutations of one kind.

    Parameters
    ----------
    folder : str
        With the samples.
    kind : str
    numbers : range
    options : Options
    """

    def __init__(self, folder, kind, numbers, options):
        self.kind, self.numbers, self.options = kind, numbers, options
        self.scratch = tempfile.mkdtemp(dir=folder, prefix="scratch-")
        self.begin = time.monotonic()
        self.limit = self.begin + START_SECONDS
        self.started = None  # the number of the mutation that is being read
        self.next = numbers.start
        self.counts, self.bad = collections.Counter(), []
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (finish())
        self._buffer = b""
        self.pipe, pipe = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._run(folder, pipe)
        os.close(pipe)

    def _run(self, folder, pipe):
        """Be the child."""
        code = 1
        try:
            os.dup2(self.said.fileno(), 1)
            os.dup2(self.said.fileno(), 2)

            def report(**line):
                os.write(pipe, json.dumps(line).encode() + b"\n")

            worker.read_all(folder, self.kind, self.options.seed, self.numbers, self.scratch,
                            self.options.megabytes, report)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def receive(self):
        """Take in what the child reports; returns False at its end."""
        received = os.read(self.pipe, 1 << 16)
        self._buffer += received
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in map(json.loads, map(bytes.decode, lines)):
            self.started = line.get("start")
            self.limit = time.monotonic() + self.options.seconds
            if self.started is None:
                self.next = line["end"] + 1
                self._count(line["end"], line["outcome"], line["detail"])
        return bool(received)

    def _count(self, number, outcome, detail):
        self.counts[outcome] += 1
        if outcome == "bad":
            self.bad.append(Bad(self.kind, number, detail))
            self._keep(number, detail)

    def _keep(self, number, cause):
        """Keep a bad input in a folder of its own."""
        target = os.path.join(self.options.keep, "{}-{}-{}".format(
            self.kind, self.options.seed, number))
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(OSError):
            shutil.copytree(os.path.join(self.scratch, "{}-{}".format(self.kind, number)), target)
            with open(os.path.join(target, "cause.txt"), "w", errors="replace") as stream:
                stream.write(cause + "\n")

    def finish(self):
        """End the child; returns the numbers that it has not read."""
        hangs = time.monotonic() > self.limit
        with contextlib.suppress(ProcessLookupError):
            if hangs:
                os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.pipe)
        self.said.seek(0)
        said = self.said.read().decode("utf-8", "replace")[-3000:].strip()
        self.said.close()
        if self.started is not None:
            self.next = self.started + 1
            self._count(self.started, "bad", "more than {} s".format(self.options.seconds)
                        if hangs else "the process ended with status {}: {}".format(status, said))
        elif status:
            raise UserError("fuzzing {} does not start: {}".format(self.kind, said), 1)
        self.counts["seconds"] += time.monotonic() - self.begin
        shutil.rmtree(self.scratch)
        return range(self.next, self.numbers.stop)


def attack(kinds, options, folder):
    """Attack the readers of some kinds.

    Parameters
    ----------
    kinds : sequence of str
    options : Options
    folder : str
        With the samples.

    Returns
    -------
    rows : OrderedDict of str to dict
        By kind: the number of each outcome, and the ``seconds`` that its children took.
    bad : list of Bad
    """
    rows = collections.OrderedDict((kind, collections.Counter()) for kind in kinds)
    waiting = [(kind, range(first, min(first + CHUNK, options.numbers.stop)))
               for kind in kinds for first in options.numbers[::CHUNK]]
    bad, children = [], {}
    with progress(total=len(kinds) * len(options.numbers), desc="fuzzing", unit="file") as bar:
        while waiting or children:
            while waiting and len(children) < options.jobs:
                child = Child(folder, *waiting.pop(0), options=options)
                children[child.pipe] = child
            ready = select.select(list(children), [], [], 1)[0]
            for pipe, child in list(children.items()):
                before = child.next
                if (child.receive() if pipe in ready else time.monotonic() < child.limit):
                    bar.update(child.next - before)
                    continue
                rest = children.pop(pipe).finish()
                bar.update(child.next - before)
                waiting += [(child.kind, rest)] if rest else []
                rows[child.kind].update(child.counts)
                bad += child.bad
    return rows, sorted(bad)


def make_in_child(folder):
    """Make the samples; TensorFlow must not have run in the process that forks."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            samples.make_samples(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise UserError("the samples can't be made", 1)


def format_table(rows):
    """The rows of :func:`attack` for people to read."""
    lines = ["{:<18}{:>10}{:>10}{:>10}{:>6}{:>9}".format(
        "kind", "mutations", "answered", "refused", "bad", "seconds")]
    for kind, row in rows.items():
        lines.append("{:<18}{:>10}{:>10}{:>10}{:>6}{:>9.0f}".format(
            kind, sum(row[each] for each in OUTCOMES), row["answered"], row["refused"], row["bad"],
            row["seconds"]))
    return "\n".join(lines)


def _parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = number_type(int, 1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND",
                        help="all of them by default: " + " ".join(KINDS))
    parser.add_argument("--count", type=count, default=300, help="mutations of each kind")
    parser.add_argument("--seed", type=number_type(int, 0), default=0)
    parser.add_argument("--seconds", type=count, default=60, help="for one mutation (default: 60)")
    parser.add_argument("--megabytes", type=count, default=3000,
                        help="of address space beyond a child's at its start (default: 3000)")
    parser.add_argument("--jobs", type=count, default=os.cpu_count(), help="children at a time")
    parser.add_argument("--keep", default=os.path.join(ROOT, "fuzz-failures"), metavar="DIR",
                        help="where bad inputs are kept (default: fuzz-failures)")
    parser.add_argument("--json", metavar="FILE", help="write the table here too")
    parser.add_argument("--repeat", metavar="KIND:NUMBER", help="read one mutation again")
    return parser.parse_args()


@cli
def main():
    args = _parse()
    kinds, numbers = args.kinds, range(args.count)
    if args.repeat:
        kind, _, number = args.repeat.partition(":")
        if kind not in KINDS or not number.isdecimal():
            raise UserError("--repeat {}: not KIND:NUMBER, as in a report".format(args.repeat))
        kinds, numbers = [kind], range(int(number), int(number) + 1)
    options = Options(args.seed, numbers, args.seconds, args.megabytes, args.jobs, args.keep)
    with tempfile.TemporaryDirectory() as folder:
        make_in_child(folder)
        rows, bad = attack(kinds, options, folder)
    for kind, number, cause in bad:
        print("{0}:{1}: {2}\n  python tests/fuzz.py --seed {3} --repeat {0}:{1}\n".format(
            kind, number, cause.strip(), options.seed))
    print(format_table(rows))
    if args.json:
        write_json(args.json, {"seed": options.seed, "kinds": rows,
                               "bad": [each._asdict() for each in bad]})
    if bad:
        raise UserError("{} bad; their inputs are in {}".format(len(bad), options.keep), 1)


if __name__ == "__main__":
    main()
