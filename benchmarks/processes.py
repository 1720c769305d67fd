"""The processes that worker.py serves tasks in, seen from outside."""

import contextlib
import json
import subprocess

from darknet_face.console import UserError


class WorkerProcess:
    """A process that waits for its turn; see worker.py for what is said to it.

    Parameters
    ----------
    title : str
        What error messages call it.
    command : list of str
    environment : dict of str to str

    Attributes
    ----------
    version : str
        What the worker says it is.
    tasks : list of str

    Raises
    ------
    UserError
        Here or later, when it can't be started or has ended.
    """

    def __init__(self, title, command, environment):
        self.title = title
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment,
                                            stdout=subprocess.PIPE, universal_newlines=True)
        except OSError as error:
            raise UserError("{}: {}; name a working interpreter by --python".format(
                command[0], error.strerror))
        hello = self._reply()
        self.version, self.tasks = hello["version"], hello["tasks"]

    def _reply(self):
        line = self.process.stdout.readline()
        if not line:
            raise UserError("{} ended with exit code {}; what it said is above".format(
                self.title, self.process.wait()), exit_code=1)
        return json.loads(line)

    def run(self, task, steps=1):
        """The worker's reply: a dict with ``result``, ``seconds`` and others."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, which _reply() tells
            self.process.stdin.write(json.dumps({"task": task, "steps": steps}) + "\n")
            self.process.stdin.flush()
        return self._reply()

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
