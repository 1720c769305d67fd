"""What the engines' processes share: they wait for tasks on standard input and time them.

Each engine is a program in its own environment. It prepares its work once, then sleeps until run.py
asks, so that the engines take turns on the cores. Runs on Python 3.7 and later.
"""

import argparse
import json
import os
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
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), default="float32",
                        help="what convolutions compute in")
    return parser.parse_args()


def prepared_pictures(args):
    """A batch of real images: uint8, [batch, height, width, 3], RGB."""
    return np.load(os.path.join(args.folder, "pictures.npy"))


def labelled_pictures(args):
    """Real images to measure accuracy on, uint8, [n, height, width, 3], and their classes."""
    with np.load(os.path.join(args.folder, "labelled.npz")) as stored:
        return stored["pictures"], stored["labels"]


def inference_tasks(predict, args):
    """Inference at batch 1 and at the full batch, on images in memory, and its accuracy.

    Parameters
    ----------
    predict : callable
        Takes images, uint8, [n, height, width, 3], and returns probabilities, [n, 2].
    args : argparse.Namespace
        See :func:`arguments`.

    Returns
    -------
    dict of str to callable
        See :func:`serve`.
    """
    pictures = prepared_pictures(args)

    def many(steps):
        for _ in range(steps):
            predict(pictures)
        return steps * len(pictures)

    def single(steps):
        for step in range(steps):
            predict(pictures[step % len(pictures)][np.newaxis])
        return steps

    def accuracy(_):
        labelled, labels = labelled_pictures(args)
        batches = np.array_split(labelled, max(1, len(labelled) // len(pictures)))
        found = np.concatenate([np.argmax(predict(batch), axis=1) for batch in batches])
        return float((found == labels).mean())

    return {"answers": lambda _: np.asarray(predict(pictures)).tolist(), "accuracy": accuracy,
            "inference, batch {}".format(len(pictures)): many, "inference, batch 1": single}


def serve(version, tasks):
    """Announce the tasks, then answer requests until standard input ends.

    Parameters
    ----------
    version : str
        The engine's version.
    tasks : dict of str to callable
        A task takes a number of steps and returns how much it has done: images, or FLOP for a
        matrix product. The task ``answers`` returns probabilities instead, and ``accuracy`` the
        share of labelled images that are classified correctly.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply

    def reply(**content):
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    reply(version=version, tasks=list(tasks))
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        result = tasks[request["task"]](request["steps"])
        reply(result=result, seconds=time.perf_counter() - start)
