"""The production server of serve.py: waitress, with errors in JSON and an orderly end."""

from __future__ import annotations

import json
import threading
import time

from waitress import create_server
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from darknet_face.serving.app import HEADERS, TOO_LONG

MOST_HEADER_BYTES = 64 * 1024
# Clients that send nothing are cut off, so that they do not keep others out.
MOST_CONNECTIONS = 500  # select() takes at most 1,024 files
LONGEST_SILENCE = 30  # seconds without a byte while a request is read
CLEANUP_INTERVAL = 5  # seconds
LONGEST_END = 60  # seconds to answer what was asked before the end


class _JsonErrorTask(ErrorTask):
    """Answers, as the application does, for a request that does not reach it."""

    def execute(self):
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
    error_task_class = _JsonErrorTask


class Server:
    """Serves an application until :meth:`stop`.

    Parameters
    ----------
    app : WSGI application
    host : str
        An address, or a name that has one.
    port : int
        0 takes a free one.
    threads : int
        Requests that are in progress at a time.
    most_bytes : int
        Longer requests are refused before their bodies are read.

    Raises
    ------
    OSError, ValueError
        When the address can't be used.
    """

    def __init__(self, app, host, port, threads, most_bytes):
        self._server = create_server(
            app, host=host, port=port, threads=threads, ident=None,
            clear_untrusted_proxy_headers=True, max_request_body_size=most_bytes + 1,
            max_request_header_size=MOST_HEADER_BYTES, connection_limit=MOST_CONNECTIONS,
            channel_timeout=LONGEST_SILENCE, cleanup_interval=CLEANUP_INTERVAL)
        self._server.channel_class = _Channel
        self._stopping = threading.Event()
        self.port = int(self._server.effective_port)

    def run(self):
        """Answer requests; after :meth:`stop`, those that have come, and return."""
        while not self._stopping.is_set():
            self._turn(1)
        self._server.accepting = False
        deadline = time.monotonic() + LONGEST_END
        while self._is_busy() and time.monotonic() < deadline:
            self._turn(0.1)
        self._server.task_dispatcher.shutdown()

    def stop(self):
        """End :meth:`run`, from a signal handler or another thread."""
        self._stopping.set()
        self._server.pull_trigger()

    def _turn(self, seconds):
        self._server.asyncore.loop(timeout=seconds, map=self._server._map, count=1)

    def _is_busy(self):
        """Whether an answer is being made or sent."""
        return any(channel.requests or channel.total_outbufs_len
                   for channel in list(self._server.active_channels.values()))
