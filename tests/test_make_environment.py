"""Setting up: which runtime and interpreter are taken, and what is said when there is none."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = os.path.join(ROOT, "make_environment.sh")
FEW_PROGRAMS = ("sh", "dirname", "env")
RUNTIME = "tf1" if sys.version_info < (3, 8) else "tf2"
VARIABLE = {"tf1": "PYTHON37", "tf2": "PYTHON3"}[RUNTIME]
PROGRAM = {"tf1": "python3.7", "tf2": "python3"}[RUNTIME]
REMEDY = {"tf1": "pyenv install 3.7", "tf2": "python3-venv"}[RUNTIME]


@pytest.fixture
def bare(tmp_path):
    """A folder to work in, with a path that has no Python on it and a home without pyenv."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in FEW_PROGRAMS:
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def run(folder, *arguments, **variables):
    return subprocess.run(
        [shutil.which("sh"), SCRIPT] + list(arguments), cwd=str(folder), capture_output=True,
        text=True, env=dict(PATH=str(folder / "bin"), HOME=str(folder), **variables))


def make_environment(folder, **variables):
    return run(folder, RUNTIME, ".venv", **variables)


def choose(folder, **variables):
    ended = run(folder, "choose", **variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()


def has_pip(folder):
    return subprocess.run([str(folder / ".venv" / "bin" / "python"), "-m", "pip", "--version"],
                          stdout=subprocess.DEVNULL).returncode == 0


def program(path, *lines):
    path.write_text("\n".join(("#!" + shutil.which("sh"),) + lines) + "\n")
    path.chmod(0o755)


def test_the_interpreter_named_is_taken_and_a_second_run_keeps_the_environment(bare):
    ended = make_environment(bare, **{VARIABLE: sys.executable})
    assert ended.returncode == 0 and sys.executable in ended.stdout
    assert has_pip(bare)
    again = make_environment(bare)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_without_an_interpreter_one_line_says_how_to_get_one(bare):
    program(bare / "bin" / PROGRAM, "exit 127")  # as pyenv's, where no version is chosen
    ended = make_environment(bare)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and REMEDY in ended.stderr
    assert not (bare / ".venv").exists()


@pytest.mark.parametrize("named", ["/nowhere/python3", "/", shutil.which("sh")])
def test_a_wrong_name_is_one_line(bare, named):
    ended = make_environment(bare, **{VARIABLE: named})
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
    assert ended.returncode == 2 and REMEDY in ended.stderr.splitlines()[-1]


def test_an_environment_that_was_half_made_is_completed(bare):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare / ".venv")],
                   check=True)
    assert make_environment(bare).returncode == 0
    assert has_pip(bare)


def test_an_environment_whose_interpreter_has_gone_is_one_line(bare):
    (bare / ".venv" / "bin").mkdir(parents=True)
    (bare / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.7")
    ended = make_environment(bare, **{VARIABLE: sys.executable})
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and ".venv" in ended.stderr


def fake_python(path, version, has_ensurepip=True, machine="x86_64"):
    """An interpreter that answers the script's questions as one of that version would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prelude = ("import sys, platform; sys.version_info = {!r}; "
               "platform.machine = lambda: {!r}".format(version, machine))
    if not has_ensurepip:
        prelude += "; sys.modules['ensurepip'] = None"
    program(path,
            '[ "$1" = -c ] && exec "{}" -c "{}; $2"'.format(sys.executable, prelude),
            '[ "$1" = --version ] && echo "Python {}.{}.{}"'.format(*version))


def test_a_python_3_7_is_preferred(bare):
    fake_python(bare / "bin" / "python3", (3, 12, 1))
    assert choose(bare) == "tf2"
    fake_python(bare / "bin" / "python3.7", (3, 7, 16))
    assert choose(bare) == "tf1"


def test_a_python_3_7_of_pyenv_s_is_found(bare):
    fake_python(bare / ".pyenv" / "versions" / "3.7.16" / "bin" / "python3", (3, 7, 16))
    assert choose(bare) == "tf1"
    assert choose(bare, PYENV_ROOT=str(bare / "bin")) == "none"


def test_a_python_3_7_without_a_tensorflow_for_its_processor_does_not_count(bare):
    fake_python(bare / "bin" / "python3.7", (3, 7, 16), machine="aarch64")
    assert choose(bare) == "none"
    fake_python(bare / "bin" / "python3.10", (3, 10, 0), machine="aarch64")
    assert choose(bare) == "tf2"


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 8, 0), (2, 7, 18)])
def test_other_pythons_are_passed_over(bare, version):
    fake_python(bare / "bin" / "python3", version)
    assert choose(bare) == "none"
    ended = run(bare, "none")
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert "3.10 to 3.13" in ended.stderr and "pyenv install 3.7" in ended.stderr


@pytest.mark.parametrize("asked", [("none",), ("tf2", ".venv")])
def test_a_python_newer_than_tensorflow_still_classifies(bare, asked):
    fake_python(bare / "bin" / "python3", (3, 14, 0))
    assert choose(bare) == "none"
    ended = run(bare, *asked)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert "found Python 3.14.0" in ended.stderr and "-m pip install ." in ended.stderr
    assert "training needs Python 3.10 to 3.13" in ended.stderr


def test_taking_an_old_python_beside_a_current_one_is_said_in_the_first_line(bare):
    fake_python(bare / "bin" / "python3.7", (3, 7, 16))
    line = run(bare, "tf1", ".venv", CHOSEN="automatically").stdout.splitlines()[0]
    assert "since there is a Python 3.7" in line and "no security fixes" not in line
    shutil.rmtree(str(bare / ".venv"), ignore_errors=True)
    fake_python(bare / "bin" / "python3.12", (3, 12, 1))
    line = run(bare, "tf1", ".venv", CHOSEN="automatically").stdout.splitlines()[0]
    assert "no security fixes" in line and "Python 3.12.1" in line and "RUNTIME=tf2" in line


def test_a_named_interpreter_decides(bare):
    assert choose(bare, PYTHON37="/anything") == "tf1"
    assert choose(bare, PYTHON3="/anything") == "tf2"


def test_of_several_current_pythons_the_newest_that_works_is_taken(bare):
    program(bare / "bin" / "python3.13", "exit 127")
    fake_python(bare / "bin" / "python3.11", (3, 11, 7))
    fake_python(bare / "bin" / "python3", (3, 10, 2))
    fake_python(bare / ".pyenv" / "versions" / "3.12.1" / "bin" / "python3", (3, 12, 1))
    ended = run(bare, "tf2", ".venv", CHOSEN="automatically")
    assert len(ended.stdout.splitlines()) == 1
    assert "TensorFlow 2 on Python 3.12.1 ({}/.pyenv/".format(bare) in ended.stdout
    assert "since there is no Python 3.7" in ended.stdout


def test_a_debian_python_without_venv_is_one_line(bare):
    fake_python(bare / "bin" / "python3", (3, 11, 2), has_ensurepip=False)
    runtime = choose(bare)
    assert runtime == "none"
    for asked in (runtime, "tf2"):
        ended = run(bare, asked, ".venv")
        assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
        assert "apt-get install python3.11-venv" in ended.stderr
    assert not (bare / ".venv").exists()


def test_an_unknown_runtime_is_one_line(bare):
    ended = run(bare, "tf3", ".venv")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and "RUNTIME=tf3" in ended.stderr


def test_an_environment_of_the_other_runtime_is_one_line(bare):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare / ".venv")],
                   check=True)
    ended = run(bare, "tf2" if RUNTIME == "tf1" else "tf1", ".venv")
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert "not an environment of" in ended.stderr


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def planned(folder, *arguments):
    """What make would do, without doing it."""
    for name in ("bash", "make"):
        if not (folder / "bin" / name).exists():
            (folder / "bin" / name).symlink_to(shutil.which(name))
    return subprocess.run(
        ["make", "--dry-run", "setup", "VENV=" + str(folder / "no-such")] + list(arguments),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=dict(PATH=str(folder / "bin"), HOME=str(folder), PYENV_ROOT=str(folder)))


@needs_make
@pytest.mark.parametrize("arguments, runtime, requirements", [
    (("RUNTIME=tf1",), "tf1", "requirements.txt"),
    (("RUNTIME=tf2",), "tf2", "requirements-tf2.txt"),
    (("REQUIREMENTS=requirements-mkl.txt",), "tf1", "requirements-mkl.txt"),
    (("REQUIREMENTS=requirements-tf2-gpu.txt",), "tf2", "requirements-tf2-gpu.txt"),
    (("PYTHON37=python3.7",), "tf1", "requirements.txt"),
    (("PYTHON3=python3",), "tf2", "requirements-tf2.txt"),
])
def test_make_takes_the_runtime_asked_for(bare, arguments, runtime, requirements):
    plan = planned(bare, *arguments).stdout
    assert "make_environment.sh {} {}".format(runtime, bare / "no-such") in plan
    assert "-r {} ".format(requirements) in plan


@needs_make
def test_make_refuses_the_other_runtime_s_requirements(bare):
    ended = planned(bare, "RUNTIME=tf2", "REQUIREMENTS=requirements-mkl.txt")
    assert ended.returncode == 2
    assert len(ended.stdout.splitlines()) == 1 and "requirements-mkl.txt" in ended.stdout


def test_find_names_the_interpreter_of_a_runtime_or_nothing(bare):
    assert run(bare, "find", "tf2").stdout == run(bare, "find", "tf1").stdout == ""
    fake_python(bare / "bin" / "python3.12", (3, 12, 1))
    assert run(bare, "find", "tf2").stdout == "python3.12\n"
    assert run(bare, "find", "tf1").stdout == ""
