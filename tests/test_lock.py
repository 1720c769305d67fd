"""Two trainings in one folder: the second is refused and changes nothing."""

import errno
import os
import subprocess
import sys

import portalocker
import pytest
from conftest import ROOT

from darknet_face.console import UserError
from darknet_face.training.lock import HOLDER, NAME, locked
from darknet_face.training.settings import Settings

PROGRAM = """
import sys, time
from darknet_face.training.lock import locked_folders
with locked_folders({"--model-dir": sys.argv[1]}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path):
    return Settings(model_dir=str(tmp_path / "model"), log_dir=str(tmp_path / "logs"))


@pytest.fixture
def hold():
    """Hold the lock of a folder by another process, until the test ends or kills it."""
    holders = []

    def start(folder):
        holders.append(subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder], stdout=subprocess.PIPE, cwd=ROOT))
        assert holders[-1].stdout.readline() == b"held\n"
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("option, other", [("--model-dir", "logs"), ("--log-dir", "model")])
def test_a_second_training_is_refused(settings, hold, tmp_path, option, other):
    folder = settings.model_dir if option == "--model-dir" else settings.log_dir
    holder = hold(folder)
    expected = "process {} on .*choose another {}".format(holder.pid, option)
    with pytest.raises(UserError, match=expected):
        with locked(settings):
            pytest.fail("both hold it")
    assert not os.path.exists(str(tmp_path / other)), "a folder made for nothing is removed"


def test_the_lock_of_a_killed_training_does_not_stay(settings, hold):
    holder = hold(settings.model_dir)
    holder.kill()
    holder.wait()
    with locked(settings):
        with pytest.raises(UserError, match="process {} ".format(os.getpid())), locked(settings):
            pass


def test_nothing_is_left_of_it(settings, tmp_path):
    (tmp_path / "logs").mkdir()
    with locked(settings):
        (tmp_path / "model" / "notes.txt").write_text("mine")
    assert sorted(os.listdir(str(tmp_path))) == ["logs", "model"]
    assert os.listdir(settings.log_dir) == [] and os.listdir(settings.model_dir) == ["notes.txt"]


def test_one_folder_for_both(settings, hold, tmp_path):
    (tmp_path / "model").mkdir()
    os.symlink(settings.model_dir, settings.log_dir)
    for each in (settings._replace(log_dir=settings.model_dir), settings):
        with locked(each):
            assert os.listdir(settings.model_dir) == [HOLDER, NAME]


def test_the_range_test_may_run_beside_a_training_with_other_logs(settings, hold):
    hold(settings.model_dir)
    with locked(settings._replace(lr_range_test=True)):
        pass


def test_a_file_system_without_locks_is_warned_of(settings, monkeypatch, capsys):
    def refuse(*_):
        raise portalocker.LockException(OSError(errno.ENOLCK, "No locks available"))

    monkeypatch.setattr(portalocker, "lock", refuse)
    with locked(settings):
        pass
    assert capsys.readouterr().err.count("do not start a second training there") == 2


def test_files_that_cannot_be_removed_while_they_are_open(settings, monkeypatch):
    """As on Windows, where the names go after the lock."""
    remove = os.remove

    def remove_if_closed(name):
        links = ["/proc/self/fd/" + number for number in os.listdir("/proc/self/fd")]
        if any(os.path.exists(link) and os.path.samefile(link, name) for link in links):
            raise PermissionError(errno.EACCES, "The file is in use", name)
        remove(name)

    monkeypatch.setattr(os, "remove", remove_if_closed)
    with locked(settings):
        monkeypatch.setattr(os, "name", "nt")
    monkeypatch.undo()
    assert not os.path.exists(settings.model_dir)
