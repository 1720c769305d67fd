"""What every engine's process shares: it waits for tasks on standard input and times them.

An engine is a program of its own, in an environment of its own, that prepares its work once and
then sleeps until run.py asks: so engines take turns on the cores. Runs on Python 3.7 and later.
"""

import argparse
import json
import os
import resource
import sys
import time

import numpy as np


def arguments():
    """The command line of every engine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--folder", required=True, help="what run.py has prepared")
    return parser.parse_args()


def prepared_pictures(args):
    """A batch of real pictures: uint8, [batch, height, width, 3], RGB."""
    return np.load(os.path.join(args.folder, "pictures.npy"))


def inference_tasks(predict, pictures):
    """Inference at batch 1 and at the full batch, on pictures in memory.

    Parameters
    ----------
    predict : callable
        Takes pictures, uint8, [n, height, width, 3], and returns probabilities, [n, 2].
    pictures : numpy.ndarray

    Returns
    -------
    dict of str to callable
        See :func:`serve`.
    """
    def many(steps):
        for _ in range(steps):
            predict(pictures)
        return steps * len(pictures)

    def single(steps):
        for step in range(steps):
            predict(pictures[step % len(pictures)][np.newaxis])
        return steps

    return {"answers": lambda _: np.asarray(predict(pictures)).tolist(),
            "inference, batch {}".format(len(pictures)): many, "inference, batch 1": single}


def serve(version, tasks):
    """Announce the tasks, then answer requests until standard input ends.

    Parameters
    ----------
    version : str
        The engine's version.
    tasks : dict of str to callable
        A task takes a number of steps and returns how much it has done: images, or FLOP for a
        matrix product; the task ``answers`` returns probabilities.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply

    def reply(**content):
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    reply(version=version, tasks=list(tasks))
    for line in sys.stdin:
        request = json.loads(line)
        start, cpu = time.perf_counter(), time.process_time()
        result = tasks[request["task"]](request["steps"])
        reply(result=result, seconds=time.perf_counter() - start,
              cpu_seconds=time.process_time() - cpu,
              peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
