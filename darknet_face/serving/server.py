"""The server under the application: waitress, with bounds, errors in JSON and an orderly end.

waitress reads all requests in one thread and gives whole ones to others, so a slow client holds a
connection and no thread. Both versions in use (2.1.2 is the last for Python 3.7, 3.0.2) lack some
bounds, which are added here:

- Only silence is bounded. A client that sends a byte now and then keeps its connection.
- One address may hold all connections. Then nobody else gets in.
- 2.1.2 never closes a connection whose client leaves while it is accepted (CVE-2024-49769).
- The expressions that parse a request's head take quadratic time: 16,000 bytes stop 3.0.2 for
  three minutes. The lines around chunks have no bound.
"""

from __future__ import annotations

import collections
import ipaddress
import json
import math
import re
import socket
import threading
import time
from typing import Any, Callable, Collection

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import BadRequest

from darknet_face.serving.app import HEADERS, TOO_LONG
from darknet_face.serving.callers import Network, is_within

MOST_HEADER_BYTES = 16 * 1024
MOST_CHUNK_LINE_BYTES = 1024
MOST_CONNECTIONS = 400  # each may need a second file for its body; many systems allow 1,024
MOST_OF_AN_ADDRESS = 100
PATIENCE = 20  # seconds that a client may be idle, or behind the rate below
SLOWEST = 16 * 1024  # bytes/s at which a client must send its request or take its answer
CLEANUP_INTERVAL = 1  # seconds
LONGEST_END = 60  # seconds to answer what was asked before the end

REQUEST_LINE = re.compile(rb"[^ ]+ [^ ]+(?: HTTP/[0-9]\.[0-9])?")
SLOW_FIELD = re.compile(rb"[ \t]{64}|\r\n[ \t]")


class _Parser(HTTPRequestParser):
    """Refuses what takes waitress's expressions long, and lines around chunks without end."""

    def parse_header(self, header_plus: bytes) -> None:
        request_line, _, fields = header_plus.partition(b"\r\n")
        if not REQUEST_LINE.fullmatch(request_line.rstrip()):
            raise ParsingError("Start line is invalid")
        if SLOW_FIELD.search(fields):
            raise ParsingError("Invalid header")
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a bad address such as http://[
            raise ParsingError(str(error))

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        body = self.body_rcv
        if self.chunked and max(len(body.control_line), len(body.trailer)) > MOST_CHUNK_LINE_BYTES:
            self.error = BadRequest("Invalid chunk")
            self.completed = True
        return consumed


class _JsonErrorTask(ErrorTask):
    """Answers, as the application does, for a request that does not reach it."""

    def execute(self) -> None:
        error = self.request.error
        text = error.body or error.reason
        if error.code == 413:
            text = TOO_LONG.format(self.channel.server.adj.max_request_body_size - 1)
        body = (json.dumps({"error": text}) + "\n").encode()
        self.status = "{} {}".format(error.code, error.reason)
        self.response_headers.extend(HEADERS.items())
        self.response_headers += [("Content-Type", "application/json"), ("Connection", "close")]
        self.close_on_finish = True
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    """A connection that is closed when its client is :data:`PATIENCE` behind."""

    parser_class = _Parser
    error_task_class = _JsonErrorTask

    def __init__(self, server: _Listener, connection: socket.socket, address: tuple[Any, ...],
                 adj: Adjustments, map: dict[int, Any] | None = None) -> None:
        super().__init__(server, connection, address, adj, map)
        self.connected = True  # even if the client has left: its end is read, and closes this
        self.origin = _origin(address[0])
        self.deadline = time.time() + PATIENCE
        server.make_room(self)

    def received(self, data: bytes) -> bool:
        before = self.request
        more = super().received(data)
        if self.request is not None:
            latest = time.time() + PATIENCE
            is_new = self.request is not before
            self.deadline = latest if is_new else min(latest, self.deadline + len(data) / SLOWEST)
        return more

    def service(self) -> None:
        self.deadline = math.inf
        try:
            super().service()
        finally:
            self.deadline = time.time() + PATIENCE + self.total_outbufs_len / SLOWEST


def _origin(address: str) -> str:
    """Who an address belongs to: of IPv6 the network of 64 bits, which one user has whole."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.split("%")[0], 64), strict=False))


class _Listener(TcpWSGIServer):
    channel_class = _Channel
    has_no_bound: Callable[[str], bool]  # whether an address may have all connections

    def make_room(self, new: _Channel) -> None:
        """With a connection too many, close the one that will be cut off first.

        A client that sends at a fair rate outlives those that hardly send anything.
        """
        channels = [each for each in self.active_channels.values() if not each.will_close]
        crowd = [each for each in channels if each.origin == new.origin]
        if len(channels) > MOST_CONNECTIONS:
            (largest, _), = collections.Counter(each.origin for each in channels).most_common(1)
            crowd = [each for each in channels if each.origin == largest]
        elif len(crowd) <= MOST_OF_AN_ADDRESS or self.has_no_bound(new.addr[0]):
            return
        idle = [each for each in crowd if not each.requests] or [new]
        min(idle, key=lambda each: each.deadline).will_close = True

    def maintenance(self, now: float) -> None:
        for channel in self.active_channels.values():
            if channel.deadline < now and not channel.requests:
                channel.will_close = True


class Server:
    """Serves an application until :meth:`stop`.

    Parameters
    ----------
    app
        A WSGI application.
    host
        An address, or a name that has one.
    port
        0 takes a free one.
    threads
        Requests that are in progress at a time.
    most_bytes
        Longer requests are refused before their bodies are read.
    proxies
        Addresses that hand on the requests of many clients.
    prefix
        The path below which the application is, such as "/faces"; empty for none.

    Raises
    ------
    OSError, ValueError
        When the address can't be used.
    """

    def __init__(self, app: Any, host: str, port: int, threads: int, most_bytes: int,
                 proxies: Collection[Network] = (), prefix: str = "") -> None:
        self._listener = _Listener(app, adj=Adjustments(
            host=host, port=port, threads=threads, ident=None, url_prefix=prefix,
            clear_untrusted_proxy_headers=False,  # the application does that
            max_request_body_size=most_bytes + 1, max_request_header_size=MOST_HEADER_BYTES,
            connection_limit=2 * MOST_CONNECTIONS, cleanup_interval=CLEANUP_INTERVAL))
        self._listener.has_no_bound = lambda address: is_within(address, proxies)
        self._stopping = threading.Event()
        self.port = int(self._listener.effective_port)

    @property
    def is_stopping(self) -> bool:
        """Whether the end was asked for."""
        return self._stopping.is_set()

    def run(self) -> None:
        """Answer requests; after :meth:`stop`, those that have come, and return."""
        while not self.is_stopping:
            self._turn(1)
        self._listener.accepting = False
        deadline = time.monotonic() + LONGEST_END
        while self._is_busy() and time.monotonic() < deadline:
            self._turn(0.1)
        self._listener.task_dispatcher.shutdown(timeout=1)

    def stop(self) -> None:
        """End :meth:`run`, from a signal handler or another thread."""
        self._stopping.set()
        self._listener.pull_trigger()

    def _turn(self, seconds: float) -> None:
        # poll() takes any number of files; select(), waitress's default, 1,024.
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._listener._map, count=1)
        for channel in list(self._listener.active_channels.values()):
            if channel.will_close:  # waitress alone waits until the client reads on
                channel.handle_close()

    def _is_busy(self) -> bool:
        """Whether an answer is being made or sent."""
        return any(channel.requests or channel.total_outbufs_len
                   for channel in list(self._listener.active_channels.values()))
