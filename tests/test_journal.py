"""The collector's journal: values of another type are a damaged line."""

import json

import pytest

from darknet_face.console import UserError
from darknet_face.negatives.journal import Journal


@pytest.mark.parametrize("row", [
    {"kind": "failed", "url": 1, "query": "dog", "cause": "", "detail": "", "final": True},
    {"kind": "failed", "url": "u", "query": 0.5, "cause": "", "detail": "", "final": True},
    {"kind": "page", "source": "a", "query": None, "candidates": [], "next": None},
    {"kind": "page", "source": "a", "query": [], "candidates": [], "next": None},
    {"kind": "page", "source": "a", "query": "b", "candidates": [["u"]], "next": None},
])
def test_values_of_another_type(tmp_path, row):
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="line 1 is damaged"):
        Journal(str(path))
