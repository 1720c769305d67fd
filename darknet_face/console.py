"""The conventions of the command line: exit codes, messages on one line, progress bars, number
options.

Every script wraps its ``main`` in :func:`cli`. Bad input then looks the same everywhere: one line
on stderr with the file, the cause and the remedy, and exit code 2.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import typing

from tqdm import tqdm


class UserError(Exception):
    """A failure that the user can mend.

    Parameters
    ----------
    message
        One line: the file, the cause and the remedy.
    exit_code
        2 for bad input (the default), 1 for a run that failed on good input.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def cli(main: typing.Callable) -> typing.Callable:
    """Decorate a script's ``main``: a failure becomes one line on stderr and an exit code.

    :class:`UserError` exits with its own code, an operating-system error (disk full, permission
    denied) with 2, a lack of memory with 1, Ctrl-C with 130 and a closed output pipe with 141, as
    a shell reports them.
    Characters that standard output's encoding lacks are written as escapes. A closed standard
    stream (``>&-``) is replaced by the null device.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        _open_closed_streams()
        if getattr(sys.stdout, "errors", None) == "strict":
            typing.cast(typing.Any, sys.stdout).reconfigure(errors="backslashreplace")
        try:
            result = main(*args, **kwargs)
            sys.stdout.flush()  # a full disk shows here, while it can still be reported
            return result
        except UserError as error:
            print_error(error)
            sys.exit(error.exit_code)
        except MemoryError:
            print_error("out of memory; close other programs, or use smaller images and batches")
            sys.exit(1)
        except KeyboardInterrupt:
            print_error("interrupted")
            sys.exit(130)
        except BrokenPipeError:  # the reader (`| head`) has gone
            _discard_output()
            sys.exit(141)
        except OSError as error:
            _discard_output()
            where = "{}: ".format(error.filename) if error.filename else ""
            print_error("{}{}; check the path, its permissions and the free disk space".format(
                where, error.strerror or (error.args[0] if error.args else "failed")))
            sys.exit(2)

    return wrapper


def _open_closed_streams():
    """Open the null device for each standard stream that is closed.

    Their descriptors are taken too: the next file to be opened would get number 1, and whatever a
    library prints would end up in it.
    """
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the end


def _discard_output():
    """If standard output can't be written, send the rest of it to the null device.

    Otherwise Python tries again at exit and prints a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


MESSAGE_END = 5000  # characters at both ends of a message that are shown; a path may have 4,096
# Letters and marks that show as nothing though Unicode does not class them as invisible.
BLANK_LETTERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"


def printable(text: str) -> str:
    """A file's name as one line of visible text.

    Control characters (a line break, a terminal's escape code), invisible characters (a byte-order
    mark, a zero-width space, a change of writing direction) and bytes that are not UTF-8 become
    escapes such as ``\\n``.
    """
    return "".join(
        each if each.isprintable() and each not in BLANK_LETTERS
        else each.encode("unicode_escape").decode() for each in text)


def print_error(message: typing.Any) -> None:
    """Print an error as one line to stderr; line breaks in it are escaped."""
    print("error: " + _one_line(message), file=sys.stderr)


def warn(message: typing.Any) -> None:
    """Print a one-line warning to stderr without breaking a progress bar."""
    tqdm.write("warning: " + _one_line(message), file=sys.stderr)
    sys.stderr.flush()  # Python 3.7 keeps it until the end if stderr is a file


def _one_line(message):
    line = printable(str(message).strip(" \n"))
    if len(line) > 2 * MESSAGE_END:  # a name out of a hostile file
        line = "{} ... {}".format(line[:MESSAGE_END], line[-MESSAGE_END:])
    return line


def progress(iterable: typing.Iterable | None = None, **options: typing.Any) -> tqdm:
    """A tqdm progress bar on stderr that stays quiet when stderr is not a terminal."""
    return tqdm(iterable, disable=not sys.stderr.isatty(), dynamic_ncols=True, **options)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds each option's default to its help, unless the help states it."""

    def _get_help_string(self, action):
        tells = action.default is None or action.default is False or "(default:" in action.help
        return action.help if tells else super()._get_help_string(action)


LARGEST_INTEGER = 10 ** 15  # of an option without an upper bound


def number_type(convert: type, low: float, high: float | None = None) -> typing.Callable:
    """An argparse ``type`` for a finite number in ``[low, high]``.

    Parameters
    ----------
    convert
        ``int`` or ``float``.
    low, high
        Inclusive bounds; ``high=None`` leaves the upper end open, to integers up to
        :data:`LARGEST_INTEGER`.
    """

    # Text may name an integer that no float holds.
    most = high if high is not None else LARGEST_INTEGER if convert is int else float("inf")

    def parse(text):
        value = convert(text)
        if not low <= value <= most or value == float("inf"):
            bounds = "at least {}".format(low) if high is None else "{} to {}".format(low, high)
            raise argparse.ArgumentTypeError("{} is out of range: {}".format(text, bounds))
        return value

    parse.__name__ = convert.__name__
    return parse
