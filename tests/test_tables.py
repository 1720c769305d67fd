"""CSV and JSON tables: complete, resumable, and never in another file's place."""

import csv
import io
import json
import os
import shutil

import pytest
from conftest import read_csv, read_json_lines

from darknet_face.classify import tables
from darknet_face.console import UserError


def test_tables_on_standard_output(infer, pictures):
    objects = [json.loads(line) for line in infer(pictures, "--json", "-").out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(infer(pictures, "--csv", "-").out)))
    assert [each["file"] for each in objects] == [row["file"] for row in rows]
    assert len(rows) == 20


def test_resume_after_a_line_cut_in_the_middle(infer, pictures, tmp_path):
    table, lines = str(tmp_path / "out.csv"), str(tmp_path / "out.jsonl")
    infer(pictures, "--csv", table, "--json", lines)
    with open(table, "rb") as stream:
        whole = stream.read()
    rows, objects = read_csv(table), read_json_lines(lines)
    for cut in (whole.index(b"\n", 700) + 1, whole.index(b"\n", 700) - 1, 20, 0):
        with open(table, "wb") as stream:
            stream.write(whole[:cut])
        done = max(0, whole[:cut].count(b"\n") - 1)
        outcome = infer(pictures, "--csv", table, "--json", lines, "--resume")
        assert outcome.code == 0
        assert len(outcome.out.splitlines()) == 20 - done, "what is done is not done again"
        for found, expected in ((read_csv(table), rows), (read_json_lines(lines), objects)):
            assert [row["file"] for row in found] == [row["file"] for row in expected]
            for one, other in zip(found, expected):  # in other batches, sums round otherwise
                assert float(one["face_probability"]) == pytest.approx(
                    float(other["face_probability"]), abs=1e-5)
    outcome = infer(pictures, "--csv", table, "--resume")
    assert outcome.code == 0 and outcome.out == "" and "20 were done before" in outcome.err


@pytest.mark.parametrize("columns", tables.FORMER_COLUMNS)
def test_a_table_of_a_former_order_is_resumed(infer, pictures, tmp_path, columns):
    table = str(tmp_path / "out.csv")
    infer(pictures, "--csv", table)
    rows = read_csv(table)
    with open(table, "w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n",
                                extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[:7])
    outcome = infer(pictures, "--csv", table, "--resume")
    assert outcome.code == 0 and "7 were done before" in outcome.err
    with open(table) as stream:
        assert stream.readline() == ",".join(tables.COLUMNS) + "\n"
    assert [row["file"] for row in read_csv(table)] == [row["file"] for row in rows]
    assert read_csv(table)[:7] == rows[:7]


def test_resume_keeps_names_with_line_breaks(infer, pictures, tmp_path):
    folder = tmp_path / "odd names"
    folder.mkdir()
    for name in ("a\nb.png", "a\rb.png", 'c",d.png', "e.png"):
        shutil.copy(pictures + "/00.png", str(folder / name))
    table = str(tmp_path / "out.csv")
    infer(folder, "--csv", table)
    with open(table, "rb") as stream:
        whole = stream.read()
    for cut in range(whole.index(b"\n") + 1, len(whole), 9):
        with open(table, "wb") as stream:
            stream.write(whole[:cut])
        tables.keep_whole_rows(table, "csv")
        with open(table, "rb") as stream:
            kept = stream.read()
        assert whole.startswith(kept)
        assert [row["file"] for row in read_csv(table)] == [
            row["file"] for row in csv.DictReader(io.StringIO(whole.decode()))][
                :len(read_csv(table))]


@pytest.mark.parametrize("content", [
    b"name,score\na.png,1\n", b"\xff\xd8\xff\xe0" * 99 + b"\n",
    b"file,class,probability,face_probability\noops\na.png,FACE,0.9,0.9\n"])
def test_resume_refuses_other_files(infer, pictures, tmp_path, content):
    table = tmp_path / "notes.csv"
    table.write_bytes(content)
    outcome = infer(pictures, "--csv", table, "--resume")
    assert outcome.code == 2 and "notes.csv" in outcome.err.splitlines()[-1]
    assert table.read_bytes() == content


@pytest.mark.parametrize("value", ["[" * 100000, "5", "{}", "null"],
                         ids=["brackets", "number", "object", "null"])
def test_rows_that_no_table_has(tmp_path, value):
    """Brackets that nest too deep for Python's parser; a name that is no text."""
    path = tmp_path / "t.json"
    path.write_text("{" + ", ".join('"{}": {}'.format(name, value)
                                    for name in tables.JSON_KEYS) + "}\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match="t.json: damaged, or not a table"):
        tables.keep_whole_rows(str(path), "json")
    with pytest.raises(UserError, match="t.json: "):
        tables.check_table(str(path), "json")
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["--csv", "--json"])
@pytest.mark.parametrize("content", [
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0", b"file,size\n", b'{"name": 1}', b"notes"])
def test_no_other_file_is_written_over(infer, pictures, tmp_path, option, content):
    """``--csv *.png`` names an image as the table."""
    other = tmp_path / "other"
    other.write_bytes(content)
    for extra in ((), ("--csv", tmp_path / "out.csv", "--resume")[:3 if option == "--json" else 0]):
        outcome = infer(pictures, option, other, *extra)
        assert outcome.code == 2 and "other: not a table" in outcome.err.splitlines()[-1]
        assert other.read_bytes() == content
    outcome = infer(pictures, "--csv", other, "--resume")
    assert outcome.code == 2 and other.read_bytes() == content


def test_an_old_table_is_written_over(infer, pictures, tmp_path):
    table, lines = str(tmp_path / "out.csv"), str(tmp_path / "out.jsonl")
    for _ in range(2):
        assert infer(pictures, "--csv", table, "--json", lines).code == 0
        assert len(read_csv(table)) == len(read_json_lines(lines)) == 20


def test_a_pipe_is_not_resumed(infer, pictures, tmp_path):
    os.mkfifo(str(tmp_path / "out.csv"))
    outcome = infer(pictures, "--csv", tmp_path / "out.csv", "--resume")
    assert outcome.code == 2 and "out.csv: not a regular file" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("content", [
    b'{"file": "a.jpg", "label": 1}\n', b'{"file": "a.jpg", "class": "FACE"}\n', b"{}\n",
    b'{"file": "a.jpg", "label": 1}', b'{"file": 7', b'{"files": []}\n', b"\xff\xd8\xff",
])
def test_another_program_s_objects_are_kept(infer, pictures, tmp_path, content):
    (tmp_path / "labels.jsonl").write_bytes(content)
    outcome = infer(pictures, "--json", tmp_path / "labels.jsonl")
    assert outcome.code == 2 and "labels.jsonl: not a table of this script" in outcome.err
    assert (tmp_path / "labels.jsonl").read_bytes() == content


def test_every_beginning_of_a_table_is_known(tmp_path):
    path = str(tmp_path / "out.jsonl")
    row = dict.fromkeys(tables.JSON_KEYS, 1)
    row.update({"file": "a\"b\\\n\udc80.png", "class": "FACE"})
    table = tables.Table(path, "json")
    table.write(None, row)
    table.close()
    with open(path, "rb") as stream:
        whole = stream.read()
    for length in range(len(whole) + 1):
        with open(path, "wb") as stream:
            stream.write(whole[:length] + b"\0" * (length % 3 if length < len(whole) else 0))
        tables.check_table(path, "json")
