"""A real serve.py in a process of its own, for the tests of the endpoint and of the page."""

import contextlib
import os
import re
import subprocess
import sys

from conftest import ROOT, heed_sigint


class Served:
    """A running serve.py.

    Attributes
    ----------
    process : subprocess.Popen
    url : str
        As it printed it.
    said : list of str
        Its lines on standard output up to the address.
    """

    def __init__(self, process, errors):
        self.process, self.errors = process, errors
        self.said = []
        for line in iter(process.stdout.readline, ""):
            self.said.append(line)
            found = re.match(r"open (http://\S+:[0-9]+) ", line)
            if found:
                self.url = found.group(1)
                return
        raise AssertionError("it did not start: " + self.read_errors())

    def read_errors(self):
        with open(self.errors) as stream:
            return stream.read()


@contextlib.contextmanager
def served(model_dir, errors, *arguments):
    """Run serve.py on a free port with the model in a folder; ``errors`` takes its stderr."""
    with open(errors, "w") as stream:
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "serve.py"), "--port", "0", "--model-dir",
             model_dir] + [str(each) for each in arguments],
            stdout=subprocess.PIPE, stderr=stream, universal_newlines=True,
            preexec_fn=heed_sigint)
    try:
        yield Served(process, errors)
    finally:
        process.kill()
        process.communicate()
