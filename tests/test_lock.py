"""Two trainings in one folder: the second is refused and changes nothing."""

import os
import subprocess
import sys

import pytest

from darknet_face.console import UserError
from darknet_face.training.lock import NAME, locked
from darknet_face.training.settings import Settings

HOLDER = """
import fcntl, sys, time
stream = open(sys.argv[1], "a+")
fcntl.flock(stream, fcntl.LOCK_EX)
stream.write("process 1 on earth")
stream.flush()
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
        os.makedirs(folder, exist_ok=True)
        holders.append(subprocess.Popen(
            [sys.executable, "-c", HOLDER, os.path.join(folder, NAME)], stdout=subprocess.PIPE))
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
    hold(folder)
    with pytest.raises(UserError, match="process 1 on earth.*choose another " + option):
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
            assert os.listdir(settings.model_dir) == [NAME]


def test_the_range_test_may_run_beside_a_training_with_other_logs(settings, hold):
    hold(settings.model_dir)
    with locked(settings._replace(lr_range_test=True)):
        pass
