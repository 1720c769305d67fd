"""The server under serve.py: slow clients, clients that leave, crowds, what is slow to parse."""

import contextlib
import socket
import struct
import threading
import time

import pytest
import requests

from darknet_face.serving import server as module
from darknet_face.serving.server import Server

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
MOST_BYTES = 100 * 1000


def answer_length(environ, start_response):
    """An application that answers how long the body was."""
    body = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(params=[200, 0.5], ids=["patient", "impatient"])
def running(request, monkeypatch):
    """A server of one thread in this process. "impatient" cuts slow clients off soon."""
    monkeypatch.setattr(module, "PATIENCE", request.param)
    monkeypatch.setattr(module, "CLEANUP_INTERVAL", 0.1)
    monkeypatch.setattr(module, "MOST_OF_AN_ADDRESS", 20)
    with serving(Server(answer_length, "127.0.0.1", 0, 1, MOST_BYTES)) as server:
        yield server


patient = pytest.mark.parametrize("running", [200], indirect=True, ids=["patient"])
impatient = pytest.mark.parametrize("running", [0.5], indirect=True, ids=["impatient"])


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def connect(server, source="127.0.0.1"):
    connection = socket.create_connection(("127.0.0.1", server.port), 60, (source, 0))
    connection.settimeout(60)
    return connection


def ask(server, body=b"hello", **options):
    return requests.post("http://127.0.0.1:{}/".format(server.port), data=body, timeout=60,
                         **options)


def rest_of(connection):
    """What a server still sends before it closes the connection."""
    with contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: connection.recv(1000), b""))
    return b""


def is_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


@impatient
def test_a_client_that_drips_is_cut_off(running):
    with connect(running) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n")
        deadline = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < deadline, "each byte kept it open"


@impatient
def test_a_client_that_does_not_read_is_cut_off(running, monkeypatch):
    monkeypatch.setattr(module, "SLOWEST", 1e8)

    def long_answer(environ, start_response):
        start_response("200 OK", [("Content-Length", "9000000")])
        return [b"x" * 9000000]

    monkeypatch.setattr(running._listener, "application", long_answer)
    with connect(running) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1)
        deadline = time.monotonic() + 60
        while running._listener.active_channels and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not running._listener.active_channels


@impatient
def test_a_client_that_sends_steadily_may_take_its_time(running, monkeypatch):
    monkeypatch.setattr(module, "SLOWEST", 1000)
    with connect(running) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 20000\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"x" * 1000)
            time.sleep(0.1)  # 2 seconds in all, four times its patience
        assert rest_of(connection).endswith(b"20000")


@patient
def test_an_address_with_a_crowd_loses_its_slowest(running):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(running)) for _ in range(20)]
        for each in slow:
            each.sendall(b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n")
        stranger = stack.enter_context(connect(running, "127.0.0.2"))
        upload = stack.enter_context(connect(running))
        upload.sendall(b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n")
        more = []
        for _ in range(30):
            more.append(stack.enter_context(connect(running)))
            upload.sendall(b"x" * 1000)
            time.sleep(0.01)
        for _ in range(3):
            assert ask(running).text == "5", "somebody of the same address still gets in"
        assert sum(map(is_open, slow + more)) <= 20 and not is_open(slow[0])
        assert is_open(upload), "a client that goes on sending stays"
        assert is_open(stranger), "another address pays for nothing"


@patient
def test_all_addresses_together_are_bounded(running, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 30)
    with contextlib.ExitStack() as stack:
        few = [stack.enter_context(connect(running, "127.0.0.2")) for _ in range(5)]
        many = [stack.enter_context(connect(running, "127.0.0.{}".format(3 + number % 2)))
                for number in range(38)]
        assert ask(running).text == "5"
        assert all(map(is_open, few)) and sum(map(is_open, many)) <= 25


@patient
def test_a_trusted_proxy_may_have_all_connections(running):
    running._listener.has_no_bound = lambda address: address == "127.0.0.1"
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(running)) for _ in range(40)]
        assert ask(running).text == "5" and all(map(is_open, waiting))


@patient
def test_clients_that_leave_at_once_leave_nothing_behind(running):
    """On waitress 2.1.2 each kept a file open for good (CVE-2024-49769)."""
    head = b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n"
    for content in [b""] * 200 + [b"POST"] * 150 + [head + b"x" * 50000] * 150:
        with connect(running) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.sendall(content)
    assert ask(running).text == "5"
    deadline = time.monotonic() + 60
    while running._listener.active_channels and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running._listener.active_channels


@patient
@pytest.mark.parametrize("head", [
    b"GET a://" + b"1" * 15000 + b" x", b"GET / HTTP/1.1\r\nX:" + b" \t" * 7000 + b"a",
    b"GET / HTTP/1.1\r\nX:" + b"\r\n " * 5000 + b"a", b"GET http://[ HTTP/1.1",
    b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 9000])
def test_a_head_that_is_slow_to_parse_is_refused(running, head):
    """waitress itself takes up to three minutes for these, and answers nobody meanwhile."""
    with connect(running) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert rest_of(connection)[:12] in (b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.0 413", b"")
    assert ask(running).text == "5"


@patient
def test_chunks_are_taken_within_bounds(running):
    assert ask(running, iter([b"ab", b"cde"])).text == "5"
    for body in (b"5;" + b"a" * 30000, b"0\r\n" + b"a: b\r\n" * 5000):
        with connect(running) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
            assert rest_of(connection)[9:12] in (b"400", b"")
    assert ask(running).text == "5"


@patient
def test_too_long_requests_are_refused(running):
    assert ask(running, b"x" * MOST_BYTES).text == str(MOST_BYTES)
    for length in (MOST_BYTES + 1, 10 ** 12):
        with connect(running) as connection:
            connection.sendall("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n".format(
                length).encode())
            answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 413") and answer.endswith(
            b'{"error": "a request of more than 100,000 bytes; send smaller or fewer images"}\n')
    with connect(running) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * 70000)
        assert rest_of(connection)[9:12] in (b"431", b"")


def test_ipv6_addresses_of_one_network_count_as_one():
    assert module._origin("2001:db8::1") == module._origin("2001:db8::2:3%eth0") == "2001:db8::/64"
    assert module._origin("2001:db8:0:1::1") != "2001:db8::/64"
    assert module._origin("10.0.0.1") == "10.0.0.1"


def test_a_name_with_two_addresses_is_served():
    with serving(Server(answer_length, "localhost", 0, 1, MOST_BYTES)) as server:
        assert requests.get("http://localhost:{}/".format(server.port), timeout=60).text == "0"
