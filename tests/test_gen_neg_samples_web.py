"""gen_neg_samples.py from start to end against a local server that misbehaves on purpose."""

import glob
import os
import signal
import subprocess

import negatives_runs
import pytest
from conftest import heed_sigint
from negatives_runs import causes, command, fill, kept, lists, table
from negatives_server import PictureServer, encode, texture

# pytest finds fixtures under these names.
server, run = negatives_runs.server, negatives_runs.run

PICTURES = 300


def busy_site(server):
    """300 images for three queries: 30 transient faults, 30 lasting ones, 6 duplicates.

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
    for number in range(PICTURES):
        fault = None
        if number % 5 == 3:
            faults = passing if number % 10 == 3 else lasting
            fault = faults[number // 10 % 10]
        query = ("dog", "car", "sky")[number % 3]
        if number % 50 == 7:  # a near duplicate of an image of another query
            server.add(query, "{}.jpg".format(number), encode(texture(number - 5), quality=60))
        else:
            fill(server, query, [number], fault)
    return 264


def crowd(server, data_dir):
    return command(server, data_dir, "dog", "car", "sky")


def attributed(data_dir):
    rows = table(os.path.join(str(data_dir), "neg_samples", "ATTRIBUTION.csv"))
    return [[value for key, value in row.items() if key != "retrieved"] for row in rows]


def test_hundreds_of_pictures_with_faults_and_three_kills(tmp_path, monkeypatch):
    """Every good image is kept once, and three kills do not change the result."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with PictureServer() as server:
        good = busy_site(server)
        port = server.url
        subprocess.run(crowd(server, whole), check=True, timeout=600, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        assert len(kept(whole)) == good
        assert len(causes(whole)) == PICTURES - good
    with PictureServer() as server:
        busy_site(server)
        for goal in (45, 120, 210):
            process = subprocess.Popen(crowd(server, killed), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            assert server.wait_for(lambda goal=goal: sum(server.served.values()) >= goal)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        subprocess.run(crowd(server, killed), check=True, timeout=600, stdout=subprocess.DEVNULL,
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
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert err.decode().splitlines() == ["error: interrupted"]
    subprocess.run(command(server, tmp_path, "dog"), check=True, timeout=600,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert len(kept(tmp_path)) == 21


def test_a_collection_split_from_its_folder_is_split_alike(server, run, tmp_path):
    fill(server, "dog", range(40))
    fill(server, "cat", range(50, 80))
    run("--queries", "dog", "cat")
    before = lists(tmp_path)
    (tmp_path / "neg_samples.pickle").unlink()
    code, _, _ = run("--from-dir", tmp_path / "neg_samples")
    assert code == 0
    assert lists(tmp_path) == before


def test_nothing_found_is_exit_code_1(server, run, tmp_path):
    fill(server, "dog", range(3), "404")
    code, _, err = run("--queries", "dog", "cat")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: no image was kept (3 HTTP 404; there are")
    assert causes(tmp_path) == {"{}.jpg".format(number): "HTTP 404" for number in range(3)}
    assert not glob.glob(str(tmp_path / "*.pickle"))


def test_no_server_is_exit_code_1(run, tmp_path):
    with PictureServer() as gone:
        pass
    code, _, err = run("--queries", "dog", "--endpoint", gone.url)
    assert code == 1
    assert "the search failed: connection broken: [Errno " in err.splitlines()[-1]
    assert "refused" in err.splitlines()[-1]


def test_names_that_stdout_cannot_spell(server, tmp_path):
    fill(server, "собака", range(4))
    done = subprocess.run(
        command(server, tmp_path, "собака"), capture_output=True, timeout=600,
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
