"""serve.py over real HTTP: its answers, its limits, strangers, load, and how it ends."""

import base64
import contextlib
import importlib.util
import io
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

import numpy as np
import pytest
import requests
from conftest import ROOT, make_odd_files
from PIL import Image
from serving_process import served

import serve
from darknet_face import load
from darknet_face.images.samples import sample_images
from darknet_face.serving.command import is_loopback

QUEUE = 8
APP = "https://app.example"  # whose pages may use the endpoint
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=B"}


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    errors = str(tmp_path_factory.mktemp("serve") / "errors")
    log = tmp_path_factory.mktemp("log") / "access.log"
    with served(tiny_model.folder, errors, "--search", 2, "--queue", QUEUE, "--max-megabytes", 2,
                "--max-megapixels", 1, "--cors", APP, "--name", "faces.example", "--access-log",
                log) as server:
        server.access_log = log
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
    """A form of three images without its last boundary, as options of a request."""
    body = b"".join(b'--B\r\nContent-Disposition: form-data; name="p"; filename="p.png"\r\n\r\n'
                    + encoded(number) + b"\r\n" for number in range(3))
    return {"data": body, "headers": FORM}


def same(row, result):
    """Whether a row of the answer is what the API says."""
    return (row["probability"] == pytest.approx(result.probability, abs=1e-6)
            and row["label"] == result.label and row["is_face"] == result.is_face
            and row["place"] == dict(result.box._asdict()))


def test_an_image_in_the_body(server, model):
    for form, headers in (("PNG", {}), ("JPEG", {"Content-Type": "image/jpeg"}),
                          ("WEBP", {"Content-Type": "application/octet-stream"})):
        content = encoded(1, form)
        answer = requests.post(server.url + "/classify", data=content, headers=headers)
        assert answer.status_code == 200 and answer.json()["threshold"] == 0.5
        row, = answer.json()["results"]
        assert same(row, model(content)) and row["name"] is None and "map" not in row


def test_a_large_jpeg_is_decoded_at_reduced_scale(server):
    """Phones store more pixels than are worth decoding; the bound is on what is decoded."""
    content = encoded(1, "JPEG", (1600, 1200))
    row, = requests.post(server.url + "/classify", data=content).json()["results"]
    assert "error" not in row and row["place"]["width"] > 0


def test_several_images_in_a_form(server, model, tmp_path):
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


def test_base64_in_json(server, model):
    contents = [encoded(1), encoded(2, "JPEG"), b"<html>"]
    texts = [base64.b64encode(content).decode() for content in contents]
    texts[1] = "data:image/jpeg;base64," + texts[1][:70] + "\n" + texts[1][70:]
    answer = requests.post(server.url + "/classify", json={"images": texts})
    rows = answer.json()["results"]
    assert answer.status_code == 200 and [row["name"] for row in rows] == [None] * 3
    assert same(rows[0], model(contents[0])) and same(rows[1], model(contents[1]))
    assert rows[2]["error"]
    answer = requests.post(server.url + "/classify", json={"image": texts[1]})
    assert answer.json()["results"] == rows[1:2]


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
                      "threshold": 0.5, "waiting": 0, "local": False}


def test_the_images_to_try_are_served_and_nothing_else_beside_them(server):
    names = requests.get(server.url + "/samples/").json()["samples"]
    assert len(names) == 4
    for name in names:
        answer = requests.get(server.url + "/samples/" + name)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert 400 < max(Image.open(io.BytesIO(answer.content)).size) <= 480
    for name in ("none.jpg", "..%2fpage.js", "%2fetc%2fpasswd"):
        assert requests.get(server.url + "/samples/" + name).status_code == 404


@pytest.mark.parametrize("status, request_", [
    (413, {"files": [("p", encoded(0))] * (QUEUE + 1)}),
    (415, {"data": b"x", "headers": {"Content-Type": "text/html"}}),
    (422, {"json": {"picture": "a.jpg"}, "data": None}), (422, {"json": [], "data": None}),
    (422, {"json": {"images": []}, "data": None}), (422, {"json": {"image": 7}, "data": None}),
    (422, {"json": {"image": "https://app.example/a.jpg"}, "data": None}),
    (422, {"json": {"image": "data:image/jpeg,%FF%D8"}, "data": None}),
    (422, {"json": {"image": "data:image/jpeg;base64,/9j/4AA"}, "data": None}),
    (413, {"json": {"images": [""] * (QUEUE + 1)}, "data": None}),
    (422, {"data": b"[" * 100000, "headers": JSON}), (422, {"data": b"\xff", "headers": JSON}),
    (422, {"data": b'{"image": ' + b"9" * 1000000, "headers": JSON}),
    (422, {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
    (422, {"data": b"--\r\n\r\n", "headers": {"Content-Type": "multipart/form-data; boundary="}}),
    (422, {"data": b"--B\r\nX: " + b"y" * 9000 + b"\r\n\r\n\r\n--B--", "headers": FORM}),
    (413, {"data": b"--B\r\n\r\n\r\n" * 5000 + b"--B--", "headers": FORM}),
    (422, {"data": b"\r" * 1900000, "headers": FORM}),
    (400, {"path": "/classify?threshold=0.3"}), (400, {"path": "/classify?map=yes"}),
    (422, {"data": b""}), (422, {"data": b"<html>"}), (422, {"data": encoded(0)[:500]}),
    (422, {"data": encoded(0, size=(1001, 1000))}),
    (422, {"files": [("p", b"x"), ("q", b"")]}),
    (422, {"files": {"p": ("", b"")}, "data": {"a": "b"}}), (422, cut_form()),
    (405, {"method": "GET"}), (404, {"path": "/other"}), (404, {"path": "/../serve.py"}),
    (403, {"headers": {"Origin": "http://strange.example"}}),
    (403, {"headers": {"Origin": "null"}}), (403, {"headers": {"Origin": "http://["}}),
    (403, {"headers": {"Origin": APP + ".strange.example"}}),
    (403, {"headers": {"Origin": "http://localhost:3000"}}),
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


@pytest.mark.parametrize("headers", [
    {"Origin": "{url}", "Sec-Fetch-Site": "same-origin"}, {"Origin": "{url}"},
    {"Origin": "https://faces.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://faces.example:8443"}])
def test_the_own_page_may_ask(server, headers):
    """Behind a proxy too, which browsers see by another scheme and name."""
    answer = requests.post(server.url + "/classify", data=encoded(0), headers={
        name: value.format(url=server.url) for name, value in headers.items()})
    assert answer.status_code == 200 and "Access-Control-Allow-Origin" not in answer.headers


def test_an_allowed_site_may_ask(server):
    foreign = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
    preflight = requests.options(server.url + "/classify", headers=dict(
        foreign, **{"Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "content-type"}))
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type"
    for content, status in ((encoded(0), 200), (b"bad", 422)):
        answer = requests.post(server.url + "/classify", data=content, headers=foreign)
        assert answer.status_code == status and "error" in answer.text or status == 200
        for each in (preflight, answer):
            assert each.headers["Access-Control-Allow-Origin"] == APP
            assert each.headers["Vary"] == "Origin"


def test_an_operator_sees_requests_and_no_names(server, tmp_path):
    pytest.importorskip("prometheus_client")

    def value(name):
        lines = requests.get(server.url + "/metrics").text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    ok = 'darknet_face_requests_total{endpoint="classify",status="200"}'
    seconds = 'darknet_face_request_seconds_count{endpoint="classify"}'
    bad = 'darknet_face_images_total{label="unreadable"}'
    before = [value(name) for name in (ok, seconds, bad)]
    requests.post(server.url + "/classify", files=[
        ("a", ("secret.png", encoded(0))), ("b", ("secret.txt", b"bad"))])
    assert [value(name) for name in (ok, seconds, bad)] == [number + 1 for number in before]
    assert value("darknet_face_waiting_images") == 0
    requests.get(server.url + "/no%22\u202ewhere?a=%0a")
    with open(server.access_log) as stream:
        text = stream.read()
    assert re.search(r'^127\.0\.0\.1 - - \[\S+ \S+] "POST /classify HTTP/1.1" 200 \d+ \d\.\d{3}$',
                     text, re.MULTILINE)
    assert '"GET /no%22\\u202ewhere?a=%0A HTTP/1.1" 404' in text and "secret" not in text


def test_slow_and_aborted_clients_keep_nobody_out(server):
    host, port = server.url[len("http://"):].split(":")
    with contextlib.ExitStack() as stack:
        for number in range(520):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 60))
            connection.sendall(b"POST /classify HTTP/1.1\r\n")
            if number % 2:  # a reset, in place of an orderly end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
        assert requests.get(server.url + "/healthz", timeout=60).status_code == 200


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


def test_a_second_signal_ends_it_at_once(tiny_model, tmp_path):
    with served(tiny_model.folder, str(tmp_path / "errors"), "--search", 4) as server:
        content = encoded(0, "JPEG", size=(4000, 3000))

        def client():
            with contextlib.suppress(requests.RequestException):
                requests.post(server.url + "/classify?map=1", files=[("p", content)] * 10)

        clients = [threading.Thread(target=client) for _ in range(3)]
        for client in clients:
            client.start()
        deadline = time.time() + 60
        while requests.get(server.url + "/healthz").json()["waiting"] < 10:
            assert time.time() < deadline
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two at once may count as one
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 130, "it would take minutes to answer"
        assert server.read_errors() == "error: stopped before everything was answered\n"
        for client in clients:
            client.join(60)


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
