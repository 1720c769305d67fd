"""The collection on disk: its records, its tables and its contact sheet."""

import glob
import os
import sqlite3

import negatives_runs
import pytest
from negatives_runs import causes, fill, kept, lists, table
from negatives_server import encode, texture

from darknet_face.images import decode
from darknet_face.negatives import reports, store

# pytest finds fixtures under these names.
server, run = negatives_runs.server, negatives_runs.run


def test_a_second_run_asks_for_nothing(server, run, tmp_path):
    fill(server, "dog", range(60))
    fill(server, "dog", range(60, 63), "404")
    run("--queries", "dog", "cat")
    before = kept(tmp_path), lists(tmp_path), causes(tmp_path)
    server.hits.clear()
    code, _, _ = run("--queries", "dog", "cat")
    assert code == 0
    assert not server.hits
    assert (kept(tmp_path), lists(tmp_path), causes(tmp_path)) == before


def test_a_picture_removed_by_hand_stays_away(server, run, tmp_path):
    fill(server, "dog", range(30))
    run("--queries", "dog", "--per-query", "20")
    unwanted = kept(tmp_path)[3]
    (tmp_path / "neg_samples" / unwanted).unlink()
    code, _, _ = run("--queries", "dog", "--per-query", "20")
    assert code == 0
    assert len(kept(tmp_path)) == 20 and unwanted not in kept(tmp_path)
    assert list(causes(tmp_path).values()) == ["removed by hand"]
    assert sorted(sum(lists(tmp_path), [])) == [
        os.path.join("neg_samples", name) for name in kept(tmp_path)]


def test_names_with_separators_stay_inside(server, run, tmp_path):
    data = tmp_path / "deep" / "data"
    for number, name in enumerate(["../../a.jpg", "..\\b.jpg", "/etc/c.jpg", "d\0.jpg"]):
        server.pictures[name.rpartition("/")[2]] = encode(texture(number))
        server.results.setdefault("../../dog", []).append(name.replace("\0", "%00"))
    server.pictures["d\0.jpg"] = encode(texture(3))
    fill(server, "/etc/passwd", range(10, 14))
    fill(server, "..", range(20, 24))
    code, _, _ = run("--queries", "../../dog", "/etc/passwd", "..", "--data-dir", data)
    assert code == 0
    assert len(kept(data)) == 12
    assert os.listdir(str(tmp_path)) == ["deep"] and os.listdir(str(tmp_path / "deep")) == ["data"]
    assert len({os.path.dirname(name) for name in kept(data)}) == 3


def test_every_query_has_a_harmless_folder_of_its_own():
    queries = ["dog", "Dog", "dog ", "red dog", "red_dog", "red-dog", "..", ".", "", "a/b", "a\\b",
               "собака", "кошка", "x" * 300, "x" * 301, "con:aux", ".incoming", "-", "\0"]
    names = [store.folder_name(query) for query in queries]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert 0 < len(name.encode()) <= 120
        assert not set(name) & set("/\\:\0 .") and name[0] != "-"


def records_of(folder):
    """The collection's records, opened by SQLite itself."""
    return sqlite3.connect(str(folder / "neg_samples" / "records.sqlite"), isolation_level=None)


def test_the_records_are_plain_tables(server, run, tmp_path):
    fill(server, "dog", range(4))
    run("--queries", "dog")
    rows = records_of(tmp_path)
    assert rows.execute("SELECT count(*) FROM fetched").fetchone() == (4,)
    assert rows.execute("SELECT cause FROM verdict").fetchall() == [("kept",)] * 4


@pytest.mark.parametrize("change", [
    "UPDATE fetched SET digest = '../../x'", "UPDATE fetched SET hash = '0'",
    "UPDATE fetched SET creator = x'00'", "UPDATE page SET candidates = '{'",
    "UPDATE page SET candidates = '[[\"u\"]]'", "UPDATE page SET candidates = NULL",
    "UPDATE page SET next = '['", "UPDATE setting SET value = 'x'",
    "UPDATE verdict SET query = x'00'",
    "INSERT INTO failure VALUES ('u', x'00', '', '', 1)",
])
def test_damaged_records_are_bad_input(server, run, tmp_path, change):
    fill(server, "dog", range(4))
    run("--queries", "dog")
    database = records_of(tmp_path)
    database.executescript(change)
    database.close()
    before = lists(tmp_path)
    code, _, err = run("--queries", "dog")
    assert code == 2
    assert err.count("\n") == 1 and "records.sqlite: damaged" in err
    assert lists(tmp_path) == before


@pytest.mark.parametrize("content", [bytes(range(256)) * 3, b"SQLite format 3\0" + bytes(4000)])
def test_another_file_in_place_of_the_records(server, run, tmp_path, content):
    (tmp_path / "neg_samples").mkdir()
    (tmp_path / "neg_samples" / "records.sqlite").write_bytes(content)
    code, _, err = run("--queries", "dog")
    assert code == 2
    assert err.count("\n") == 1 and "records.sqlite: damaged" in err


def test_a_collection_of_an_earlier_version_says_so(server, run, tmp_path):
    (tmp_path / "neg_samples").mkdir()
    (tmp_path / "neg_samples" / "journal.jsonl").write_text("")
    code, _, err = run("--queries", "dog")
    assert code == 2
    assert "earlier version" in err and "--from-dir" in err and err.count("\n") == 1


def test_other_settings_are_refused(server, run, tmp_path):
    fill(server, "dog", range(4))
    run("--queries", "dog")
    code, _, err = run("--queries", "dog", "--min-side", "65")
    assert code == 2
    assert "was begun with min-side 64, not 65" in err and err.count("\n") == 1


def test_two_runs_on_one_folder_are_refused(server, run, tmp_path):
    settings = {"min-side": 64}
    held = store.NegativeStore(str(tmp_path / "neg_samples"), settings)
    code, _, err = run("--queries", "dog")
    assert code == 2 and "another run is at work" in err
    held.close()
    store.NegativeStore(str(tmp_path / "neg_samples"), settings).close()


@pytest.mark.parametrize("kept_share", [0.3, 0.9])
def test_records_cut_short_by_a_power_cut_are_no_damage(server, run, tmp_path, kept_share):
    """SQLite drops what is not whole in its write-ahead log; what was lost is fetched again."""
    fill(server, "dog", range(12))
    run("--queries", "dog")
    before = kept(tmp_path), lists(tmp_path)
    database = records_of(tmp_path)
    database.execute("PRAGMA wal_autocheckpoint = 0")
    for (url,) in database.execute("SELECT url FROM verdict ORDER BY number").fetchall():
        database.execute("DELETE FROM verdict WHERE url = ?", (url,))
    log = tmp_path / "neg_samples" / "records.sqlite-wal"
    content = log.read_bytes()
    whole = (tmp_path / "neg_samples" / "records.sqlite").read_bytes()
    database.close()  # moves the log into the file
    (tmp_path / "neg_samples" / "records.sqlite").write_bytes(whole)
    log.write_bytes(content[:int(kept_share * len(content))])
    for _ in range(2):
        code, _, _ = run("--queries", "dog")
        assert code == 0
        assert sorted(kept(tmp_path)) == sorted(before[0]) and lists(tmp_path) == before[1]


def test_what_was_fetched_for_another_query_is_not_fetched_twice(server, run, tmp_path):
    """And half-written files that a kill left are removed."""
    folder = tmp_path / "neg_samples"
    fill(server, "dog", range(12))
    fill(server, "cat", range(20, 24))
    run("--queries", "dog")
    database = records_of(tmp_path)
    undone = database.execute("SELECT verdict.number, digest FROM verdict JOIN fetched "
                              "USING (url) ORDER BY number DESC LIMIT 3").fetchall()
    (folder / ".incoming").mkdir()
    for number, digest in undone:
        database.execute("DELETE FROM verdict WHERE number = ?", (number,))
        (folder / "dog" / (digest + ".jpg")).rename(folder / ".incoming" / (digest + ".jpg"))
    database.close()
    (folder / ".incoming" / ".partial-1-a.jpg").write_bytes(b"x")
    (folder / ".partial-2-sheet.png").write_bytes(b"x")
    server.hits.clear()
    run("--queries", "cat")
    assert len(kept(tmp_path)) == 9 + 4
    assert len(list((folder / ".incoming").iterdir())) == 3
    run("--queries", "dog", "cat")
    assert len(kept(tmp_path)) == 12 + 4
    assert server.hits == {"search": 1, **{"{}.jpg".format(number): 1 for number in range(20, 24)}}
    assert not glob.glob(str(folder / ".incoming*")) and not glob.glob(str(folder / ".partial-*"))


def test_attribution_names_file_page_creator_licence_query_and_time(server, run, tmp_path):
    fill(server, "dog", range(4))
    run("--queries", "dog")
    rows = table(tmp_path / "neg_samples" / "ATTRIBUTION.csv")
    assert [row["file"] for row in rows] == kept(tmp_path)
    for row in rows:
        assert row["source page"].startswith(server.url + "/wiki/File:")
        assert (row["creator"], row["licence"], row["query"]) == (
            "Ann & Bob", "CC BY-SA 4.0", "dog")
        assert row["retrieved"].endswith("+00:00")


def test_attribution_cannot_carry_formulas(server, run, tmp_path):
    fill(server, "dog", range(4))
    run("--source", "openverse", "--queries", "dog")
    for row in table(tmp_path / "neg_samples" / "ATTRIBUTION.csv"):
        assert row["creator"] == "'=HYPERLINK(\"x\")"
        assert row["licence"] == "CC BY 2.0"


def test_the_contact_sheet_shows_what_was_kept(server, run, tmp_path):
    fill(server, "dog", range(25))
    fill(server, "собака", range(30, 34))
    _, out, _ = run("--queries", "dog", "собака")
    sheet = decode.read_image(str(tmp_path / "neg_samples" / "sheet.png"))
    # Two strips: 25 images take two rows of 20, 4 images one row.
    assert sheet.shape[0] >= 3 * reports.SHEET_TILE
    assert sheet.shape[1] >= 20 * reports.SHEET_TILE
    assert "sheet.png" in out


@pytest.mark.parametrize("query, folder", [
    ("x" * 200, "x" * 30), ("\u732b" * 200, "\u732b" * 30), ("\u732b\n\x1b[31m", "\u732b_31m"),
], ids=["long", "long and Chinese", "coloured"])
def test_headings_on_the_sheet_are_cut(server, run, tmp_path, query, folder):
    fill(server, query.replace("\n\x1b", "  ").replace("  ", " "), range(4))
    code, _, _ = run("--queries", query)
    assert code == 0
    names = {os.path.dirname(name) for name in kept(tmp_path)}
    assert len(names) == 1 and names.pop().startswith(folder + "_")
    sheet = decode.read_image(str(tmp_path / "neg_samples" / "sheet.png"))
    heading = sheet[:2 * reports.HEADING_SIZE].min(axis=2)
    assert sheet.shape[1] < 1000
    assert heading.min() < 100  # there is ink, but none at the right end
    assert heading[:, -reports.HEADING_SIZE // 4:].min() > 200
