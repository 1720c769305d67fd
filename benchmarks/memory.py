"""Peak memory of the scripts as users run them: inference over many files, and training."""

import collections
import glob
import os
import subprocess
import time

from environments import ROOT

from darknet_face.console import UserError

LENGTHS = (2000, 20000)  # entries of the lists that inference.py is given


def peak_memory(python, folder):
    """Run inference.py over two lists and train.py for an epoch.

    Parameters
    ----------
    python : str
        The interpreter to run them with.
    folder : str
        As :func:`prepare.prepare` leaves it.

    Returns
    -------
    OrderedDict of str to int
        Bytes that all processes of a run held together at its worst moment, by title; empty where
        there is no /proc to read it from.
    """
    peaks = collections.OrderedDict()
    if not os.path.exists("/proc/self/smaps_rollup"):
        return peaks
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "pictures", "*.jpg")))
    for length in LENGTHS:
        names = os.path.join(folder, "names-{}.txt".format(length))
        with open(names, "w") as stream:
            stream.writelines(paths[k % len(paths)] + "\n" for k in range(length))
        # A small input keeps this short; what could grow with the list does not depend on it.
        peaks["inference.py at 32 x 32, {:,} files".format(length)] = peak_of(
            [python, "inference.py", "-", "--image-size", "32",
             "--csv", os.path.join(folder, "memory-{}.csv".format(length))], names)
    subprocess.run([python, "preprocess_celeba.py", "--sample", "--data-dir", folder], cwd=ROOT,
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks["train.py at 224 x 224, batch 32, with its workers"] = peak_of(
        [python, "train.py", "--data-dir", os.path.join(folder, "sample"), "--epochs", "1",
         "--batch-size", "32", "--model-dir", os.path.join(folder, "model"),
         "--log-dir", os.path.join(folder, "log")])
    return peaks


def peak_of(command, standard_input=os.devnull):
    """The most bytes that a command and its descendants held at a time, looked at 5 times a
    second.

    Parameters
    ----------
    command : list of str
        Run in the project's folder.
    standard_input : str
        The file that it reads there.
    """
    with open(standard_input) as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdin=stream, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_proportional_size, _session_members(process.pid))))
        time.sleep(0.2)
    if process.returncode:
        raise UserError("{} failed with exit code {}; run it to see why".format(
            " ".join(command), process.returncode), exit_code=1)
    return peak


def _session_members(leader):
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as stream:
                fields = stream.read().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == leader:
            yield path.split("/")[2]


def _proportional_size(pid):
    """A process's resident bytes, shared pages divided among those who share them."""
    try:
        with open("/proc/{}/smaps_rollup".format(pid)) as stream:
            return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
