"""Fixtures and helpers for tests that run gen_neg_samples.py against the image server."""

import csv
import glob
import os
import sys

import negatives_program
import pytest
from negatives_program import PATIENCE
from negatives_server import PictureServer, encode, texture

import gen_neg_samples
from darknet_face.images.file_lists import LISTS, load_list

NAMES = [negatives for _, negatives in LISTS.values()]
FAST = ["--rate", "5000", "--workers", "4", "--contact", "tests@example.org"]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with PictureServer() as server:
        yield server


@pytest.fixture
def run(server, tmp_path, run_script, monkeypatch):
    """Run the script in this process, faces kept: its exit code, stdout and stderr."""

    def run(*arguments, faces=("--keep-faces",), **patience):
        monkeypatch.setattr(gen_neg_samples, "PATIENCE", PATIENCE._replace(**patience))
        return run_script(gen_neg_samples, *options(server, tmp_path), *faces, *arguments)

    return run


def options(server, data_dir):
    return ["--endpoint", server.url, "--data-dir", str(data_dir)] + FAST


def command(server, data_dir, *queries, seconds=0.5):
    """The command line of a process of its own."""
    return ([sys.executable, negatives_program.__file__, str(seconds), "--keep-faces"]
            + options(server, data_dir) + ["--queries"] + list(queries))


def fill(server, query, numbers, fault=None):
    for number in numbers:
        server.add(query, "{}.jpg".format(number), encode(texture(number)), fault)


def kept(data_dir):
    """Files kept, by query folder."""
    files = glob.glob(os.path.join(str(data_dir), "neg_samples", "*", "*.jpg"))
    return sorted(os.path.relpath(path, os.path.join(str(data_dir), "neg_samples"))
                  for path in files)


def lists(data_dir):
    return [load_list(os.path.join(str(data_dir), name)) for name in NAMES]


def table(path):
    with open(str(path), encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def causes(data_dir):
    """Cause of rejection by the name of the image on the server."""
    return {row["name"].rpartition("/")[2]: row["cause"]
            for row in table(data_dir / "neg_samples" / "report.csv")}
