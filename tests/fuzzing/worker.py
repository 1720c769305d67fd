"""What a child process of ``fuzz.py`` does: it reads mutated files, one after the other."""

import faulthandler
import os
import random
import resource
import shutil
import traceback

from darknet_face.console import UserError
from darknet_face.images.decode import BadImage
from fuzzing.kinds import KINDS

MEMORY_WORDS = ("MemoryError", "llocate", "out of memory", "bad_alloc")


def mutated(kind, seed, number, contents):
    """The sample that mutation ``number`` starts from, and the mutated content."""
    rng = random.Random("{}:{}:{}".format(seed, kind, number))
    sample = rng.randrange(len(contents))
    mutate = KINDS[kind].mutate
    if KINDS[kind].structured and rng.random() < 0.5:
        mutate = KINDS[kind].structured
    return sample, mutate(contents[sample], rng, contents)


def read_one(kind, path):
    """Hand a file to the reader of its kind.

    Returns
    -------
    outcome : {"answered", "refused", "bad"}
    detail : str
    """
    try:
        KINDS[kind].read(path)
        return "answered", ""
    except UserError as error:
        detail = str(error)
        if error.exit_code != 2:
            return "bad", "exit code {}: {}".format(error.exit_code, detail)
    except (BadImage, OSError) as error:
        detail = str(error)
    except BaseException:
        return "bad", traceback.format_exc()
    if not detail or any(word in detail for word in MEMORY_WORDS):
        return "bad", "no memory, or no cause: {!r}".format(detail)
    return "refused", detail


def limit_memory(megabytes):
    """Let the address space grow by so much from now on; TensorFlow has mapped gigabytes before."""
    with open("/proc/self/statm") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    limit = used + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def read_all(folder, kind, seed, numbers, scratch, megabytes, report):
    """Read the mutations of some numbers.

    Parameters
    ----------
    folder : str
        With the samples.
    kind : str
    seed : int
    numbers : iterable of int
    scratch : str
        An empty folder. What was bad stays in it.
    megabytes : int
        See :func:`limit_memory`.
    report : callable
        Called with ``start=7`` before a file is read, and with ``end=7, outcome="refused",
        detail=".."`` after it.
    """
    faulthandler.enable()
    target = KINDS[kind].target
    samples = [os.path.join(folder, kind, name) for name in sorted(os.listdir(
        os.path.join(folder, kind)), key=int)]
    contents = []
    for sample in samples:
        with open(os.path.join(sample, target), "rb") as stream:
            contents.append(stream.read())
    for sample in samples:  # warm up: libraries are loaded and threads are started
        shutil.copytree(sample, os.path.join(scratch, "whole"))
        outcome, detail = read_one(kind, os.path.join(scratch, "whole", target))
        shutil.rmtree(os.path.join(scratch, "whole"))
        if outcome != "answered":
            raise SystemExit("the {} sample {} is {}: {}".format(kind, sample, outcome, detail))
    limit_memory(megabytes)
    for number in numbers:
        sample, content = mutated(kind, seed, number, contents)
        place = os.path.join(scratch, "{}-{}".format(kind, number))
        shutil.copytree(samples[sample], place)
        with open(os.path.join(place, target), "wb") as stream:
            stream.write(content)
        report(start=number)
        outcome, detail = read_one(kind, os.path.join(place, target))
        report(end=number, outcome=outcome, detail=detail)
        if outcome != "bad":
            shutil.rmtree(place)
