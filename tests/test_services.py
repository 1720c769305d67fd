"""What the search services and files of addresses answer, sense and nonsense."""

import json
import os

import negatives_runs
import pytest
import requests
from negatives_runs import FAST, causes, fill, kept, lists, table

import gen_neg_samples
from darknet_face.negatives import services

# pytest finds fixtures under these names.
server, run = negatives_runs.server, negatives_runs.run


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
    assert "dog: 70 images of 500: there are no more search results" in err
    assert server.agents == {"gen_neg_samples/1.0 (tests@example.org) {}".format(
        requests.utils.default_user_agent())}


@pytest.mark.parametrize("source, page_size", [("wikimedia", 50), ("openverse", 20)])
def test_of_an_enormous_result_page_a_page_is_taken(server, run, tmp_path, source, page_size):
    """Four images are wanted, and a service offers 70,000 that are not there."""
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


def test_older_versions_of_a_single_result_are_not_asked_for(server, run, tmp_path):
    """MediaWiki offers them if a page holds a single result, such as the last page of 51."""
    fill(server, "dog", range(51))
    server.search_faults["dog", 1] = lambda handler: handler.send_json(dict(
        handler._wikimedia([(50, "50.jpg")], 1, False),
        **{"continue": {"iistart": "2009-09-30T06:04:51Z", "continue": "||"}}))
    code, _, err = run("--queries", "dog")
    assert code == 0
    assert len(kept(tmp_path)) == 51
    assert server.hits["search"] == 2 and "there are no more search results" in err


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
    assert "warning: dog: 0 images of 500: " in err and words in err
    assert "cat: 4 kept" in out
    assert len(kept(tmp_path)) == 4


def test_nonsense_from_openverse_is_reported(server, run, tmp_path):
    fill(server, "cat", range(4))
    nonsense = {"page_count": "many", "results": [None, {"url": {}}, {"thumbnail": "http://[", }]}
    server.search_faults["dog", 0] = lambda handler: handler.send_json(nonsense)
    code, _, err = run("--source", "openverse", "--queries", "dog", "cat")
    assert code == 0
    assert "dog: 0 images of 500: there are no more search results" in err


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


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_a_regular_file_has_addresses(run_script, tmp_path, kind):
    path = tmp_path / "addresses"
    if kind == "pipe":
        os.mkfifo(str(path))  # must not wait for a writer
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    code, _, err = run_script(gen_neg_samples, "--source", "urls", "--urls", path, "--data-dir",
                              tmp_path, *FAST)
    assert code == 2 and err.startswith("error: {}: ".format(path)) and err.count("\n") == 1


def test_addresses_in_a_file_may_not_be_private(server, run_script, tmp_path):
    """Neither in another notation, nor by name; with --endpoint on that network they may."""
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
