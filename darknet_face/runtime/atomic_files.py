"""Files written to a temporary name and renamed, and what killed writers left of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import typing

PARTIAL = ".partial-"  # how names of temporary files begin
# Then come the writer's machine and process, something random, and the file's own name.
_TEMPORARY = re.compile(
    r"\.partial-((?P<machine>[0-9a-f]{6})-(?P<pid>[0-9]+)-)?[^-]+-(?P<name>.*)", re.DOTALL)
# By folder: when its temporary names were last looked for, and what they were.
_listed: dict[str, tuple[float, list[str]]] = {}
LONGEST_NAME = 200  # bytes of the file's own name
LEFT_AFTER = 3600


@contextlib.contextmanager
def write_atomically(
        path: str, mode: str = "wb", **options: typing.Any) -> typing.Iterator[typing.IO]:
    """Open a temporary file beside ``path`` and rename it to ``path`` when it is complete.

    On any failure, Ctrl-C included, the temporary file is removed and an older ``path`` stays as
    it was. Missing folders are made. ``options`` go to :func:`open`.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with temporary_path(path) as temporary, open(temporary, mode, **options) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def temporary_path(path: str) -> typing.Iterator[str]:
    """Yield a temporary name beside ``path``, renamed to ``path`` if the block succeeds.

    For writers that insist on opening the file themselves. The name keeps the extension, since
    many of them choose the format by it. What killed writers of the same file left is removed.
    """
    folder, name = os.path.split(os.path.abspath(path))
    _remove_known_leftovers(folder, name)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(
            dir=folder, prefix=_temporary_prefix(), suffix="-" + _shortened(name))
        os.close(handle)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner reads
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
        if isinstance(error, OSError) and PARTIAL in str(error.filename or PARTIAL):
            error.filename = path  # a full disk names none, others one that nobody knows
        raise


@contextlib.contextmanager
def temporary_folder(folder: str, name: str) -> typing.Iterator[str]:
    """Yield a new folder within ``folder``, removed when the block ends.

    Parameters
    ----------
    folder
        Made if it is missing, and removed again if the block fails.
    name
        What it is for: what killed programs left under the same name is removed.
    """
    missing = _missing_folders(folder)
    os.makedirs(folder, exist_ok=True)
    _remove_known_leftovers(os.path.abspath(folder), name)
    temporary = tempfile.mkdtemp(dir=folder, prefix=_temporary_prefix(), suffix="-" + name)
    is_whole = False
    try:
        yield temporary
        is_whole = True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for each in () if is_whole else missing:
            with contextlib.suppress(OSError):  # something is in it
                os.rmdir(each)


def _missing_folders(folder: str) -> list[str]:
    """What :func:`os.makedirs` will make, the deepest first."""
    missing, place = [], os.path.abspath(folder)
    while not os.path.lexists(place):
        missing.append(place)
        place = os.path.dirname(place)
    return missing


@contextlib.contextmanager
def staged(folder: str) -> typing.Iterator[str]:
    """Yield a temporary folder; what is put in it moves to ``folder`` if the block succeeds.

    Files replace those of the same name, one after the other; folders must be new. An OSError
    names a file as it would be called in ``folder``. A ``folder`` that was made for a block that
    fails is removed.
    """
    with temporary_folder(folder, "staged") as temporary:
        try:
            yield temporary
            for name in sorted(os.listdir(temporary)):
                os.replace(os.path.join(temporary, name), os.path.join(folder, name))
        except OSError as error:
            path, inside = os.path.abspath(str(error.filename)), os.path.abspath(temporary)
            if path.startswith(os.path.join(inside, "")):
                error.filename = os.path.join(folder, os.path.relpath(path, inside))
            raise


def remove_leftovers(path: str) -> None:
    """Remove what killed programs left beside ``path`` of their writing it.

    A temporary file or folder is left over if its writer is dead. Of a writer on another machine,
    or on Windows, that can't be known: then it is left over after :data:`LEFT_AFTER` seconds
    without a change.
    """
    folder, name = os.path.split(os.path.abspath(path))
    _remove_leftovers(folder, name, _temporary_names(folder))


def _remove_known_leftovers(folder: str, name: str) -> None:
    """The same, but a folder is listed once a minute at most: it may hold 100,000 images."""
    now = time.monotonic()
    listed_at, names = _listed.get(folder, (now - 61, []))
    if now - listed_at > 60:
        if len(_listed) >= 1000:
            _listed.clear()
        names = _temporary_names(folder)
        _listed[folder] = now, names
    _remove_leftovers(folder, name, names)


def _temporary_names(folder):
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name.startswith(PARTIAL)]
    return []


def _remove_leftovers(folder, name, temporary_names):
    for temporary in temporary_names:
        match = _TEMPORARY.match(temporary)
        path = os.path.join(folder, temporary)
        if match and match.group("name") == _shortened(name) and _is_left(path, match):
            with contextlib.suppress(FileNotFoundError):
                if os.path.isdir(path):
                    shutil.rmtree(path)
                else:
                    os.remove(path)


def _is_left(path, match):
    """Whether the writer of a temporary file is gone."""
    if not match.group("pid"):  # of an older version of this program
        return True
    if match.group("machine") != _machine() or os.name == "nt":  # there os.kill() would end it
        with contextlib.suppress(OSError):
            return time.time() - os.stat(path).st_mtime > LEFT_AFTER
        return False
    try:
        os.kill(int(match.group("pid")), 0)
    except PermissionError:
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return False


def _temporary_prefix():
    return "{}{}-{}-".format(PARTIAL, _machine(), os.getpid())


@functools.lru_cache(maxsize=None)
def _machine():
    """Where a process number means something: this machine, and the container on it."""
    with contextlib.suppress(OSError):
        return _digest(socket.gethostname() + os.readlink("/proc/self/ns/pid"))[:6]
    return _digest(socket.gethostname())[:6]


def _shortened(name):
    """A name that leaves room for the prefix within a file system's 255 bytes."""
    extension = os.path.splitext(name)[1]
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    return _digest(name)[:16] + (extension if len(os.fsencode(extension)) <= 32 else "")


def _digest(text):
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def write_json(path: str, content: typing.Any) -> None:
    """Write a JSON file, indented, for people to read too."""
    with write_atomically(path, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")
