"""Where the batch workers' socket lies."""

import os
import subprocess
import sys
import tempfile

import pytest
from conftest import ROOT

from darknet_face.console import UserError
from darknet_face.training import workers
from darknet_face.training.workers import BatchLoader

PROGRAM = """
import os
from darknet_face.training.workers import BatchLoader

class Source:
    def batch(self, step):
        return step, os.getpid(), []

if __name__ == "__main__":
    with BatchLoader({"a": Source()}, 1) as loader:
        (step, worker), = loader.stream("a", 0, 1)
    assert worker != os.getpid()
"""


def test_the_longest_temporary_folder(tmp_path):
    """The longest that is not refused must work; one byte more is one line with a remedy."""
    longest = workers.SOCKET_NAME_LENGTH - 32
    base = tempfile.mkdtemp(dir="/tmp")
    folder = base + "/" + "x" * (longest - len(base) - 1)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    try:
        for each, code in ((folder, 0), (folder + "x", 1)):
            os.mkdir(each)
            ended = subprocess.run(
                [sys.executable, str(program)], capture_output=True, text=True,
                env=dict(os.environ, TMPDIR=each, PYTHONPATH=ROOT))
            assert ended.returncode == code, ended.stderr
        assert "set TMPDIR" in ended.stderr and "--workers 0" in ended.stderr
    finally:
        subprocess.run(["rm", "-r", base], check=True)


def test_without_workers_the_folder_does_not_matter(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 200)
    with BatchLoader({}, 0):
        pass
    with pytest.raises(UserError, match="set TMPDIR to a folder"):
        BatchLoader({}, 1)
