"""What Windows and macOS lack is simulated: fork, fcntl, files that can be replaced while open."""

import json
import ntpath
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from darknet_face.classify import find_inputs
from darknet_face.images.file_lists import relative_to_data
from darknet_face.images.samples import sample_images
from darknet_face.runtime import atomic_files
from darknet_face.runtime.safe_files import open_regular

# Runs before the program: this process then has what Python has under Windows.
WITHOUT = """
import multiprocessing.context, os, signal, sys
for name in ("fcntl", "grp", "posix_ipc", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getpgid",
             "killpg", "setsid", "chown", "fchmod", "fchown", "mkfifo", "sync",
             "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGPIPE", "SIGCHLD", "alarm"):
    if hasattr(signal, name):
        delattr(signal, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
methods = multiprocessing.context._concrete_contexts
del methods["fork"], methods["forkserver"]
multiprocessing.context._default_context = multiprocessing.context.DefaultContext(methods["spawn"])

def is_open(path):
    links = ["/proc/self/fd/" + number for number in os.listdir("/proc/self/fd")]
    return any(os.path.exists(link) and os.path.samefile(link, path) for link in links)

def refusing(function):
    def call(*paths):
        for path in paths:
            if os.path.exists(path) and is_open(path):
                raise PermissionError(13, "The process cannot access the file", path)
        return function(*paths)
    return call

os.replace, os.rename, os.remove, os.unlink = map(
    refusing, (os.replace, os.rename, os.remove, os.unlink))
"""
CLASSIFY = WITHOUT + """
sys.argv[0] = "darknet-face"
from darknet_face.command import main
main()
"""
LOAD = WITHOUT + """
from darknet_face.training.workers import BatchLoader

class Source:
    def batch(self, step):
        return step, os.getpid(), []

if __name__ == "__main__":
    with BatchLoader({"a": Source()}, 1) as loader:
        (_, worker), (last, _) = loader.stream("a", 0, 2)
    assert worker != os.getpid() and last == 1
"""
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


@needs_proc
def test_images_are_classified(tiny_model, tmp_path):
    """With tables, resumed, a contact sheet, a heat map and sorted files."""
    images = sample_images()[:3]
    outputs = ["--csv", "out.csv", "--json", "out.json", "--contact-sheet", "sheet.png",
               "--heatmap", "maps", "--sort-into", "sorted"]
    for arguments in (images[:2], images + ["--resume"]):
        ended = subprocess.run(
            [sys.executable, "-c", CLASSIFY, *arguments, *outputs, "--weights", tiny_model.npz,
             "--search", "off", "--engine", "onnxruntime"], cwd=str(tmp_path), text=True,
            capture_output=True, env=dict(os.environ, PYTHONPATH=ROOT))
        assert ended.returncode == 0, ended.stderr
    assert "were done before" in ended.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    assert [row["file"] for row in rows] == images
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4
    assert (tmp_path / "sheet.png").stat().st_size and len(os.listdir(str(tmp_path / "maps"))) == 3


@needs_proc
def test_the_server_starts(tiny_model):
    program = WITHOUT + "from darknet_face.serving.command import main; main(sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", program, "--weights", tiny_model.npz, "--host", "203.0.113.1"],
        cwd=ROOT, capture_output=True, text=True)
    assert "--port 0 takes a free one" in ended.stderr.splitlines()[-1]


def test_workers_are_started_anew_where_there_is_no_fork(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(LOAD)
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True,
                           env=dict(os.environ, PYTHONPATH=ROOT))
    assert ended.returncode == 0, ended.stderr


def test_no_process_is_asked_whether_it_lives_where_that_would_end_it(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    with pytest.raises(KeyboardInterrupt), atomic_files.temporary_path(str(path)):
        name, = os.listdir(str(tmp_path))
        raise KeyboardInterrupt
    left = tmp_path / name
    left.write_text("of another program that still writes")
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("this would end it"))
    atomic_files.remove_leftovers(str(path))
    assert left.exists()
    os.utime(str(left), (0, 0))
    atomic_files.remove_leftovers(str(path))
    assert not left.exists()


def test_files_open_where_nothing_can_be_opened_without_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("darknet_face.runtime.safe_files.NONBLOCK", 0)
    (tmp_path / "a").write_text("content")
    with open_regular(str(tmp_path / "a"), "r") as stream:
        assert stream.read() == "content"


@pytest.fixture
def on_windows(monkeypatch):
    """The paths of Windows in this project's functions that take them apart."""
    monkeypatch.setattr(ntpath, "isdir", lambda path: "." not in path, raising=False)
    monkeypatch.setattr(os, "path", ntpath)
    monkeypatch.setattr(os, "sep", "\\")
    monkeypatch.setattr(os, "altsep", "/")


def test_names_of_several_drives(on_windows):
    assert find_inputs._shared_folder([r"C:\a\b", r"C:\a\c.png"]) == r"C:\a"
    assert find_inputs._below(r"C:\a", r"C:\a\b\d.png") == r"b\d.png"
    shared = find_inputs._shared_folder([r"C:\a\b.png", r"D:\a\b.png"])
    assert [find_inputs._below(shared, path) for path in (
        r"C:\a\b.png", r"D:\a\b.png", r"\\host\share\b.png")] == [
        r"C\a\b.png", r"D\a\b.png", r"host\share\b.png"]
    assert relative_to_data(r"D:\b.png", r"C:\data") == r"D:\b.png"
    assert relative_to_data(r"C:\data\b.png", "C:\\data\\") == "b.png"


def test_patterns_with_the_other_slash(monkeypatch, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_text("")
    monkeypatch.setattr(os, "altsep", "|")
    assert list(find_inputs._matches(str(tmp_path) + "|**|*.png", None)) == [
        str(tmp_path / "a" / "b.png")]
