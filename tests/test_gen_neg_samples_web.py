"""gen_neg_samples.py against a local server that speaks both services and misbehaves on purpose."""

import csv
import email.utils
import glob
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import negatives_program
import numpy as np
import pytest
import requests
from conftest import heed_sigint
from negatives_program import PATIENCE
from negatives_server import PictureServer, encode, texture
from PIL import Image
from skimage import data as photographs

import gen_neg_samples
from negatives import client, collector, reports, services, store
from pictures import decode
from pictures.lists import LISTS, load_list

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
    """Cause of rejection by the name of the picture on the server."""
    return {row["name"].rpartition("/")[2]: row["cause"]
            for row in table(data_dir / "neg_samples" / "report.csv")}


@pytest.mark.parametrize("source, page_size", [("wikimedia", 50), ("openverse", 20)])
def test_search_goes_through_the_pages_of_a_service(server, run, tmp_path, source, page_size):
    server.page_size = page_size
    fill(server, "dog", range(70))
    fill(server, "red car", range(100, 103))
    code, out, err = run("--source", source, "--queries", "dog", "red car")
    assert code == 0
    assert len(kept(tmp_path)) == 73
    assert {os.path.dirname(name) for name in kept(tmp_path)} == {"dog", "red_car"}
    assert server.hits["search"] == -(-70 // page_size) + 1
    assert sorted(sum(lists(tmp_path), [])) == [
        os.path.join("neg_samples", name) for name in kept(tmp_path)]
    assert "dog: 70 pictures of 500: there are no more search results" in err
    assert server.agents == {"gen_neg_samples/1.0 (tests@example.org) {}".format(
        requests.utils.default_user_agent())}


def test_connections_are_used_again(server, run, tmp_path):
    fill(server, "dog", range(60))
    run("--queries", "dog", "--workers", "3")
    assert len(kept(tmp_path)) == 60
    assert server.connections <= 3 + 1  # the searches come from a thread of their own


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


@pytest.mark.parametrize("fault, cause", [
    ("401", "HTTP 401"), ("403", "HTTP 403"), ("404", "HTTP 404"), ("410", "HTTP 410"),
    ("flood between chunks", "too many bytes"), ("flood after chunks", "too many bytes"),
    ("429", "HTTP 429"), ("500", "HTTP 500"),
    ("429 with Retry-After", "HTTP 429"), ("503", "HTTP 503"),
    ("503 with Retry-After", "HTTP 503"), ("stall", "time-out"), ("trickle", "time-out"),
    ("reset", "connection broken"), ("reset before the answer", "connection broken"),
    ("endless", "too many bytes"), ("endless redirect", "HTTP 404"),
    ("length too long", "connection broken"), ("length too short", "truncated or damaged"),
    ("length of a terabyte", "too many bytes"), ("six redirects", "too many redirects"),
    ("redirect loop", "too many redirects"), ("redirect to file", "not an http(s) address"),
    ("redirect to nowhere", "too many redirects"), ("noai", "noai"), ("noimageai", "noai"),
    ("gzip bomb", "too many bytes"), ("nested gzip bomb", "damaged"), ("damaged gzip", "damaged"),
    ("html", "not an image"), ("truncated", "truncated or damaged"), ("empty", "not an image"),
    ("503 with a broken date", "HTTP 503"), ("interim responses", "time-out"),
    ("flood of headers", "too many bytes"), ("flood in a header", "too many bytes"),
    ("tiny chunks", "time-out"), ("redirect to metadata", "private address"),
    ("redirect to a private network", "private address"),
])
def test_a_faulty_answer_is_left_out_under_its_cause(
        server, run, tmp_path, monkeypatch, fault, cause):
    monkeypatch.setattr(collector, "MAX_DOWNLOAD_BYTES", 1000000)
    fill(server, "dog", range(3))
    fill(server, "dog", [3], fault)
    fill(server, "dog", range(4, 7))
    code, out, _ = run("--queries", "dog")
    assert code == 0
    assert causes(tmp_path) == {"3.jpg": cause}
    assert len(kept(tmp_path)) == 6
    assert "left out: 1 ({})".format(cause) in out


def test_passing_faults_cost_no_picture(server, run, tmp_path):
    faults = ["429 once", "429 with Retry-After once", "500 once", "503 once", "stall once",
              "503 with Retry-After once", "reset once", "reset before the answer once",
              "trickle once", "trickle without length once", "trickled headers once",
              "hang-up in headers once", "length too long once", "slow", "five redirects", "gzip",
              "chunked"]
    for number, fault in enumerate(faults):
        fill(server, "dog", [number], fault)
    code, _, _ = run("--queries", "dog")
    assert code == 0
    assert causes(tmp_path) == {}
    assert len(kept(tmp_path)) == len(faults)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_host_that_asks_for_a_day_is_left_alone(server, run, tmp_path, retries):
    fill(server, "dog", range(3))
    fill(server, "dog", [3], "429 for a day")
    fill(server, "dog", range(4, 60))
    code, _, err = run("--queries", "dog", "cat", "--workers", "1", retries=retries)
    assert code == 0
    assert len(kept(tmp_path)) == 3
    assert server.hits["3.jpg"] == 1
    assert not any(server.hits["{}.jpg".format(number)] for number in range(4, 60))
    assert "cat: 0 pictures of 500: the search failed: host asks to wait" in err
    server.faults.clear()
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 60
    assert server.hits["0.jpg"] == 1


def test_waits_grow_exponentially_with_jitter_up_to_the_longest(server, monkeypatch):
    server.add("dog", "0.jpg", b"", "500")
    polite = client.PoliteClient(
        contact="", rate=5000, workers=1, networks=["loopback"],
        patience=PATIENCE._replace(retries=6, backoff=1, longest_wait=20))
    runs = []
    for _ in range(2):
        waits = []
        monkeypatch.setattr(
            polite._limiter, "sleep", lambda seconds, waits=waits: waits.append(seconds))
        with pytest.raises(client.Unavailable):
            polite.get_picture(server.url + "/0.jpg", 1000)
        runs.append([wait for wait in waits if wait > 0.1])  # without the waits for a turn
        for wait, most in zip(runs[-1], [1, 2, 4, 8, 16, 20]):
            assert most / 2 <= wait <= most
        assert len(runs[-1]) == 6
    assert runs[0] != runs[1]


def test_a_wish_for_rest_binds_the_host_that_has_it(server, monkeypatch):
    """A redirect's target asks to wait: the target is held back, not the host that sent us."""
    server.add("dog", "busy.jpg", b"", "503 with Retry-After")
    server.add("dog", "0.jpg", b"", "redirect to another host")
    polite = client.PoliteClient(
        contact="", rate=5000, workers=1, networks=["loopback"],
        patience=PATIENCE._replace(retries=1, longest_wait=1))
    held = []
    monkeypatch.setattr(polite._limiter, "hold", lambda host, seconds: held.append(host))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with pytest.raises(client.Unavailable):
        polite.get_picture(server.url + "/0.jpg", 1000)
    assert set(held) == {"localhost"}


def test_an_outage_ends_a_query_but_not_the_run(server, run, tmp_path):
    """No more pages are asked for when the picture server has gone away; a later run goes on."""
    fill(server, "dog", range(4))
    fill(server, "dog", range(4, 200), "503")
    fill(server, "cat", range(200, 204))
    code, _, err = run("--queries", "dog", "cat", retries=0)
    assert code == 0
    assert "dog: 4 pictures of 500: 50 pictures in a row could not be had" in err
    assert len(kept(tmp_path)) == 8
    assert server.hits["search"] == 3  # two of dog's four pages, one of cat's
    server.faults.clear()
    run("--queries", "dog", "cat")
    assert len(kept(tmp_path)) == 204


def test_duplicates_within_and_across_queries_are_kept_once(server, run, tmp_path):
    fill(server, "dog", range(10))
    for number in range(5):
        server.add("dog", "copy{}.jpg".format(number), encode(texture(number)))
        small = Image.fromarray(texture(number)).resize((80, 80), Image.BICUBIC)
        server.add("cat", "small{}.png".format(number), encode(np.asarray(small), "PNG"))
        server.add("cat", "{}.jpg".format(number), encode(texture(number)))  # the same address
    fill(server, "cat", range(20, 25))
    code, _, _ = run("--queries", "dog", "cat")
    assert code == 0
    found = kept(tmp_path)
    assert len([name for name in found if name.startswith("dog")]) == 10
    assert len([name for name in found if name.startswith("cat")]) == 5
    expected = {"copy{}.jpg".format(number): "duplicate" for number in range(5)}
    expected.update(("small{}.png".format(number), "near duplicate") for number in range(5))
    expected.update(("{}.jpg".format(number), "duplicate") for number in range(5))
    assert causes(tmp_path) == expected
    assert all(server.hits["{}.jpg".format(number)] == 1 for number in range(5))


def test_no_cookies_are_kept(server, run, tmp_path):
    fill(server, "dog", range(20), "cookies")
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 20
    assert server.cookies == set()
    polite = client.PoliteClient("", 5000, 1, ["loopback"], PATIENCE)
    polite.get_picture(server.url + "/0.jpg", 1000000)
    assert len(polite._session.cookies) == 0


@pytest.mark.parametrize("source, page_size", [("wikimedia", 50), ("openverse", 20)])
def test_of_an_enormous_result_page_a_page_is_taken(server, run, tmp_path, source, page_size):
    """Four pictures are wanted, and a service offers 70,000 that are not there."""
    numbers = range(70000)
    page = json.dumps({
        "page_count": 1, "results": [{"url": "/{}".format(number)} for number in numbers],
    } if source == "openverse" else {"query": {"pages": {
        number: {"imageinfo": [{"url": "/{}".format(number)}]} for number in numbers}}})
    server.search_faults["dog", 0] = lambda handler: handler.send_body(page.encode())
    fill(server, "cat", range(80000, 80004))
    code, _, _ = run("--source", source, "--queries", "dog", "cat", "--per-query", "4")
    assert code == 0
    assert sum(server.hits.values()) == 2 + page_size + 4


def test_search_results_are_looked_at_up_to_a_number(server, run, tmp_path):
    server.results["dog"] = ["{}.jpg".format(number) for number in range(1000)]  # all 404
    fill(server, "cat", range(2000, 2004))
    code, _, err = run("--queries", "dog", "cat", "--per-query", "4")
    assert code == 0
    assert "dog: 0 pictures of 4: stopped after 140 search results" in err
    assert server.hits["search"] == 3 + 1
    assert sum(server.hits.values()) == 4 + 140 + 4


def test_a_continuation_that_repeats_ends(server, run, tmp_path):
    server.repeats = True
    fill(server, "dog", range(4))
    code, _, err = run("--queries", "dog")
    assert code == 0
    assert len(kept(tmp_path)) == 4
    assert "the service repeats its result pages" in err
    assert server.hits["search"] == 2


def test_older_versions_of_a_single_result_are_not_asked_for(server, run, tmp_path):
    """MediaWiki goes on with them if a page holds one result, as the last of 51 does."""
    fill(server, "dog", range(51))
    server.search_faults["dog", 1] = lambda handler: handler.send_json(dict(
        handler._wikimedia([(50, "50.jpg")], 1, False),
        **{"continue": {"iistart": "2009-09-30T06:04:51Z", "continue": "||"}}))
    code, _, err = run("--queries", "dog")
    assert code == 0
    assert len(kept(tmp_path)) == 51
    assert server.hits["search"] == 2 and "there are no more search results" in err


def test_pages_without_anything_new_end(server, run, tmp_path):
    """A service that finds the same four pictures on page after page."""
    fill(server, "dog", range(4))
    for number in range(100):
        server.search_faults["dog", number] = lambda handler, number=number: handler.send_json(dict(
            handler._wikimedia(list(enumerate(server.results["dog"])), 0, False),
            **{"continue": {"gsroffset": (number + 1) * 50}}))
    code, _, err = run("--queries", "dog")
    assert code == 0
    assert len(kept(tmp_path)) == 4
    assert "5 result pages in a row brought nothing new" in err
    assert server.hits["search"] == 6


@pytest.mark.parametrize("answer, words", [
    (b"{\"query\": ", "malformed JSON"), (b"<html>", "malformed JSON"), (b"", "malformed JSON"),
    (b"\xff\xfe", "malformed JSON"), (b"[1]", "malformed JSON"), (b"null", "malformed JSON"),
    (b"[" * 200000, "malformed JSON"), (b"{\"x\": " + b"9" * 300000 + b"}", "malformed JSON"),
    (b"{\"a\": \"" + b"x" * 5000000 + b"\"}", "too many bytes"),
    (b"{\"error\": {\"code\": \"maxlag\"}}", "service error: maxlag"),
    (b"{}", "no more search results"), (b"{\"query\": []}", "no more search results"),
    (b"{\"query\": {\"pages\": {\"1\": null, \"2\": {\"imageinfo\": [7]}, \"3\": {\"imageinfo\": "
     b"[{\"thumburl\": 5, \"url\": \"ftp://x/y\", \"extmetadata\": []}]}}}, \"continue\": 4}",
     "no more search results"),
])
def test_a_search_that_brings_nonsense_is_reported(server, run, tmp_path, answer, words):
    fill(server, "cat", range(4))
    server.search_faults["dog", 0] = lambda handler: handler.send_body(answer)
    code, out, err = run("--queries", "dog", "cat", retries=1)
    assert code == 0
    assert "warning: dog: 0 pictures of 500: " in err and words in err
    assert "cat: 4 kept" in out
    assert len(kept(tmp_path)) == 4


def test_nonsense_from_openverse_is_reported(server, run, tmp_path):
    fill(server, "cat", range(4))
    nonsense = {"page_count": "many", "results": [None, {"url": {}}, {"thumbnail": "http://[", }]}
    server.search_faults["dog", 0] = lambda handler: handler.send_json(nonsense)
    code, _, err = run("--source", "openverse", "--queries", "dog", "cat")
    assert code == 0
    assert "dog: 0 pictures of 500: there are no more search results" in err


def test_a_search_is_tried_again_and_goes_on_where_it_failed(server, run, tmp_path):
    fill(server, "dog", range(120))
    answers = iter([b"{", b"{\"error\": {\"code\": \"maxlag\"}}"])

    def stumble(handler):
        answer = next(answers, None)
        if answer is None:
            del server.search_faults["dog", 1]
            handler._search("dog", 1, handler._wikimedia)
        else:
            handler.send_body(answer)

    server.search_faults["dog", 1] = stumble
    server.search_faults["dog", 2] = lambda handler: handler.send_body(b"no", status=503)
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 100
    server.search_faults.clear()
    server.hits.clear()
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 120
    assert server.hits == {"search": 1, **{"{}.jpg".format(n): 1 for n in range(100, 120)}}


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


def test_nothing_found_is_exit_code_1(server, run, tmp_path):
    fill(server, "dog", range(3), "404")
    code, _, err = run("--queries", "dog", "cat")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: no picture was kept (3 HTTP 404; there are")
    assert causes(tmp_path) == {"{}.jpg".format(number): "HTTP 404" for number in range(3)}
    assert not glob.glob(str(tmp_path / "*.pickle"))


def test_no_server_is_exit_code_1(run, tmp_path):
    with PictureServer() as gone:
        pass
    code, _, err = run("--queries", "dog", "--endpoint", gone.url)
    assert code == 1
    assert "the search failed: connection broken: [Errno " in err.splitlines()[-1]
    assert "refused" in err.splitlines()[-1]


def test_faces_are_left_out(server, run, tmp_path):
    face = photographs.astronaut()[:256, 100:356]
    for name, image in [("face", face), ("cat", photographs.chelsea()),
                        ("cup", photographs.coffee()), ("rocket", photographs.rocket())]:
        server.add("things", name + ".png", encode(image, "PNG"))
    code, _, _ = run("--queries", "things", faces=())
    assert code == 0
    assert causes(tmp_path) == {"face.png": "human face"}
    assert len(kept(tmp_path)) == 3
    run("--queries", "things", "--data-dir", tmp_path / "faces")
    assert len(kept(tmp_path / "faces")) == 4


def bomb(width, height):
    """A PNG of a few bytes that claims to be enormous."""
    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def test_pictures_of_unsuitable_size_or_format_are_left_out(server, run, tmp_path):
    fill(server, "dog", range(3))
    server.add("dog", "bomb.png", bomb(60000, 60000))
    server.add("dog", "large.png", bomb(9000, 9000))
    server.add("dog", "narrow.png", encode(texture(10, 63, 500), "PNG"))
    server.add("dog", "strip.png", encode(texture(11, 64, 4000), "PNG"))  # 8 x 512 once shrunk
    server.add("dog", "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    run("--queries", "dog")
    assert causes(tmp_path) == {"bomb.png": "too many pixels", "large.png": "too many pixels",
                                "narrow.png": "too small", "strip.png": "too small",
                                "script.jpg": "not an image"}
    assert len(kept(tmp_path)) == 3


def test_stored_pictures_are_small_and_carry_nothing_else(server, run, tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("secret.txt", "SECRET")
    marked = Image.Exif()
    marked[0x010E] = "SECRET"
    body = encode(texture(1, 600, 1200), exif=marked.tobytes(), comment=b"SECRET")
    assert b"SECRET" in body
    server.add("dog", "1.jpg", body + archive.getvalue())
    fill(server, "dog", range(2, 5))
    run("--queries", "dog")
    shapes = []
    for name in kept(tmp_path):
        path = str(tmp_path / "neg_samples" / name)
        with open(path, "rb") as stream:
            content = stream.read()
        assert b"SECRET" not in content and b"secret.txt" not in content
        image = decode.read_image(path)
        shapes.append(image.shape[:2])
        assert os.path.basename(name) == decode.pixel_digest(image) + ".jpg"
    assert sorted(shapes) == [(96, 96)] * 3 + [(256, 512)]


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


def test_only_passing_failures_are_tried_again(server, run, tmp_path):
    fill(server, "dog", range(5))
    faults = ["503", "reset", "stall", "429", "403", "407", "424", "404", "html", "noai"]
    for number, fault in enumerate(faults, 10):
        fill(server, "dog", [number], fault)
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 5
    server.faults.clear()
    server.hits.clear()
    run("--queries", "dog")
    assert server.hits == {"{}.jpg".format(number): 1 for number in range(10, 17)}
    assert len(kept(tmp_path)) == 12
    assert causes(tmp_path) == {"17.jpg": "HTTP 404", "18.jpg": "not an image", "19.jpg": "noai"}


def test_no_more_is_fetched_than_asked_for(server, run, tmp_path):
    fill(server, "dog", range(100))
    run("--queries", "dog", "--per-query", "10")
    assert len(kept(tmp_path)) == 10
    assert set(server.hits) == {"search"} | {"{}.jpg".format(number) for number in range(10)}
    before = set(kept(tmp_path))
    trained, _, _ = lists(tmp_path)
    run("--queries", "dog", "--per-query", "70")
    assert before < set(kept(tmp_path)) and len(kept(tmp_path)) == 70
    assert not set(trained) & set(lists(tmp_path)[2])


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


def test_a_collection_split_from_its_folder_is_split_alike(server, run, tmp_path):
    fill(server, "dog", range(40))
    fill(server, "cat", range(50, 80))
    run("--queries", "dog", "cat")
    before = lists(tmp_path)
    (tmp_path / "neg_samples.pickle").unlink()
    code, _, _ = run("--from-dir", tmp_path / "neg_samples")
    assert code == 0
    assert lists(tmp_path) == before


def test_the_progress_bar_counts_kept_and_rejected(server, run, tmp_path, monkeypatch):
    fill(server, "dog", range(8))
    fill(server, "dog", range(8, 10), "404")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _, _, err = run("--queries", "dog", "--per-query", "20")
    assert "dog:" in err and "8/20" in err and "rejected=2" in err and "picture/s" in err


def test_the_contact_sheet_shows_what_was_kept(server, run, tmp_path):
    fill(server, "dog", range(25))
    fill(server, "собака", range(30, 34))
    _, out, _ = run("--queries", "dog", "собака")
    sheet = decode.read_image(str(tmp_path / "neg_samples" / "sheet.png"))
    # Two strips: 25 pictures take two rows of 20, 4 pictures one row.
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


def test_artist_names_lose_their_markup():
    assert services.text_of("<p>Ann</p><br/>B\u00e9 &lt;x&gt;<!-- <b> --><script>a<b</script>") == (
        "Ann B\u00e9 <x>")
    assert services.text_of("5 < 6\x1b[31m") == "5 < 6 [31m"
    assert services.text_of(None) == services.text_of(["a"]) == ""
    assert len(services.text_of("<" * 100000)) <= 300


def test_addresses_from_a_file(server, run, tmp_path):
    fill(server, "-", range(6))
    server.faults["5.jpg"] = "404"
    addresses = ["{}/any/{}.jpg".format(server.url, number) for number in range(6)]
    file = tmp_path / "my list.txt"
    file.write_text("# comment\n\n" + "\n".join(addresses) + "\nfile:///etc/passwd\nnonsense\n")
    arguments = ["--source", "urls", "--urls", file, "--per-query", "2"]
    code, _, _ = run(*arguments)
    assert code == 0
    assert len(kept(tmp_path)) == 5
    assert {os.path.dirname(name) for name in kept(tmp_path)} == {"my_list"}
    rows = {row["name"]: row["cause"] for row in table(tmp_path / "neg_samples" / "report.csv")}
    assert rows == {addresses[5]: "HTTP 404", "file:///etc/passwd": "not an http(s) address",
                    "nonsense": "not an http(s) address"}
    fill(server, "-", [7])
    file.write_text(file.read_text() + server.url + "/any/7.jpg\n")
    server.hits.clear()
    run(*arguments)
    assert len(kept(tmp_path)) == 6
    assert server.hits == {"7.jpg": 1}


@pytest.mark.parametrize("proxy", [
    "socks5://127.0.0.1:1", "http:///", "http://[", "http://127.0.0.1:99999", "ftp://127.0.0.1"])
def test_a_proxy_that_cannot_be_used_spoils_no_address(server, run, tmp_path, monkeypatch, proxy):
    fill(server, "dog", range(4))
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    code, _, err = run("--queries", "dog")
    assert code == 2
    assert err.startswith("error: http_proxy {}: ".format(proxy)) and err.count("\n") == 1
    assert not os.listdir(str(tmp_path))


def test_names_that_stdout_cannot_spell(server, tmp_path):
    fill(server, "собака", range(4))
    done = subprocess.run(
        command(server, tmp_path, "собака"), capture_output=True, timeout=60,
        env=dict(os.environ, PYTHONIOENCODING="latin-1:strict"))
    assert done.returncode == 0
    assert done.stdout.startswith(b"\\u0441\\u043e\\u0431\\u0430\\u043a\\u0430: 4 kept")


@pytest.mark.parametrize("arguments, words", [
    (["--source", "urls"], "--urls FILE is missing"),
    (["--urls", "empty.txt"], "--urls empty.txt: needs --source urls"),
    (["--source", "urls", "--urls", "missing.txt"], "missing.txt"),
    (["--source", "urls", "--urls", "empty.txt"], "empty.txt: no address in it"),
    (["--source", "urls", "--urls", "binary.txt"], "binary.txt: not UTF-8 text"),
    (["--source", "urls", "--urls", "."], "directory"),
    (["--endpoint", "ftp://host"], "--endpoint ftp://host: not an http(s) address"),
    (["--endpoint", "host"], "not an http(s) address"),
    (["--endpoint", "http://host:port"], "not an http(s) address"),
    (["--queries", "dog", " "], "--queries: one of them is empty"),
    (["--queries", "dog", "x" * 201], "--queries: one of them is longer than 200 characters"),
    (["--data-dir", "empty.txt"], "empty.txt"),
])
def test_bad_input(server, run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\x89PNG\xff\xfe\0")
    code, _, err = run(*arguments)
    assert code == 2
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and words in err
    assert sorted(os.listdir(".")) == ["binary.txt", "empty.txt"]
    assert not server.hits


@pytest.mark.parametrize("line", [
    b"{", b"[]", b"{}", b"{\"kind\": \"verdict\", \"query\": \"a\", \"url\": \"b\"}", b"\xff",
    b"{\"kind\": \"fetched\", \"candidate\": [\"u\", \"\", \"\", \"\"], \"digest\": \"../../x\", "
    b"\"hash\": \"0\", \"time\": \"\"}",
])
def test_a_damaged_journal_is_bad_input(server, run, tmp_path, line):
    fill(server, "dog", range(4))
    run("--queries", "dog")
    journal = tmp_path / "neg_samples" / "journal.jsonl"
    content = journal.read_bytes().splitlines(True)
    journal.write_bytes(b"".join(content[:2] + [line + b"\n"] + content[2:]))
    code, _, err = run("--queries", "dog")
    assert code == 2
    assert err.count("\n") == 1 and "journal.jsonl: line 3 is damaged" in err


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


@pytest.mark.parametrize("cut", [1, 30])
def test_a_line_cut_short_by_a_kill_is_no_damage(server, run, tmp_path, cut):
    fill(server, "dog", range(12))
    run("--queries", "dog")
    before = kept(tmp_path), lists(tmp_path)
    journal = tmp_path / "neg_samples" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    server.hits.clear()
    for _ in range(2):  # the second reads what the first wrote behind the cut
        code, _, _ = run("--queries", "dog")
        assert code == 0
        assert (kept(tmp_path), lists(tmp_path)) == before
    assert not any(name.endswith(".jpg") for name in server.hits)


def test_what_was_fetched_for_another_query_is_not_fetched_twice(server, run, tmp_path):
    """Nor does a picture or a sheet half written by a kill stay for ever."""
    folder = tmp_path / "neg_samples"
    fill(server, "dog", range(12))
    fill(server, "cat", range(20, 24))
    run("--queries", "dog")
    journal = folder / "journal.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    undone = [row for row in rows if row["kind"] == "verdict"][-3:]
    digests = {row["candidate"][0]: row["digest"] for row in rows if row["kind"] == "fetched"}
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows if row not in undone))
    (folder / ".incoming").mkdir()
    for row in undone:
        name = digests[row["url"]] + ".jpg"
        (folder / "dog" / name).rename(folder / ".incoming" / name)
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


def busy_site(server):
    """1,000 pictures for three queries: 100 with passing faults, 100 with lasting ones, 20 twins.

    Returns
    -------
    int
        How many are worth keeping.
    """
    passing = ["429 once", "503 with Retry-After once", "503 once", "reset once", "slow",
               "reset before the answer once", "429 with Retry-After once", "500 once", "slow",
               "stall once"]
    lasting = ["404", "html", "truncated", "endless", "length too short", "noai", "redirect loop",
               "redirect to file", "empty", "410"]
    for number in range(1000):
        fault = None
        if number % 5 == 3:
            faults = passing if number % 10 == 3 else lasting
            fault = faults[number // 10 % 10]
        query = ("dog", "car", "sky")[number % 3]
        if number % 50 == 7:  # a near duplicate of a picture of another query
            server.add(query, "{}.jpg".format(number), encode(texture(number - 5), quality=60))
        else:
            fill(server, query, [number], fault)
    return 880


def crowd(server, data_dir):
    return command(server, data_dir, "dog", "car", "sky")


def attributed(data_dir):
    rows = table(os.path.join(str(data_dir), "neg_samples", "ATTRIBUTION.csv"))
    return [[value for key, value in row.items() if key != "retrieved"] for row in rows]


def test_a_thousand_pictures_with_faults_and_three_kills(tmp_path, monkeypatch):
    """Every good picture is kept exactly once; killed three times, the result is the same."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with PictureServer() as server:
        good = busy_site(server)
        port = server.url
        subprocess.run(crowd(server, whole), check=True, timeout=90, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        assert len(kept(whole)) == good
        assert len(causes(whole)) == 1000 - good
    with PictureServer() as server:
        busy_site(server)
        for goal in (150, 400, 700):
            process = subprocess.Popen(crowd(server, killed), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            assert server.wait_for(lambda goal=goal: sum(server.served.values()) >= goal)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        subprocess.run(crowd(server, killed), check=True, timeout=90, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        # What was on its way at a kill, and nothing else, is sent twice: four threads, three kills.
        again = sum(count - 1 for count in server.served.values())
        assert again <= 3 * 4
        assert [[cell.replace(server.url, port) for cell in row] for row in attributed(killed)] == (
            attributed(whole))
    assert kept(killed) == kept(whole)
    assert lists(killed) == lists(whole)
    assert causes(killed) == causes(whole)
    train, val, test = lists(whole)
    assert len(set(train + val + test)) == good == len(train + val + test)
    assert not glob.glob(str(killed / "neg_samples" / ".incoming*"))


def test_ctrl_c_ends_with_one_line_and_loses_nothing(server, tmp_path):
    fill(server, "dog", range(20))
    fill(server, "dog", [20], "stall once")
    process = subprocess.Popen(command(server, tmp_path, "dog", seconds=60),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               preexec_fn=heed_sigint)
    assert server.wait_for(lambda: server.hits["20.jpg"] and len(server.served) == 20)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().splitlines() == ["error: interrupted"]
    subprocess.run(command(server, tmp_path, "dog"), check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert len(kept(tmp_path)) == 21


def test_retry_after_is_understood_in_both_forms():
    def seconds(value):
        answer = requests.Response()
        answer.headers["Retry-After"] = value
        return client._retry_after(answer)

    assert seconds("17") == 17
    later = seconds(email.utils.formatdate(time.time() + 1000, usegmt=True))
    assert 900 < later <= 1000
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for nonsense in ("", "soon", "-5", "1e9", "1 Jan , 00:00:00 GMT"):
        assert seconds(nonsense) is None
    assert seconds("9" * 30) == 6 * 3600
    for nonsense in ("9" * 6000, "Wed, 99 Oct 2015 99:28:00 GMT", "1 Jan 99999999 00:00:00 GMT"):
        assert seconds(nonsense) in (None, 0, 6 * 3600)


def test_overload_holds_back_the_whole_host(monkeypatch):
    """After HTTP 503 with Retry-After no thread asks the host before the time is over."""
    now = [1000.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    limiter = client._RateLimiter(rate=2)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(limiter, "sleep", sleep)
    limiter.take_turn("host")
    limiter.take_turn("host")
    limiter.hold("host", 30)
    limiter.take_turn("other")
    limiter.take_turn("host")
    assert waits == [0.5, 30]
    limiter.close("host", 100)
    with pytest.raises(client.Denied):
        limiter.take_turn("host")
    now[0] += 101
    limiter.take_turn("host")
    assert waits == [0.5, 30]


def test_addresses_in_a_file_may_not_be_private(server, run_script, tmp_path):
    """Nor under other notations, or names; with --endpoint on that network they may."""
    fill(server, "-", range(4))
    port = server.url.rpartition(":")[2]
    hosts = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost",
             "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::1]", "[::]", "127.0.0.1.",
             "\uff11\uff12\uff17.0.0.1"]
    file = tmp_path / "list.txt"
    file.write_text("".join("http://{}:{}/{}.jpg\n".format(host, port, number % 4)
                            for number, host in enumerate(hosts)), encoding="utf-8")
    arguments = ["--source", "urls", "--urls", file, "--data-dir", tmp_path, *FAST]
    code, _, err = run_script(gen_neg_samples, *arguments)
    assert code == 1 and "({} private address;".format(len(hosts)) in err
    assert not server.hits
    file.write_text("".join("{}/{}.jpg\n".format(server.url, number) for number in range(4)))
    code, _, _ = run_script(gen_neg_samples, *arguments, "--endpoint", server.url, "--keep-faces",
                            "--data-dir", tmp_path / "allowed")
    assert code == 0
    assert len(kept(tmp_path / "allowed")) == 4


def test_a_search_result_may_not_be_private(server, run, tmp_path):
    fill(server, "dog", range(4))
    answers = ["http://192.168.0.1/a.jpg", "http://[fe80::1]/b.jpg", "http://[fd00::1]/c.jpg",
               "http://169.254.169.254/d.jpg", "http://[::ffff:10.0.0.1]/e.jpg",
               "http://167772161/f.jpg"]
    server.search_faults["cat", 0] = lambda handler: handler.send_json({"query": {"pages": {
        str(number): {"imageinfo": [{"url": url}]} for number, url in enumerate(answers)}}})
    code, _, _ = run("--queries", "dog", "cat")
    assert code == 0
    assert causes(tmp_path) == {url.rpartition("/")[2]: "private address" for url in answers}


def test_a_name_may_not_lead_to_a_private_address(server, monkeypatch):
    """The address that is connected to is checked, before a byte is sent."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **options: resolve(
        "127.0.0.1" if host == "pictures.example.org" else host, *rest, **options))
    monkeypatch.setenv("NO_PROXY", "*")
    server.add("dog", "0.jpg", b"picture")
    address = server.url.replace("127.0.0.1", "pictures.example.org") + "/0.jpg"
    for url in (address, address.replace("http:", "https:")):
        with pytest.raises(client.Refused) as caught:
            client.PoliteClient("", 5000, 1, patience=PATIENCE).get_picture(url, 1000)
        assert str(caught.value) == "private address: pictures.example.org is at 127.0.0.1"
    assert not server.hits
    polite = client.PoliteClient("", 5000, 1, services.allowed_networks(address), PATIENCE)
    assert polite.get_picture(address, 1000) == b"picture"


def test_web_addresses():
    good = ["http://a.org", "https://a.org:8080/b?c=d#e", "http://127.0.0.1:1/%20"]
    bad = ["", "a.org", "//a.org", "ftp://a.org/b", "file:///etc/passwd", "http://", "http:///b",
           "http://a b.org", "http://a.org\n", "http://a.org:x/", "http://[", "javascript:alert(1)",
           "http://a.org/" + "x" * 2000, "http://a.org/\0"]
    assert all(client.is_web_address(url) for url in good)
    assert not any(client.is_web_address(url) for url in bad)


def test_journal_holds_no_more_than_plain_lines(server, run, tmp_path):
    fill(server, "dog", range(4))
    run("--queries", "dog")
    rows = [json.loads(line) for line in
            (tmp_path / "neg_samples" / "journal.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows].count("fetched") == 4
    assert [row["cause"] for row in rows if row["kind"] == "verdict"] == ["kept"] * 4
