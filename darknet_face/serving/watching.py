"""What an operator sees of the server: metrics for Prometheus, and the access log.

Neither holds an image or its name.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from typing import Callable

import flask

from darknet_face.console import printable

try:
    import prometheus_client
except ImportError:  # /metrics then says how to install it
    prometheus_client = None  # type: ignore[assignment]

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)  # bounds of the histogram
UNREADABLE = "unreadable"


class Metrics:
    """Counts requests, their time and their images; ``waiting`` tells how many images wait."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = None
        if prometheus_client is None:
            return
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "darknet_face_requests", "Requests answered.", ["endpoint", "status"],
            registry=self._registry)
        self._seconds = prometheus_client.Histogram(
            "darknet_face_request_seconds", "Time from a whole request to its answer.",
            ["endpoint"], buckets=SECONDS, registry=self._registry)
        self._images = prometheus_client.Counter(
            "darknet_face_images", "Images answered: FACE, NON_FACE or unreadable.", ["label"],
            registry=self._registry)
        prometheus_client.Gauge(
            "darknet_face_waiting_images", "Images that wait for the network.",
            registry=self._registry).set_function(waiting)

    def add_request(self, status: int, seconds: float) -> None:
        """Count the request of the current context."""
        if self._registry:
            endpoint = flask.request.endpoint or "other"  # any path would be a label of its own
            self._requests.labels(endpoint, str(status)).inc()
            self._seconds.labels(endpoint).observe(seconds)

    def add_image(self, label: str) -> None:
        """Count an image by its label, or as :data:`UNREADABLE`."""
        if self._registry:
            self._images.labels(label).inc()

    def answer(self) -> flask.Response:
        """All values in Prometheus's text format."""
        if not self._registry:
            flask.abort(501, "no metrics; pip install prometheus-client")
        return flask.Response(prometheus_client.generate_latest(self._registry),
                              content_type=prometheus_client.CONTENT_TYPE_LATEST)


class AccessLog:
    """A line for each request, in the common log format with the seconds added.

    ``path`` is a file, which is opened anew when another program has moved it, or "-" for standard
    output.
    """

    def __init__(self, path: str) -> None:
        self._handler = (logging.StreamHandler(sys.stdout) if path == "-"
                         else logging.handlers.WatchedFileHandler(path, encoding="utf-8"))

    def add_request(self, response: flask.Response, seconds: float) -> None:
        """Write the line of the current request."""
        request = flask.request
        line = '{} - - [{}] "{} {} {}" {} {} {:.3f}'.format(
            request.remote_addr, time.strftime("%d/%b/%Y:%H:%M:%S %z"), request.method,
            printable(request.full_path.rstrip("?")).replace('"', "%22"),
            request.environ.get("SERVER_PROTOCOL"), response.status_code,
            response.content_length or "-", seconds)
        self._handler.handle(logging.LogRecord("access", logging.INFO, "", 0, line, None, None))
