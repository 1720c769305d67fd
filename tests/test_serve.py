"""serve.py over real HTTP: its answers, its limits, strangers, load, and how it ends."""

import base64
import contextlib
import importlib.util
import io
import os
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest
import requests
from conftest import ROOT, make_odd_files
from PIL import Image
from serving_process import served

import darknet_face.serving.server
import serve
from darknet_face import load
from darknet_face.images.samples import sample_images
from darknet_face.serving.command import is_loopback

QUEUE = 8


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    errors = str(tmp_path_factory.mktemp("serve") / "errors")
    with served(tiny_model.folder, errors, "--search", 2, "--queue", QUEUE, "--max-megabytes", 2,
                "--max-megapixels", 1) as server:
        yield server


@pytest.fixture(scope="module")
def model(tiny_model):
    with load(tiny_model.npz, search=2, tight_boxes=True) as model:
        yield model


def encoded(number, form="PNG", size=(90, 70)):
    """A part of a photograph as the bytes of a file."""
    source = Image.open(sample_images()[number % 3]).convert("RGB")
    stream = io.BytesIO()
    part = source.crop((10 * number, 5 * number, 10 * number + 200, 5 * number + 150))
    part.resize(size).save(stream, form)
    return stream.getvalue()


def cut_form():
    """A form of three pictures without its last boundary, as options of a request."""
    body = b"".join(b'--B\r\nContent-Disposition: form-data; name="p"; filename="p.png"\r\n\r\n'
                    + encoded(number) + b"\r\n" for number in range(3))
    return {"data": body, "headers": {"Content-Type": "multipart/form-data; boundary=B"}}


def same(row, result):
    """Whether a row of the answer is what the API says."""
    return (row["probability"] == pytest.approx(result.probability, abs=1e-6)
            and row["label"] == result.label and row["is_face"] == result.is_face
            and row["place"] == dict(result.box._asdict()))


def test_a_picture_in_the_body(server, model):
    for form, headers in (("PNG", {}), ("JPEG", {"Content-Type": "image/jpeg"}),
                          ("WEBP", {"Content-Type": "application/octet-stream"})):
        content = encoded(1, form)
        answer = requests.post(server.url + "/classify", data=content, headers=headers)
        assert answer.status_code == 200 and answer.json()["threshold"] == 0.5
        row, = answer.json()["results"]
        assert same(row, model(content)) and row["name"] is None and "map" not in row


def test_several_pictures_in_a_form(server, model, tmp_path):
    make_odd_files(tmp_path / "odd")
    contents = [("a.png", encoded(1)), ("<b>.jpg", encoded(2, "JPEG")),
                ("bad", (tmp_path / "odd" / "truncated.jpg").read_bytes()), ("page", b"<html>")]
    answer = requests.post(server.url + "/classify", files=[
        ("picture", each) for each in contents])
    rows = answer.json()["results"]
    assert answer.status_code == 200 and [row["name"] for row in rows] == [
        name for name, _ in contents]
    for row, (_, content) in zip(rows[:2], contents):
        assert same(row, model(content))
    assert set(rows[2]) == set(rows[3]) == {"name", "error"}


def test_a_heat_map_is_a_small_picture(server, model):
    content = encoded(3, size=(400, 300))
    row, = requests.post(server.url + "/classify?map=1", data=content).json()["results"]
    head, data = row["map"].split(",")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert head == "data:image/png;base64" and drawn.shape == (192, 256, 4)
    truth = model.heat_map(content)
    expected = np.asarray(Image.fromarray(truth).resize((256, 192), Image.BOX))
    np.testing.assert_allclose((drawn[..., 3] / 204.0) ** 2, expected, atol=0.05)


def test_the_page_and_its_health(server):
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "javascript")):
        answer = requests.get(server.url + path)
        assert answer.status_code == 200 and kind in answer.headers["Content-Type"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "http://" not in answer.text and "https://" not in answer.text, "loads from afar"
    health = requests.get(server.url + "/healthz").json()
    assert health == {"status": "ok", "model": "darknet19_weights.npz", "image_size": 32,
                      "threshold": 0.5, "waiting": 0}


@pytest.mark.parametrize("status, request_", [
    (413, {"files": [("p", encoded(0))] * (QUEUE + 1)}),
    (415, {"data": b"x", "headers": {"Content-Type": "text/html"}}),
    (415, {"json": {"picture": "a.jpg"}, "data": None}),
    (422, {"data": b""}), (422, {"data": b"<html>"}), (422, {"data": encoded(0)[:500]}),
    (422, {"data": encoded(0, size=(1001, 1000))}),
    (422, {"files": [("p", b"x"), ("q", b"")]}),
    (422, {"files": {"p": ("", b"")}, "data": {"a": "b"}}), (422, cut_form()),
    (405, {"method": "GET"}), (404, {"path": "/other"}), (404, {"path": "/../serve.py"}),
    (403, {"headers": {"Origin": "http://strange.example"}}),
    (403, {"headers": {"Origin": "null"}}),
    (403, {"headers": {"Host": "strange.example"}}),
    (403, {"headers": {"Host": "127.0.0.1.strange.example:80"}}),
    (403, {"headers": {"Sec-Fetch-Site": "cross-site"}})])
def test_what_is_refused_has_one_line_of_json(server, status, request_):
    options = dict({"method": "POST", "data": None if "files" in request_ else encoded(0)},
                   **request_)
    answer = requests.request(url=server.url + options.pop("path", "/classify"), **options)
    assert answer.status_code == status
    message = answer.json()["error"]
    assert set(answer.json()) == {"error"} and message and "\n" not in message
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Traceback" not in server.read_errors()


@pytest.mark.parametrize("length, status", [(2000002, b"413"), (10 ** 12, b"413")])
def test_long_requests_are_refused_before_they_are_sent(server, length, status):
    host, port = server.url[len("http://"):].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall("POST /classify HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n"
                           .format(host, length).encode())
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 " + status) and b"application/json" in answer
    assert answer.endswith(b'{"error": "a request of more than 2,000,000 bytes; send smaller or '
                           b'fewer pictures"}\n')


def test_the_own_page_may_ask(server):
    answer = requests.post(server.url + "/classify", data=encoded(0), headers={
        "Origin": server.url, "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200


def test_what_is_no_http_is_refused(server):
    host, port = server.url[len("http://"):].split(":")
    for content in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70000):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(content)
            assert connection.recv(1000).startswith(b"HTTP/1.")
    assert requests.get(server.url + "/healthz").status_code == 200


def hello(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture
def small_server(monkeypatch):
    """The server around an application of one line, which soon tires of silent clients."""
    monkeypatch.setattr(darknet_face.serving.server, "LONGEST_SILENCE", 1)
    monkeypatch.setattr(darknet_face.serving.server, "CLEANUP_INTERVAL", 1)
    small = darknet_face.serving.server.Server(hello, "127.0.0.1", 0, 2, 1000)
    thread = threading.Thread(target=small.run)
    thread.start()
    yield small
    small.stop()
    thread.join()


def test_silent_clients_keep_nobody_out(small_server):
    address = "127.0.0.1", small_server.port
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address)) for _ in range(150)]
        for each in silent:
            each.sendall(b"POST / HTTP/1.1\r\n")
        url = "http://127.0.0.1:{}/".format(small_server.port)
        assert requests.get(url, timeout=60).text == "hello"
        for each in silent:
            each.settimeout(60)
            assert each.recv(1) == b"", "a client that says nothing more is cut off"


def test_under_load_nothing_is_lost(server, model):
    """12 clients and a queue of 8: a client that hears 503 tries again, and all are answered."""
    contents = [encoded(number) for number in range(12)]
    expected = [model(content) for content in contents]
    rows, statuses = {}, []

    def client(number):
        with requests.Session() as session:
            for turn in range(4):
                answer = None
                while answer is None or answer.status_code == 503:
                    answer = session.post(server.url + "/classify", data=contents[number])
                    statuses.append(answer.status_code)
                rows[number, turn] = answer.json()["results"][0]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows) == 48 and set(statuses) <= {200, 503} and statuses.count(200) == 48
    for (number, _), row in rows.items():
        assert same(row, expected[number])
    assert requests.get(server.url + "/healthz").json()["waiting"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_answers(tiny_model, tmp_path, number):
    with served(tiny_model.folder, str(tmp_path / "errors"), "--search", 4) as server:
        answers = []
        content = encoded(0, size=(900, 700))

        def client():
            answers.append(requests.post(server.url + "/classify?map=1", files=[
                ("p", content)] * 8).status_code)

        thread = threading.Thread(target=client)
        thread.start()
        deadline = time.time() + 60
        while not requests.get(server.url + "/healthz").json()["waiting"] and thread.is_alive():
            assert time.time() < deadline
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
        thread.join(60)
        assert answers == [200]
        assert server.process.stdout.read() == "answered everything, stopped\n"
        assert server.read_errors() == ""
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url + "/healthz")


def test_start_up_faults_are_one_line(run_script, tiny_model, server, tmp_path):
    port = server.url.rsplit(":", 1)[1]
    for arguments in (["--port", port], ["--host", "300.1.1.1"], ["--weights", tmp_path / "no.npz"],
                      ["--image-size", 33], ["--port", 70000]):
        outcome = run_script(serve, "--model-dir", tiny_model.folder, *arguments)
        assert outcome.code == 2 and "Traceback" not in outcome.err
        assert "error: " in outcome.err.splitlines()[-1]
    assert "batches" not in {thread.name for thread in threading.enumerate()}


def test_strangers_are_warned_of(tiny_model, tmp_path):
    with served(tiny_model.folder, str(tmp_path / "errors"), "--host", "0.0.0.0", "--name",
                "faces.example") as server:
        assert "warning: --host 0.0.0.0: everyone" in server.read_errors()
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        for host, status in (("faces.example", 200), ("other.example", 403), ("10.1.2.3:8", 200)):
            assert requests.get(url, headers={"Host": host}).status_code == status
    assert is_loopback("127.0.0.1") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("faces.example")


def test_the_benchmark_measures_and_loses_nothing(server, monkeypatch):
    folder = os.path.join(ROOT, "benchmarks")
    monkeypatch.setattr(sys, "path", sys.path + [folder])
    spec = importlib.util.spec_from_file_location(
        "serving_benchmark", os.path.join(folder, "serving.py"))
    serving_benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serving_benchmark)
    row = serving_benchmark.measure(server.url, [encoded(1), encoded(2)], clients=3, per_client=2)
    assert (row["clients"], row["requests"], row["failures"]) == (3, 6, 0)
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] and row["per_second"] > 0
    lines = serving_benchmark.format_rows([row]).splitlines()
    assert len(lines) == 2 and lines[1].split()[:2] == ["3", "6"]
    assert serving_benchmark.measure(server.url, [b"bad"], 1, 1)["failures"] == 1
