"""The Dockerfile, without a container builder: what it copies, installs and starts.

``tests/bare_root.sh tf2 python3 tests/container.py`` runs its steps on a bare Debian.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
import zipfile

import pytest
from conftest import ROOT
from container import command, copies, instructions
from test_package import BUILD

FOUND = instructions()


def ignored(path):
    """Whether .dockerignore leaves a path out: the last pattern that matches decides."""
    parts = path.split("/")
    result = False
    with open(os.path.join(ROOT, ".dockerignore")) as stream:
        for line in stream.read().splitlines():
            expression = re.escape(line.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(
                r"\*", "[^/]*")
            if line and not line.startswith("#") and any(
                    re.fullmatch(expression, "/".join(parts[:count + 1]))
                    for count in range(len(parts))):
                result = not line.startswith("!")
    return result


def test_what_is_copied_is_there_and_not_ignored():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                             check=True).stdout.splitlines()
    for sources, _, stage in copies(FOUND):
        for source in () if stage else sources:
            files = [name for name in tracked if name == source or name.startswith(source + "/")]
            assert [name for name in files if not ignored(name)], source
            assert source == "saved_models" or not [name for name in files if ignored(name)]


@pytest.mark.parametrize("path", [
    "data/celeba/1.jpg", "saved_models/darknet19_weights.npz", ".venv-tf2/bin/python", ".git/HEAD",
    "logs/history.csv", "tests/conftest.py", ".env", "darknet_face/__pycache__/a.pyc"])
def test_nothing_else_is_sent_to_the_builder(path):
    assert ignored(path)


def test_it_runs_as_a_user_without_rights_and_downloads_nothing():
    names = [name for name, _ in FOUND]
    assert dict(FOUND)["USER"] not in ("root", "0")
    assert "ADD" not in names and names.index("USER") > max(
        index for index, name in enumerate(names) if name == "RUN")
    assert not [text for _, text in FOUND if "curl" in text or "wget" in text]


def _ignored_in(folder, names):
    return [name for name in names if ignored(os.path.relpath(os.path.join(folder, name), ROOT))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The installed wheel, built from what the first stage copies."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("image")
    for sources, target, _ in copies(FOUND[:[name for name, _ in FOUND].index("RUN")]):
        for source in sources:
            place = folder / "src" / target
            if os.path.isdir(os.path.join(ROOT, source)):
                shutil.copytree(os.path.join(ROOT, source), str(place), ignore=_ignored_in)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(os.path.join(ROOT, source), str(place))
    name = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=str(folder / "src"),
                          check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    with zipfile.ZipFile(str(folder / name)) as wheel:
        wheel.extractall(str(folder / "site"))
    return folder / "site"


def test_the_command_answers_and_the_health_check_tells_so(site, tmp_path):
    entry, = site.glob("*.dist-info/entry_points.txt")
    assert command(FOUND, "ENTRYPOINT") == ["darknet-face"]
    assert "darknet-face = darknet_face.command:main" in entry.read_text()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    health = [sys.executable] + [word.replace("8000", port)
                                 for word in command(FOUND, "HEALTHCHECK")[1:]]
    assert dict(FOUND)["EXPOSE"] == "8000" in command(FOUND, "CMD")
    words = [word.replace("8000", port).replace("0.0.0.0", "127.0.0.1")
             for word in command(FOUND, "CMD")]
    assert words[0] == "serve"
    assert subprocess.run(health, stderr=subprocess.DEVNULL).returncode != 0
    server = subprocess.Popen(
        [sys.executable, "-m", "darknet_face.command"] + words, cwd=str(tmp_path),
        env=dict(os.environ, PYTHONPATH=str(site), PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE,
        text=True)
    try:
        for line in server.stdout:
            if line.startswith("open "):
                break
        assert subprocess.run(health, timeout=60).returncode == 0
        with open(os.path.join(ROOT, "docs", "photographs.jpg"), "rb") as stream:
            with urllib.request.urlopen(
                    "http://127.0.0.1:{}/classify".format(port), stream.read()) as answer:
                assert json.load(answer)["results"][0]["is_face"]
    finally:
        server.terminate()
        server.communicate()
    assert server.returncode == 0
