"""Run the commands of docs/journeys.md as a new user would, and write their times into its table.

    python docs/journeys.py --photos photos --faces my/faces --non-faces my/others

It clones this repository's last commit into an empty folder, and installs from the package registry
that pip knows. Take a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from darknet_face.console import HelpFormatter, UserError, cli, number_type
from darknet_face.detection.evaluate import images_in
from darknet_face.runtime.atomic_files import write_atomically

DOCS = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(DOCS, "journeys.md")
ADDRESS = "ADDRESS-OF-THIS-REPOSITORY"
HEADER = "| journey | commands | time |\n|---|---|---|\n"
INSTALLED = "darknet-face"  # the folder that the first journey makes
START = "Install"


def read_journeys(text: str) -> dict[str, list[str]]:
    """The commands of each section, by its title, in the page's order."""
    journeys = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        journeys[title] = re.findall(r"^    (.+)$", body, re.M)
    return journeys


def run(commands: list[str], folder: str) -> float:
    """Run commands in one shell; returns the seconds. What they leave running is stopped."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("VIRTUAL_ENV", "PYTHONPATH", "RUNTIME")}
    started = time.monotonic()
    shell = subprocess.Popen(["bash", "-e"], cwd=folder, env=environment, stdin=subprocess.PIPE,
                             start_new_session=True, universal_newlines=True)
    try:
        shell.communicate("\n".join(commands))
        seconds = time.monotonic() - started
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing was left
            os.killpg(shell.pid, signal.SIGTERM)
    if shell.returncode:
        raise UserError("a journey ended with exit code {}; see above".format(shell.returncode),
                        exit_code=1)
    return seconds


def copy_some(source: str, target: str, most: int) -> int:
    """Copy the first images of a folder; returns how many."""
    paths = images_in(source)[:most]
    os.makedirs(target)
    for number, path in enumerate(paths):
        name = "{:03d}{}".format(number, os.path.splitext(path)[1])
        shutil.copy(path, os.path.join(target, name))
    return len(paths)


def take_all(args: argparse.Namespace, folder: str) -> dict[str, float]:
    """Take the journeys that are asked for; returns the seconds of each, by its title."""
    address, only = "file://" + os.path.dirname(DOCS), args.only
    seconds = {}
    with open(PAGE, encoding="utf-8") as stream:
        journeys = read_journeys(stream.read())
    for title, commands in journeys.items():
        if only and title != START and not any(title.startswith(each) for each in only):
            continue
        commands = [each.replace(ADDRESS, address) for each in commands]
        is_new = any(address in each for each in commands)
        where = folder if is_new else os.path.join(folder, INSTALLED)
        if not is_new:
            commands.insert(0, "source .venv/bin/activate")
        print("\n== {}".format(title), flush=True)
        seconds[title] = run(commands, where)
        if title == START:
            for source, name in ((args.photos, "photos"), (args.faces, "my/faces"),
                                 (args.non_faces, "my/others")):
                copied = copy_some(source, os.path.join(folder, INSTALLED, name), args.images)
                print("{}: {:,} images".format(name, copied))
    return seconds


def write_table(seconds: dict[str, float]) -> None:
    """Write the times into the page's table; the rows of other journeys stay."""
    with open(PAGE, encoding="utf-8") as stream:
        text = stream.read()
    before, after = text.split(HEADER, 1)
    table = re.match(r"(\|.*\n)*", after).group()  # type: ignore[union-attr]
    rows = {line.split(" | ")[0][2:]: line for line in table.splitlines(True)}
    journeys = read_journeys(text)
    for title, taken in seconds.items():
        rows[title] = "| {} | {} | {} min {} s |\n".format(
            title, len(journeys[title]), *divmod(round(taken), 60))
    kept = "".join(rows[title] for title in journeys if title in rows)
    with write_atomically(PAGE) as target:
        target.write((before + HEADER + kept + after[len(table):]).encode())


@cli
def main() -> None:
    parser = argparse.ArgumentParser(description="Run the commands of docs/journeys.md.",
                                     formatter_class=HelpFormatter)
    parser.add_argument("--photos", required=True, metavar="DIR", help="a folder of photographs")
    parser.add_argument("--faces", required=True, metavar="DIR", help="a folder of faces")
    parser.add_argument("--non-faces", required=True, metavar="DIR", help="a folder without faces")
    parser.add_argument("--images", type=number_type(int, 1), default=300,
                        help="how many of each are taken")
    parser.add_argument("--only", nargs="+", metavar="TITLE",
                        help="take these alone, after the installation; how a title begins is "
                             "enough (default: all)")
    args = parser.parse_args()
    for folder in (args.photos, args.faces, args.non_faces):
        images_in(folder)  # tell of a wrong one before anything is installed
    with tempfile.TemporaryDirectory() as folder:
        write_table(take_all(args, folder))
    print("wrote {}".format(PAGE))


if __name__ == "__main__":
    main()
