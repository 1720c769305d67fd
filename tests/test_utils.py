"""Safe lists, atomic files, exit codes."""

import errno
import os
import pickle
import stat
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from darknet_face.console import UserError, cli, number_type, printable, warn
from darknet_face.images.file_lists import load_list, relative_to_data, resolve, save_list
from darknet_face.runtime.atomic_files import (
    remove_leftovers,
    staged,
    temporary_path,
    write_atomically,
    write_json,
)
from darknet_face.runtime.safe_files import open_regular, read_json, regular_size, sha256


class Evil:
    """Unpickled by an ordinary unpickler, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def write(path, content):
    with open(str(path), "wb") as stream:
        stream.write(content)
    return str(path)


def test_lists_come_back(tmp_path):
    path = str(tmp_path / "deep" / "list.pickle")
    names = ["a.jpg", "b/ü.png", "/absolute/c.jpg"]
    save_list(path, names)
    assert load_list(path) == names
    with open(path, "rb") as stream:
        assert pickle.load(stream) == names, "any reader of pickles must be able to read it"


@pytest.mark.parametrize("protocol", range(5))
def test_lists_of_every_protocol_are_read(tmp_path, protocol):
    path = write(tmp_path / "list.pickle", pickle.dumps(["a", "b"], protocol))
    assert load_list(path) == ["a", "b"]


@pytest.mark.parametrize("protocol", range(5))
def test_a_hostile_pickle_executes_nothing(tmp_path, protocol):
    trace = str(tmp_path / "trace")
    path = write(tmp_path / "evil.pickle", pickle.dumps([Evil(trace)], protocol))
    with pytest.raises(UserError, match="evil.pickle"):
        load_list(path)
    assert not os.path.exists(trace)
    pickle.loads(pickle.dumps(Evil(trace), protocol)).close()
    assert os.path.exists(trace), "the pickle must be one that would have done harm"


@pytest.mark.parametrize("content", [
    b"",
    pickle.dumps(["a.jpg"] * 100)[:-20],
    b"not a pickle at all",
    pickle.dumps({"a": 1}),
    pickle.dumps([1, 2]),
    pickle.dumps([b"a.jpg"]),
    pickle.dumps([]),
    b"\x80\x02r\xff\xff\xff\xff.",  # a memo index of 2^32 - 1
    b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",  # a string of 2^63 - 1 bytes
    b"\x80\x02]" + b"(" * 5000,
])
def test_bad_lists_are_one_clear_error(tmp_path, content):
    path = write(tmp_path / "bad.pickle", content)
    with pytest.raises(UserError) as error:
        load_list(path, "run maker.py")
    assert path in str(error.value)
    assert error.value.exit_code == 2


def test_missing_list_names_the_remedy(tmp_path):
    with pytest.raises(UserError, match="no such file; run maker.py"):
        load_list(str(tmp_path / "none.pickle"), "run maker.py")


def test_failed_writes_leave_the_old_file_and_nothing_else(tmp_path):
    path = write(tmp_path / "file", b"old")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as stream:
        stream.write(b"half of the new")
        raise KeyboardInterrupt
    assert os.listdir(str(tmp_path)) == ["file"]
    with open(path, "rb") as stream:
        assert stream.read() == b"old"


def test_a_failed_write_names_the_file_and_not_the_temporary_one(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (str(tmp_path / "folder"), str(tmp_path / "none" / "file")):
        with pytest.raises(OSError) as error, temporary_path(path):
            pass
        assert error.value.filename == path
    with pytest.raises(OSError) as error, write_atomically(str(tmp_path / "full")):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path / "full")
    assert os.listdir(str(tmp_path)) == ["folder"]


def test_what_killed_writers_left_is_removed(tmp_path):
    foreign = [".partial-abc-other.pb", "file.pb", "other-file.pb"]
    for name in foreign + [".partial-abc-file.pb"]:
        (tmp_path / name).write_text("")
    remove_leftovers(str(tmp_path / "file.pb"))
    assert sorted(os.listdir(str(tmp_path))) == sorted(foreign)


def test_written_files_have_ordinary_permissions(tmp_path):
    path = str(tmp_path / "file")
    with write_atomically(path) as stream:
        stream.write(b"new")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask


def test_json_comes_back_and_bad_json_is_refused(tmp_path):
    path = str(tmp_path / "file.json")
    write_json(path, {"a": [1, 2.5, "ü"]})
    assert read_json(path) == {"a": [1, 2.5, "ü"]}
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100000):
        write(path, content)
        with pytest.raises(UserError, match="file.json"):
            read_json(path)


def test_names_under_the_data_folder_are_relative(tmp_path):
    data = str(tmp_path / "data")
    inside, outside = os.path.join(data, "x", "a.jpg"), str(tmp_path / "database" / "b.jpg")
    assert relative_to_data(inside, data) == os.path.join("x", "a.jpg")
    assert relative_to_data(outside, data) == outside
    assert resolve(relative_to_data(inside, data), data) == inside
    assert resolve(outside, data) == outside


@pytest.mark.parametrize("error, code", [
    (UserError("a: b\nsecond line; c"), 2),
    (UserError("failed", exit_code=1), 1),
    (PermissionError(13, "Permission denied", "file"), 2),
    (OSError(28, "No space left on device"), 2),
    (MemoryError(), 1),
    (KeyboardInterrupt(), 130),
])
def test_failures_are_one_line_and_an_exit_code(capsys, error, code):
    @cli
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "3"])
def test_numbers_out_of_range_are_refused(text):
    import argparse

    with pytest.raises(argparse.ArgumentTypeError):
        number_type(float, 0, 2)(text)
    assert number_type(float, 0, 2)("1.5") == 1.5


def test_a_full_disk_is_told_with_the_file(tmp_path):
    path = str(tmp_path / "list.pickle")
    with pytest.raises(OSError, match="No space left") as caught, write_atomically(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == path and os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("content", [
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400])
def test_numbers_that_are_not_finite_are_refused(tmp_path, content):
    path = write(tmp_path / "file.json", '{{"a": [1.5, {}]}}'.format(content).encode())
    with pytest.raises(UserError, match="file.json: not JSON .*not a finite number.*make it again"):
        read_json(path)


def test_pipes_and_devices_are_not_opened(tmp_path):
    pipe, device = str(tmp_path / "pipe"), str(tmp_path / "device")
    os.mkfifo(pipe)
    os.symlink("/dev/zero", device)
    for path in (pipe, device):
        for read in (open_regular, sha256):
            with pytest.raises(OSError, match="not a regular file") as caught:
                read(path)
            assert caught.value.filename == path
        with pytest.raises(UserError, match="not a regular file"):
            read_json(path)
    with pytest.raises(UserError, match="Is a directory"):
        read_json(str(tmp_path))
    os.symlink(write(tmp_path / "file", b"content"), str(tmp_path / "link"))
    with open_regular(str(tmp_path / "link")) as stream:
        assert stream.read() == b"content"


@pytest.mark.parametrize("name, shown", [
    ("größe 1.jpg", "größe 1.jpg"), ("日本.png", "日本.png"), ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
    ("\ufeffa.jpg", "\\ufeffa.jpg"), ("a\u200b.jpg", "a\\u200b.jpg"), ("a\u202egpj", "a\\u202egpj"),
    ("a\u00a0.jpg", "a\\xa0.jpg"), ("a\u3164", "a\\u3164"), ("\udcff", "\\udcff"),
    ("a\u2028b", "a\\u2028b"), ("a\u00ad", "a\\xad"), ("a\t", "a\\t")])
def test_invisible_characters_are_shown(name, shown):
    assert printable(name) == shown


def test_a_message_of_any_length_stays_readable(capsys):
    path, remedy = "/" + 4095 * "a", "make it again"
    warn("{}: no such file; {}".format(path, remedy))
    assert capsys.readouterr().err == "warning: {}: no such file; {}\n".format(path, remedy)
    warn("{}: no such file; {}".format(10 ** 6 * "b", remedy))
    line = capsys.readouterr().err
    assert len(line) < 11000 and line.endswith("no such file; make it again\n") and " ... " in line


def test_line_breaks_in_names_are_shown_in_messages(capsys):
    warn("a.jpg\n: no such file")
    warn("a\u3000b")
    assert capsys.readouterr().err == "warning: a.jpg\\n: no such file\nwarning: a\\u3000b\n"


PROGRAM = """
import sys
from tqdm import tqdm
from darknet_face.console import UserError, cli, progress, warn

@cli
def main():
    warn("careful")
    print("text")
    tqdm.write("more", file=sys.stdout)
    list(progress(range(3)))
    print(len(sys.stdin.buffer.read()))
    with open(sys.argv[1], "w") as stream:
        stream.write("whole")
    if len(sys.argv) > 2:
        raise UserError("file: bad; mend it")

main()
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("fails", [False, True])
def test_closed_standard_streams(tmp_path, closed, fails):
    path = str(tmp_path / "file")
    command = '"$0" -c "$1" "$2" {} {}'.format("fail" if fails else "", closed)
    ended = subprocess.run(["sh", "-c", command, sys.executable, PROGRAM, path], cwd=ROOT,
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == (2 if fails else 0)
    assert "Traceback" not in ended.stderr and "Exception" not in ended.stderr
    with open(path) as stream:
        assert stream.read() == "whole", "what is printed must not end up in a file"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path):
    ended = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" "$2" >/dev/full', sys.executable, PROGRAM,
         str(tmp_path / "file")], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True)
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["warning", "error"]
    assert "No space left" in ended.stderr


def test_a_reader_that_left_is_no_error(tmp_path):
    program = PROGRAM.replace('print("text")', 'print("text" * 100000)')
    ended = subprocess.run(
        ["sh", "-c", '{ "$0" -c "$1" "$2"; echo "code $?" >&2; } | true', sys.executable, program,
         str(tmp_path / "file")], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True)
    assert ended.stderr.splitlines() == ["warning: careful", "code 141"]


def test_a_warning_in_a_log_is_there_at_once():
    """Before the program ends, which os._exit does without writing what is kept back."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, "-c", "import os, utils; utils.warn('careful'); os._exit(0)"], cwd=ROOT,
        env=environment, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == "warning: careful\n"


def killed_writer(target, folder=False):
    """Start a program that writes ``target``, kill it half-way, and return what it left."""
    program = (
        "import sys, time; sys.path.insert(0, {root!r})\n"
        "from darknet_face.runtime import atomic_files\n"
        "with atomic_files.{call} as half:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n").format(
            root=ROOT, call="staged({!r})".format(target) if folder
            else "write_atomically({!r})".format(target))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("name", ["file.npz", "n" * 249 + ".npz"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, name):
    tmp_path = tmp_path / name[:4]  # a folder of its own: its listing is kept for a minute
    tmp_path.mkdir()
    target = str(tmp_path / name)
    for _ in range(2):
        process = killed_writer(target)
        process.kill()
        process.communicate()
        assert len(os.listdir(str(tmp_path))) == 1, "the second also removed the first's"
    with write_atomically(str(tmp_path / "other-file.npz")) as stream:
        stream.write(b"other")
    assert len(os.listdir(str(tmp_path))) == 2, "of this name alone"
    with write_atomically(target) as stream:
        stream.write(b"new")
    assert sorted(os.listdir(str(tmp_path))) == sorted([name, "other-file.npz"])


def test_what_a_live_writer_writes_stays(tmp_path):
    target = str(tmp_path / "file.npz")
    process = killed_writer(target)
    try:
        half, = os.listdir(str(tmp_path))
        with write_atomically(target) as stream:
            stream.write(b"new")
        remove_leftovers(target)
        assert sorted(os.listdir(str(tmp_path))) == sorted([half, "file.npz"])
    finally:
        process.kill()
        process.communicate()


def test_folders_are_left_over_too(tmp_path):
    process = killed_writer(str(tmp_path), folder=True)
    half, = os.listdir(str(tmp_path))
    (tmp_path / half / "conv.pickle").write_bytes(b"half")
    process.kill()
    process.communicate()
    with staged(str(tmp_path)) as folder:
        assert [os.path.basename(folder)] == os.listdir(str(tmp_path))
        with open(os.path.join(folder, "file"), "w") as stream:
            stream.write("whole")
    assert os.listdir(str(tmp_path)) == ["file"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path, existed):
    target = tmp_path / "new" / "out"
    if existed:
        target.mkdir(parents=True)
    with pytest.raises(UserError), staged(str(target)) as folder:
        open(os.path.join(folder, "half"), "w").close()
        raise UserError("no")
    assert target.exists() == target.parent.exists() == existed and not list(target.glob("*"))


@pytest.mark.parametrize("minutes, stays", [(10, True), (120, False)])
def test_a_writer_on_another_machine_is_given_an_hour(tmp_path, minutes, stays):
    half = tmp_path / ".partial-0a1b2c-4711-xyz_-file.npz"
    half.write_bytes(b"half")
    then = time.time() - 60 * minutes
    os.utime(str(half), (then, then))
    remove_leftovers(str(tmp_path / "file.npz"))
    assert half.exists() == stays


@pytest.mark.parametrize("name, extension", [
    ("n" * 249 + ".npz", ".npz"), ("ü" * 120 + ".png", ".png"), ("." + "n" * 250, ""),
    ("n." + "x" * 250, "")])
def test_long_names(tmp_path, name, extension):
    """The temporary name is no longer than a file system allows, and keeps the extension."""
    path = str(tmp_path / name)
    with temporary_path(path) as temporary:
        assert len(os.fsencode(os.path.basename(temporary))) <= 255
        assert os.path.splitext(temporary)[1] == extension
    assert os.listdir(str(tmp_path)) == [name]


def test_devices_have_no_length(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert regular_size(str(tmp_path / "file"), "name another") == 5
    for path, cause in ((tmp_path, "not a regular file"), ("/dev/zero", "not a regular file"),
                        (tmp_path / "none", "No such file"), ("a\0b", "null")):
        with pytest.raises(UserError, match=cause + ".*; name another"):
            regular_size(str(path), "name another")
