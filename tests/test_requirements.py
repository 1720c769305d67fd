"""What the requirements files install, and what a script says where they are not installed."""

import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location(
    "opencv_python", os.path.join(ROOT, "wheels", "opencv_python.py"))
opencv_python = importlib.util.module_from_spec(spec)
spec.loader.exec_module(opencv_python)


def test_the_empty_wheel_is_what_its_program_writes(tmp_path):
    path = str(tmp_path / "again.whl")
    opencv_python.write(path)
    with open(path, "rb") as again, open(opencv_python.WHEEL, "rb") as kept:
        assert again.read() == kept.read()


def test_the_empty_wheel_has_no_module():
    with zipfile.ZipFile(opencv_python.WHEEL) as wheel:
        assert {os.path.dirname(name) for name in wheel.namelist()} == {
            "opencv_python-4.14.0.94+headless.dist-info"}


@pytest.mark.parametrize("name", ["requirements-tf1-common.txt", "requirements-tf2.txt"])
def test_both_runtimes_take_the_opencv_without_windows(name):
    with open(os.path.join(ROOT, name)) as file:
        lines = [line.split("#")[0].strip() for line in file]
    assert [line for line in lines if "opencv" in line] == [
        "opencv-python-headless==" + opencv_python.VERSION,
        "opencv-python=={}+headless".format(opencv_python.VERSION)]
    assert "--find-links wheels" in lines


@pytest.mark.parametrize("script", sorted(
    name for name in os.listdir(ROOT) if name.endswith(".py") and name != "utils.py"))
def test_a_script_outside_the_environment_is_one_line(script):
    # -S leaves out the folder that packages are installed in.
    ended = subprocess.run([sys.executable, "-S", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1 and "run make" in ended.stderr
    assert "pip install ." in ended.stderr


def test_a_script_in_an_environment_for_answers_only_is_one_line(tmp_path):
    module = tmp_path / "portalocker.py"
    module.write_text("raise ModuleNotFoundError(name='portalocker')\n")
    ended = subprocess.run([sys.executable, "train.py", "--epochs", "1"], cwd=ROOT, text=True,
                           capture_output=True, env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert ended.returncode == 2 and ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1 and "has no portalocker" in ended.stderr


def test_other_errors_of_a_script_keep_their_traceback(tmp_path):
    (tmp_path / "portalocker.py").write_text("raise RuntimeError('broken')\n")
    ended = subprocess.run([sys.executable, "train.py"], cwd=ROOT, text=True, capture_output=True,
                           env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert ended.returncode == 1 and ended.stderr.endswith("RuntimeError: broken\n")
