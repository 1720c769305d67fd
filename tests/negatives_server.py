"""An image server that misbehaves on purpose, for the tests of gen_neg_samples.py.

It speaks the search formats of Wikimedia Commons and Openverse and serves images from memory, on
127.0.0.1 only. An image can have a fault; see ``FAULTS``.
"""

import collections
import contextlib
import gzip
import io
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

STALL_SECONDS = 8  # how long a stalled response stays open, far beyond the tests' time-outs


def texture(number, height=96, width=96):
    """An image of smooth random colours with noise, a different one for each number.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3], RGB.
    """
    random = np.random.RandomState(number)
    coarse = Image.fromarray(random.randint(0, 256, (16, 16, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.BICUBIC), np.int16)
    return np.clip(smooth + random.randint(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def encode(image, form="JPEG", **options):
    """An image as the bytes of a file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, form, **options)
    return stream.getvalue()


class PictureServer:
    """Serves ``pictures`` (name -> bytes) and lists them under ``results`` (query -> names).

    Attributes
    ----------
    faults : dict of str to str
        Name -> key of FAULTS. ``"503 once"`` and the like fail at the first request only.
    hits, served : collections.Counter
        Requests, and complete and correct responses, by name; "search" counts searches.
    agents, cookies, credentials : set of str
        The User-Agents, cookies and Authorization headers seen.
    connections : int
    search_faults : dict of (str, int) to callable
        (query, page number from 0) -> a function of the handler that answers instead.
    page_size : int
    repeats : bool
        Whether the last result page is continued by itself for ever.
    """

    def __init__(self):
        self.pictures, self.faults, self.results = {}, {}, collections.OrderedDict()
        self.hits, self.served = collections.Counter(), collections.Counter()
        self.agents, self.cookies, self.credentials = set(), set(), set()
        self.connections = 0
        self.search_faults = {}
        self.page_size = 50
        self.repeats = False
        self.changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.site = self
        self.url = "http://127.0.0.1:{}".format(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def add(self, query, name, body, fault=None):
        """Serve an image file and list it as a result of a query."""
        self.pictures[name] = body
        self.results.setdefault(query, []).append(name)
        if fault:
            self.faults[name] = fault

    def count(self, counter, name):
        with self.changed:
            counter[name] += 1
            self.changed.notify_all()

    def wait_for(self, condition, timeout=600):
        """Block until ``condition()`` holds; it is evaluated after every request."""
        with self.changed:
            return self.changed.wait_for(condition, timeout)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Print nothing about clients that hang up: they are tested to do so."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        with self.server.site.changed:
            self.server.site.connections += 1

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802 - the name that http.server calls
        site = self.server.site
        address = urlsplit(self.path)
        options = {key: values[0] for key, values in parse_qs(address.query).items()}
        site.agents.add(self.headers["User-Agent"])
        site.cookies.update(self.headers.get_all("Cookie", []))
        site.credentials.update(self.headers.get_all("Authorization", []))
        with contextlib.suppress(OSError):
            if address.path == "/w/api.php":
                self._search(options["gsrsearch"].replace("filetype:bitmap ", "", 1),
                             int(options.get("gsroffset", 0)) // site.page_size, self._wikimedia)
            elif address.path == "/v1/images/":
                self._search(options["q"], int(options["page"]) - 1, self._openverse)
            else:
                self._picture(unquote(address.path).rpartition("/")[2])

    def _search(self, query, number, form):
        site = self.server.site
        site.count(site.hits, "search")
        if (query, number) in site.search_faults:
            site.search_faults[query, number](self)
            return
        names = site.results.get(query, [])
        start = number * site.page_size
        page = [(start + rank, name) for rank, name in
                enumerate(names[start:start + site.page_size])]
        more = start + site.page_size < len(names)
        self.send_json(form(page, number, more or site.repeats))

    def _wikimedia(self, page, number, more):
        site = self.server.site
        pages = {}
        for rank, name in reversed(page):  # in no order: the rank is in "index"
            pages[str(90000 + rank)] = {"title": "File:../{}".format(name), "index": rank + 1,
                                        "imageinfo": [self._image_info(name)]}
        answer = {"batchcomplete": ""}
        if pages:
            answer["query"] = {"pages": pages}
        if more:
            following = number + (0 if site.repeats else 1)
            answer["continue"] = {"gsroffset": following * site.page_size,
                                  "continue": "gsroffset||"}
        return answer

    def _image_info(self, name):
        base = self.server.site.url
        return {
            "thumburl": "{}/thumb/{}".format(base, name), "url": "{}/full/{}".format(base, name),
            "mime": "image/jpeg", "descriptionurl": "{}/wiki/File:{}".format(base, name),
            "extmetadata": {"LicenseShortName": {"value": "CC BY-SA 4.0"},
                            "Artist": {"value": "<style>.a {b: c}</style><div class='fn'>"
                                                "<a href='#'>Ann\n &amp; Bob</a>"}},
        }

    def _openverse(self, page, number, more):
        base = self.server.site.url
        results = [{"id": name, "url": "{}/full/{}".format(base, name),
                    "thumbnail": "{}/v1/images/{}".format(base, name), "license": "by",
                    "license_version": "2.0", "creator": '=HYPERLINK("x")',
                    "foreign_landing_url": "{}/photos/{}".format(base, name)}
                   for _, name in page]
        return {"page_count": number + 1 + bool(more), "results": results}

    def _picture(self, name):
        site = self.server.site
        site.count(site.hits, name)
        fault = site.faults.get(name)
        if fault and fault.endswith(" once"):
            fault = fault[:-len(" once")] if site.hits[name] == 1 else None
        if name not in site.pictures:
            fault = "404"
        if fault:
            FAULTS[fault](self, site.pictures.get(name, b""))
            return
        self.send_body(site.pictures[name])
        site.count(site.served, name)

    def send_json(self, data):
        self.send_body(json.dumps(data).encode(), {"Content-Type": "application/json"})

    def send_body(self, body, headers=(), status=200, length=None):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def start_endless(self, status=200, headers=()):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def reset(self):
        """Close the connection so that the other side sees a reset."""
        self.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.flush()
        self.connection.close()
        self.close_connection = True


def _status(status, headers=()):
    return lambda handler, body: handler.send_body(b"no", headers, status)


def _redirect(target):
    return lambda handler, body: handler.send_body(
        b"", {"Location": target.format(handler.path)}, 302)


def _redirect_to_another_host(handler, body):
    """Redirect to this server under its other name, to an image that asks to wait."""
    port = handler.server.server_address[1]
    handler.send_body(b"", {"Location": "http://localhost:{}/busy.jpg".format(port)}, 302)


def _cookies(handler, body):
    """Set two cookies: one of the same name for each image, one of another name."""
    name = unquote(handler.path).rpartition("/")[2]
    handler.send_response(200)
    for cookie in ("session", name):
        handler.send_header("Set-Cookie", "{}={}; Path=/".format(cookie, 1000 * "x"))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _interim_responses(handler, body):
    """Announce the response again and again, and never send it."""
    for _ in range(int(STALL_SECONDS / 0.05)):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


def _flood_of_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10 ** 6):
        handler.wfile.write(b"X-%d: x\r\n" % number)


def _flood_in_a_header(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    _flood(handler, b"x")


def _tiny_chunks(handler, body):
    """Send a byte at a time, each in a chunk with a long extension."""
    handler.start_endless(headers={"Transfer-Encoding": "chunked"})
    while True:
        handler.wfile.write(b"1;%s\r\nx\r\n" % (60000 * b"x"))


def _redirects(count):
    """Send the image after so many redirects."""

    def answer(handler, body):
        path, _, hop = handler.path.partition("?hop=")
        if int(hop or 0) == count:
            handler.send_body(body)
        else:
            handler.send_body(b"", {"Location": "{}?hop={}".format(path, int(hop or 0) + 1)}, 302)

    return answer


def _stall(handler, body):
    handler.send_body(body[:len(body) // 2], length=len(body))
    time.sleep(STALL_SECONDS)


def _trickle(handler, body):
    """Send a byte at a time, each within any read time-out."""
    handler.send_body(body[:1], length=len(body))
    for position in range(1, int(STALL_SECONDS / 0.05)):
        time.sleep(0.05)
        handler.wfile.write(body[position:position + 1])


def _trickle_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in range(int(STALL_SECONDS / 0.05)):
        time.sleep(0.05)
        handler.wfile.write(b"x")


def _trickle_without_length(handler, body):
    handler.start_endless()
    for position in range(int(STALL_SECONDS / 0.05)):
        handler.wfile.write(body[position:position + 1])
        time.sleep(0.05)


def _hang_up_in_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nConte")
    handler.close_connection = True


def _slow(handler, body):
    """Send the image in pieces with pauses."""
    handler.send_body(body[:100], length=len(body))
    for start in range(100, len(body), len(body) // 4):
        time.sleep(0.02)
        handler.wfile.write(body[start:start + len(body) // 4])
    site = handler.server.site
    site.count(site.served, unquote(handler.path).rpartition("/")[2])


def _endless(handler, body):
    handler.start_endless(headers={"Content-Type": "image/jpeg"})
    handler.wfile.write(body)
    _flood(handler, b"\0")


def _endless_redirect(handler, body):
    handler.start_endless(302, {"Location": "/elsewhere"})
    _flood(handler, b"\0")


def _flood_between_chunks(handler, body):
    """Send a first chunk size that never ends."""
    handler.start_endless(headers={"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"5;")
    _flood(handler, b"x")


def _flood_after_chunks(handler, body):
    """Send the body in one chunk, then a trailer that never ends."""
    handler.start_endless(headers={"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"%x\r\n%s\r\n0\r\nX-Long: " % (len(body), body))
    _flood(handler, b"x")


def _flood(handler, letter):
    for _ in range(int(1e9) // 65536):
        handler.wfile.write(65536 * letter)


def _chunked(handler, body):
    handler.start_endless(headers={"Transfer-Encoding": "chunked"})
    for start in range(0, len(body), 100):
        piece = body[start:start + 100]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def _reset(handler, body):
    handler.send_body(body[:len(body) // 2], length=len(body))
    handler.reset()


def _reset_before_the_answer(handler, body):
    handler.reset()


def _too_long(handler, body):
    """Announce more bytes than are sent."""
    handler.send_body(body, length=len(body) + 1000)
    handler.close_connection = True


FAULTS = {
    "401": _status(401),
    "403": _status(403),
    "404": _status(404),
    "407": _status(407),
    "410": _status(410),
    "424": _status(424),
    "429": _status(429),
    "429 with Retry-After": _status(429, {"Retry-After": "0"}),
    "503 with a broken date": _status(503, {"Retry-After": "1 Jan , 00:00:00 GMT"}),
    "429 for a day": _status(429, {"Retry-After": "86400"}),
    "500": _status(500),
    "503": _status(503),
    "503 with Retry-After": _status(503, {"Retry-After": "0"}),
    "stall": _stall,
    "trickle": _trickle,
    "trickled headers": _trickle_headers,
    "trickle without length": _trickle_without_length,
    "hang-up in headers": _hang_up_in_headers,
    "slow": _slow,
    "cookies": _cookies,
    "interim responses": _interim_responses,
    "flood of headers": _flood_of_headers,
    "flood in a header": _flood_in_a_header,
    "tiny chunks": _tiny_chunks,
    "reset": _reset,
    "reset before the answer": _reset_before_the_answer,
    "endless": _endless,
    "endless redirect": _endless_redirect,
    "flood between chunks": _flood_between_chunks,
    "flood after chunks": _flood_after_chunks,
    "chunked": _chunked,
    "length too long": _too_long,
    "length too short": lambda handler, body: handler.send_body(body, length=len(body) // 2),
    "length of a terabyte": lambda handler, body: handler.send_body(body, length=10 ** 12),
    "five redirects": _redirects(5),
    "six redirects": _redirects(6),
    "redirect loop": _redirect("{}"),
    "redirect to another host": _redirect_to_another_host,
    "redirect to a private network": _redirect("http://10.0.0.1/a.jpg"),
    "redirect to metadata": _redirect("http://169.254.169.254/latest/meta-data/"),
    "redirect to file": _redirect("file:///etc/hostname"),
    "redirect with a password": _redirect("http://user:secret@127.0.0.1/{}"),
    "redirect to nowhere": _redirect("http://"),
    "noai": lambda handler, body: handler.send_body(body, {"X-Robots-Tag": "noindex, noai"}),
    "noimageai": lambda handler, body: handler.send_body(
        body, {"X-Robots-Tag": "otherbot: noimageai"}),
    "html": lambda handler, body: handler.send_body(
        b"<html>moved</html>", {"Content-Type": "image/jpeg"}),
    "truncated": lambda handler, body: handler.send_body(body[:len(body) * 2 // 3]),
    "gzip": lambda handler, body: handler.send_body(
        gzip.compress(body), {"Content-Encoding": "gzip"}),
    "gzip bomb": lambda handler, body: handler.send_body(
        gzip.compress(bytes(10 ** 7)), {"Content-Encoding": "gzip"}),
    "nested gzip bomb": lambda handler, body: handler.send_body(
        gzip.compress(gzip.compress(bytes(10 ** 7))), {"Content-Encoding": "gzip, gzip"}),
    "damaged gzip": lambda handler, body: handler.send_body(body, {"Content-Encoding": "gzip"}),
    "empty": lambda handler, body: handler.send_body(b""),
}
