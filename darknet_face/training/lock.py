"""One training at a time in a folder: two would delete each other's checkpoints."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import typing

import portalocker

from darknet_face.console import UserError, warn
from darknet_face.runtime import distributed

if typing.TYPE_CHECKING:
    from darknet_face.training.settings import Settings

NAME = ".train.lock"
HOLDER = ".train.holder"  # says who holds it: Windows lets nobody read a locked file


@contextlib.contextmanager
def locked(settings: Settings) -> typing.Iterator[typing.Any]:
    """Hold the folders of train.py for the block: see :func:`locked_folders`. Rank 0 holds them.
    """
    options = {"--log-dir": settings.log_dir}
    if not settings.lr_range_test:
        options["--model-dir"] = settings.model_dir
    with locked_folders({} if distributed.rank() else options):
        yield


@contextlib.contextmanager
def locked_folders(options: dict[str, str]) -> typing.Iterator[typing.Any]:
    """Hold the folders of a training for the block, if no other process does.

    The operating system ends a lock with the process that holds it, however that ends. Folders
    that do not exist are made, and removed again if they stay empty.

    Parameters
    ----------
    options
        The folders, by the options that name them.

    Raises
    ------
    UserError
        When another process holds one of them.
    """
    by_path = {os.path.realpath(folder): (option, folder) for option, folder in options.items()}
    with contextlib.ExitStack() as stack:
        for path in sorted(by_path):
            stack.enter_context(_locked(path, *by_path[path]))
        yield


@contextlib.contextmanager
def _locked(path, option, folder):
    is_new = not os.path.exists(path)
    os.makedirs(path, exist_ok=True)
    names = os.path.join(path, NAME), os.path.join(path, HOLDER)
    stream = _open_locked(*names, option, folder)
    try:
        with open(names[1], "w") as holder:
            holder.write("process {} on {}".format(os.getpid(), socket.gethostname()))
        yield
    finally:
        _remove(names)  # while it is locked, so that nobody else's file is removed
        stream.close()
        if os.name == "nt":  # no open file can be removed there
            _remove(names)
        if is_new:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(path)


def _remove(names):
    for name in names:
        with contextlib.suppress(OSError):
            os.remove(name)


def _open_locked(name, holder_name, option, folder):
    """Open the lock file and lock it."""
    while True:
        stream = open(name, "a")  # noqa: SIM115 (closed by the caller)
        try:
            portalocker.lock(stream, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.LockException as error:
            if not _is_held(error):  # some network file systems have no locks
                warn("{}: cannot be locked ({}); do not start a second training there".format(
                    folder, error.args[0]))
                return stream
            stream.close()
            raise UserError("{}: another training is using this folder{}; wait until it has ended "
                            "or choose another {}".format(folder, _told(holder_name), option))
        # The one that held the lock before may have removed the file between open and lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), os.stat(name)):
                return stream
        stream.close()


def _is_held(error):
    """Whether another process holds the lock; portalocker 2 has one error for all causes."""
    return isinstance(error, portalocker.AlreadyLocked) or (
        getattr(error.args[0], "errno", None) in (errno.EACCES, errno.EAGAIN))


def _told(holder_name):
    """Who holds the lock, in brackets, if that is told."""
    with contextlib.suppress(OSError), open(holder_name) as stream:
        return " ({})".format(stream.read(200).strip())
    return ""
