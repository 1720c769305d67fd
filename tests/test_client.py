"""How the client treats servers that misbehave, and what they ask for."""

import email.utils
import os
import socket
import time

import negatives_runs
import pytest
import requests
from negatives_program import HURRIED, PATIENCE
from negatives_runs import causes, fill, kept

from darknet_face.negatives import client, collector, services

# pytest finds fixtures under these names.
server, run = negatives_runs.server, negatives_runs.run


def test_connections_are_used_again(server, run, tmp_path):
    fill(server, "dog", range(60))
    run("--queries", "dog", "--workers", "3")
    assert len(kept(tmp_path)) == 60
    assert server.connections <= 3 + 1  # the searches come from a thread of their own


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
    code, out, _ = run("--queries", "dog", **(HURRIED if cause == "time-out" else {}))
    assert code == 0
    assert causes(tmp_path) == {"3.jpg": cause}
    assert len(kept(tmp_path)) == 6
    assert "skipped: 1 ({})".format(cause) in out


def test_passing_faults_cost_no_picture(server, run, tmp_path):
    faults = ["429 once", "429 with Retry-After once", "500 once", "503 once", "stall once",
              "503 with Retry-After once", "reset once", "reset before the answer once",
              "trickle once", "trickle without length once", "trickled headers once",
              "hang-up in headers once", "length too long once", "slow", "five redirects", "gzip",
              "chunked"]
    for number, fault in enumerate(faults):
        fill(server, "dog", [number], fault)
    code, _, _ = run("--queries", "dog", **HURRIED, retries=5)
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
    assert "cat: 0 images of 500: the search failed: host asks to wait" in err
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
            polite.get_image(server.url + "/0.jpg", 1000)
        runs.append([wait for wait in waits if wait > 0.1])  # without the waits for a turn
        for wait, most in zip(runs[-1], [1, 2, 4, 8, 16, 20]):
            assert most / 2 <= wait <= most
        assert len(runs[-1]) == 6
    assert runs[0] != runs[1]


def test_a_wish_for_rest_binds_the_host_that_has_it(server, monkeypatch):
    """If the target of a redirect asks to wait, the target is held back, not the first host."""
    server.add("dog", "busy.jpg", b"", "503 with Retry-After")
    server.add("dog", "0.jpg", b"", "redirect to another host")
    polite = client.PoliteClient(
        contact="", rate=5000, workers=1, networks=["loopback"],
        patience=PATIENCE._replace(retries=1, longest_wait=1))
    held = []
    monkeypatch.setattr(polite._limiter, "hold", lambda host, seconds: held.append(host))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with pytest.raises(client.Unavailable):
        polite.get_image(server.url + "/0.jpg", 1000)
    assert set(held) == {"localhost"}


def test_overload_holds_back_the_whole_host(monkeypatch):
    """After HTTP 503 with Retry-After, no thread asks the host too early."""
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


def test_no_server_gets_a_password(server, run, tmp_path, monkeypatch):
    """Neither that which ~/.netrc has for its name, nor one out of an address."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n"
                     "machine secret.example login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(server.url) == ("user", "secret")
    fill(server, "dog", range(4))
    fill(server, "dog", [4], "redirect with a password")
    assert run("--queries", "dog")[0] == 0
    assert causes(tmp_path) == {"4.jpg": "not an http(s) address"}
    assert len(kept(tmp_path)) == 4
    polite = client.PoliteClient("tests@example.org", 5000, 1, {"loopback"}, PATIENCE)
    # requests 2.31 takes the name before the colon for the host whose password to send.
    with pytest.raises(client.Refused, match="not an http"):
        polite.get_image(server.url.replace("//", "//secret.example:@") + "/0.jpg", 10 ** 6)
    assert server.credentials == set()


def test_no_cookies_are_kept(server, run, tmp_path):
    fill(server, "dog", range(20), "cookies")
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 20
    assert server.cookies == set()
    polite = client.PoliteClient("", 5000, 1, ["loopback"], PATIENCE)
    polite.get_image(server.url + "/0.jpg", 1000000)
    assert len(polite._session.cookies) == 0


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


def test_a_name_may_not_lead_to_a_private_address(server, monkeypatch):
    """The address of the connection is checked before a byte is sent."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **options: resolve(
        "127.0.0.1" if host == "pictures.example.org" else host, *rest, **options))
    monkeypatch.setenv("NO_PROXY", "*")
    server.add("dog", "0.jpg", b"picture")
    address = server.url.replace("127.0.0.1", "pictures.example.org") + "/0.jpg"
    for url in (address, address.replace("http:", "https:")):
        with pytest.raises(client.Refused) as caught:
            client.PoliteClient("", 5000, 1, patience=PATIENCE).get_image(url, 1000)
        assert str(caught.value) == "private address: pictures.example.org is at 127.0.0.1"
    assert not server.hits
    polite = client.PoliteClient("", 5000, 1, services.allowed_networks(address), PATIENCE)
    assert polite.get_image(address, 1000) == b"picture"


def test_web_addresses():
    good = ["http://a.org", "https://a.org:8080/b?c=d#e", "http://127.0.0.1:1/%20"]
    bad = ["", "a.org", "//a.org", "ftp://a.org/b", "file:///etc/passwd", "http://", "http:///b",
           "http://a b.org", "http://a.org\n", "http://a.org:x/", "http://[", "javascript:alert(1)",
           "http://a.org/" + "x" * 2000, "http://a.org/\0"]
    assert all(client.is_web_address(url) for url in good)
    assert not any(client.is_web_address(url) for url in bad)
