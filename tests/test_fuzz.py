"""A short run of the fuzzer: a few mutations of every kind of file, none of them bad."""

import json
import os
import subprocess
import sys

from conftest import ROOT

MUTATIONS = 2


def fuzz(*arguments):
    return subprocess.run([sys.executable, os.path.join(ROOT, "tests", "fuzz.py")]
                          + [str(each) for each in arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def test_every_kind_is_answered_or_refused_in_one_line(tmp_path):
    outcome = fuzz("--count", MUTATIONS, "--json", tmp_path / "t.json", "--keep", tmp_path / "bad")
    assert outcome.returncode == 0, outcome.stdout
    kinds = json.loads((tmp_path / "t.json").read_text())["kinds"]
    assert len(kinds) > 30 and not (tmp_path / "bad").exists()
    assert all(row.get("answered", 0) + row.get("refused", 0) == MUTATIONS
               for row in kinds.values())


def test_a_mutation_that_is_not_there_is_one_line():
    outcome = fuzz("--repeat", "png")
    assert outcome.returncode == 2
    assert "error: --repeat png: not KIND:NUMBER" in outcome.stdout
