"""What several scripts share: exit codes and console, atomic files, lists and JSON.

Every script wraps its ``main`` in :func:`cli`, writes files through :func:`write_atomically` and
reads file lists through :func:`load_list`, so that bad input looks the same everywhere: one line
on stderr that names the file, the cause and the remedy, and exit code 2.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
import time
import unicodedata

from tqdm import tqdm

PARTIAL = ".partial-"  # how names of temporary files begin
# Then come the writer's machine and process, something random, and the file's own name.
_TEMPORARY = re.compile(
    r"\.partial-((?P<machine>[0-9a-f]{6})-(?P<pid>[0-9]+)-)?[^-]+-(?P<name>.*)", re.DOTALL)
_listed = {}  # by folder: when its temporary names were last looked for, and what they were
LONGEST_NAME = 200  # bytes of the file's own name
LEFT_AFTER = 3600


class UserError(Exception):
    """A failure that the person at the keyboard can mend.

    Parameters
    ----------
    message : str
        One line: the file, the cause and the remedy.
    exit_code : int
        2 for bad input (the default), 1 for a run that failed on good input.
    """

    def __init__(self, message, exit_code=2):
        super().__init__(message)
        self.exit_code = exit_code


def cli(main):
    """Decorate a script's ``main`` so that a failure is one line on stderr and an exit code.

    :class:`UserError` exits with its own code, an operating-system error (disk full, permission
    denied) with 2, Ctrl-C with 130 and a closed output pipe with 141, as the shell reports them.
    What standard output's encoding lacks is written as an escape, not failed on.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        if getattr(sys.stdout, "errors", None) == "strict":  # some names have no spelling in it
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print_error(error)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print_error("interrupted")
            sys.exit(130)
        except BrokenPipeError:
            # The reader (`| head`) has gone; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except OSError as error:
            where = "{}: ".format(error.filename) if error.filename else ""
            print_error("{}{}; check the path, its permissions and the free disk space".format(
                where, error.strerror or error))
            sys.exit(2)

    return wrapper


def printable(text):
    """A file's name as one line of text, whatever bytes it holds.

    Control characters (a line break; an escape that would recolour the terminal) and bytes that
    are not UTF-8 become escapes such as ``\\n``.
    """
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in UNPRINTABLE
        else each for each in text)


UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control, surrogate and line-breaking characters


def print_error(message):
    """Print one line to stderr, whatever line breaks the message carries."""
    print("error: " + _one_line(message), file=sys.stderr)


def warn(message):
    """Print a one-line warning to stderr without tearing a progress bar."""
    tqdm.write("warning: " + _one_line(message), file=sys.stderr)


def _one_line(message):
    return printable(" ".join(str(message).split()))


def progress(iterable=None, **options):
    """A tqdm progress bar on stderr that stays quiet when stderr is not a terminal."""
    return tqdm(iterable, disable=not sys.stderr.isatty(), dynamic_ncols=True, **options)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds each option's default to its help, where there is one that the help does not tell."""

    def _get_help_string(self, action):
        tells = action.default is None or action.default is False or "(default:" in action.help
        return action.help if tells else super()._get_help_string(action)


def number_type(convert, low, high=None):
    """An argparse ``type`` for a finite number in ``[low, high]``.

    Parameters
    ----------
    convert : type
        ``int`` or ``float``.
    low, high : number
        Inclusive bounds; ``high=None`` leaves the upper end open.
    """

    def parse(text):
        value = convert(text)
        if not low <= value <= (float("inf") if high is None else high) or value == float("inf"):
            bounds = "at least {}".format(low) if high is None else "{} to {}".format(low, high)
            raise argparse.ArgumentTypeError("{} is out of range: {}".format(text, bounds))
        return value

    parse.__name__ = convert.__name__
    return parse


@contextlib.contextmanager
def write_atomically(path, mode="wb", **options):
    """Open a temporary file beside ``path`` and rename it to ``path`` once it is whole.

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
def temporary_path(path):
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
def temporary_folder(folder, name):
    """Yield a new folder within ``folder``, removed when the block ends.

    Parameters
    ----------
    folder : str
        Made if it is missing.
    name : str
        What it is for: what killed programs left under the same name is removed.
    """
    os.makedirs(folder, exist_ok=True)
    _remove_known_leftovers(os.path.abspath(folder), name)
    temporary = tempfile.mkdtemp(dir=folder, prefix=_temporary_prefix(), suffix="-" + name)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def staged(folder):
    """Yield a temporary folder; what is put in it moves to ``folder`` if the block succeeds.

    Files replace those of the same name, one after the other; folders must be new.
    """
    with temporary_folder(folder, "staged") as temporary:
        yield temporary
        for name in sorted(os.listdir(temporary)):
            os.replace(os.path.join(temporary, name), os.path.join(folder, name))


def remove_leftovers(path):
    """Remove what killed programs left beside ``path`` of their writing it.

    A temporary file or folder is left over if its writer is dead. Of a writer on another machine
    that can't be known: then it is left over after :data:`LEFT_AFTER` seconds without a change.
    """
    folder, name = os.path.split(os.path.abspath(path))
    _remove_leftovers(folder, name, _temporary_names(folder))


def _remove_known_leftovers(folder, name):
    """The same, but a folder is listed once a minute at most: it may hold 100,000 pictures."""
    now = time.monotonic()
    listed_at, names = _listed.get(folder, (None, ()))
    if listed_at is None or now - listed_at > 60:
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
    if match.group("machine") != _machine():
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


def regular_size(path, remedy):
    """A file's length in bytes.

    Raises
    ------
    UserError
        Missing, or a device, pipe or folder, which have no length: reading one could hang.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UserError("{}: {}; {}".format(path, getattr(error, "strerror", error), remedy))
    if not stat.S_ISREG(status.st_mode):
        raise UserError("{}: not a regular file; {}".format(path, remedy))
    return status.st_size


def read_json(path, remedy="make it again"):
    """Read a JSON object.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        Missing, damaged or not an object.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        raise UserError("{}: no such file; {}".format(path, remedy))
    except (ValueError, RecursionError) as error:
        raise UserError("{}: not JSON ({}); {}".format(path, error, remedy))
    if not isinstance(content, dict):
        raise UserError("{}: not a JSON object; {}".format(path, remedy))
    return content


def write_json(path, content):
    """Write a JSON file, indented, for people to read too."""
    with write_atomically(path, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


