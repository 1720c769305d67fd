"""Setting up: which Python 3.7 is taken, and what is said when there is none."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = os.path.join(ROOT, "make_environment.sh")
FEW_PROGRAMS = ("sh", "dirname", "env")


@pytest.fixture
def bare(tmp_path):
    """A folder to work in, with a path that has no Python on it and a home without pyenv."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in FEW_PROGRAMS:
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def make_environment(folder, **variables):
    return subprocess.run(
        [shutil.which("sh"), SCRIPT, ".venv"], cwd=str(folder), capture_output=True, text=True,
        env=dict(PATH=str(folder / "bin"), HOME=str(folder), **variables))


def has_pip(folder):
    return subprocess.run([str(folder / ".venv" / "bin" / "python"), "-m", "pip", "--version"],
                          stdout=subprocess.DEVNULL).returncode == 0


def program(path, *lines):
    path.write_text("\n".join(("#!" + shutil.which("sh"),) + lines) + "\n")
    path.chmod(0o755)


def test_the_interpreter_named_is_taken_and_a_second_run_keeps_the_environment(bare):
    ended = make_environment(bare, PYTHON37=sys.executable)
    assert ended.returncode == 0 and sys.executable in ended.stdout
    assert has_pip(bare)
    again = make_environment(bare)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_without_a_python_3_7_one_line_says_how_to_get_one(bare):
    program(bare / "bin" / "python3.7", "exit 127")  # as pyenv's, where no 3.7 is chosen
    ended = make_environment(bare)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and "pyenv install 3.7" in ended.stderr
    assert not (bare / ".venv").exists()


@pytest.mark.parametrize("named", ["/nowhere/python3.7", "/", shutil.which("sh")])
def test_a_wrong_name_is_one_line(bare, named):
    ended = make_environment(bare, PYTHON37=named)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and named in ended.stderr


def test_what_uv_finds_gets_pip_too(bare):
    program(bare / "bin" / "uv", 'for folder; do :; done',
            '"{}" -m venv --without-pip "$folder"'.format(sys.executable))
    assert make_environment(bare).returncode == 0
    assert has_pip(bare)


def test_where_uv_finds_none_the_last_line_says_how_to_get_one(bare):
    program(bare / "bin" / "uv", "exit 2")
    ended = make_environment(bare)
    assert ended.returncode == 2 and "pyenv install 3.7" in ended.stderr.splitlines()[-1]


def test_an_environment_that_was_half_made_is_completed(bare):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare / ".venv")],
                   check=True)
    assert make_environment(bare).returncode == 0
    assert has_pip(bare)


def test_an_environment_whose_interpreter_has_gone_is_one_line(bare):
    (bare / ".venv" / "bin").mkdir(parents=True)
    (bare / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.7")
    ended = make_environment(bare, PYTHON37=sys.executable)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and ".venv" in ended.stderr
