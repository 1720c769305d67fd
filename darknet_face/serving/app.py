"""The web application: the page, the JSON endpoint and the checks before them.

:func:`create_app` makes a Flask application. docs/serving.md describes requests and answers.
"""

from __future__ import annotations

import base64
import os
import time
import typing

import flask
import numpy as np
from werkzeug.exceptions import HTTPException

from darknet_face.classify.heatmaps import warm_colours
from darknet_face.console import UserError, print_error
from darknet_face.images.contact_sheets import encode
from darknet_face.images.decode import BadImage, check_header
from darknet_face.images.resize import resize
from darknet_face.serving.batching import Answer, Batcher, Closed, Full
from darknet_face.serving.bodies import read_images
from darknet_face.serving.callers import Callers, Network, TrustedProxies
from darknet_face.serving.watching import UNREADABLE, AccessLog, Metrics

MAP_SIDE = 256  # pixels: the longest side of the heat map in an answer
TOO_LONG = "a request of more than {:,} bytes; send smaller or fewer images"
FOLDER = os.path.dirname(os.path.abspath(__file__))
# Images to try on the page; samples.txt says whose they are.
SAMPLES = ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"]
RETRY_AFTER = 1  # seconds, for a client that finds the queue full
PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
OPTIONS = {"map": ("0", "1")}  # of /classify, with their values

# The page may load its own files, show images that it was given, and nothing else.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
                               "'self' blob: data:; connect-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Settings(typing.NamedTuple):
    """What the application accepts, and from whom.

    Parameters
    ----------
    pixels
        The most in an image.
    names, origins
        See :class:`darknet_face.serving.callers.Callers`.
    proxies
        Where trusted proxies are.
    is_local
        Whether only programs on this computer reach the server.
    access_log
        A file, "-" or None; see :class:`darknet_face.serving.watching.AccessLog`.
    """

    pixels: int = 50 * 1000 * 1000
    names: typing.Sequence[str] = ()
    origins: typing.Sequence[str] = ()
    proxies: typing.Sequence[Network] = ()
    is_local: bool = True
    access_log: str | None = None


def create_app(batcher: Batcher, settings: Settings) -> flask.Flask:
    """The application that answers for a batcher's model."""
    app = flask.Flask(__name__, static_folder=None)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.proxies)  # type: ignore[method-assign]
    callers = Callers(settings.names, settings.origins)
    metrics = Metrics(lambda: len(batcher))
    app.before_request(_start_clock)
    app.before_request(callers.check)
    app.before_request(_end_path)
    app.after_request(callers.add_headers)
    app.after_request(_add_headers)
    app.after_request(_watcher(metrics, settings.access_log))
    app.register_error_handler(HTTPException, _explain)
    app.register_error_handler(Exception, _explain_failure)
    for path, name in PAGE.items():
        app.add_url_rule(path, name, lambda name=name: flask.send_from_directory(
            FOLDER, name))
    app.add_url_rule("/samples/", "samples", lambda: flask.jsonify(samples=SAMPLES))
    app.add_url_rule("/samples/<name>", "sample", lambda name: flask.send_from_directory(
        os.path.join(FOLDER, "samples"), name))
    app.add_url_rule("/healthz", "healthz", lambda: _health(batcher, settings.is_local))
    app.add_url_rule("/metrics", "metrics", metrics.answer)
    app.add_url_rule("/classify", "classify", lambda: _classify(batcher, settings.pixels, metrics),
                     methods=["POST"])
    return app


def _start_clock() -> None:
    flask.g.start = time.perf_counter()


def _end_path() -> typing.Any:
    """Send /prefix to /prefix/: the page names its parts relative to its own address."""
    if flask.request.environ["PATH_INFO"]:
        return None
    return flask.redirect(flask.request.root_path + "/", 308)


def _watcher(metrics: Metrics, access_log: str | None) -> typing.Callable[..., flask.Response]:
    log = AccessLog(access_log) if access_log else None

    def watch(response: flask.Response) -> flask.Response:
        seconds = time.perf_counter() - flask.g.start
        metrics.add_request(response.status_code, seconds)
        if log:
            log.add_request(response, seconds)
        return response

    return watch


def _add_headers(response: flask.Response) -> flask.Response:
    response.headers.update(HEADERS)
    return response


def _error(status: int, message: str) -> flask.Response:
    response = flask.jsonify(error=message)
    response.status_code = status
    return response


def _explain(error: HTTPException) -> typing.Any:
    """Any HTTP error as a line of JSON."""
    if error.code is None or error.code < 400:  # a redirection
        return error
    if error.code == 404:
        return _error(404, "{}: not found; images go to /classify".format(flask.request.path))
    if error.code == 405:
        return _error(405, "{} is not for {}".format(flask.request.path, flask.request.method))
    return _error(error.code, " ".join(str(error.description).split()))


def _explain_failure(error: Exception) -> flask.Response:
    """What the network can't do is the client's to know; anything else is logged here."""
    if isinstance(error, UserError):
        return _error(500, str(error))
    print_error("{}: {}".format(type(error).__name__, error))
    return _error(500, "this server failed; its terminal says why")


def _health(batcher: Batcher, is_local: bool) -> flask.Response:
    model = batcher.model
    return flask.jsonify(status="ok", model=os.path.basename(model.path),
                         image_size=model.image_size, threshold=model.threshold,
                         waiting=len(batcher), local=is_local)


def _classify(batcher: Batcher, max_pixels: int, metrics: Metrics) -> flask.Response:
    """Answer for the images in a request."""
    _check_options()
    images = read_images(flask.request, batcher.most_waiting)
    causes = [_header_fault(content, max_pixels) for _, content in images]
    try:
        futures = batcher.submit([content for (_, content), cause in zip(images, causes)
                                  if not cause], flask.request.args.get("map") == "1")
        answers = iter([future.result() for future in futures])
    except Full:
        response = _error(503, "too many images wait; try again")
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    except Closed:
        return _error(503, "the server is shutting down")
    rows = [{"name": name, "error": cause} if cause else _row(name, next(answers))
            for (name, _), cause in zip(images, causes)]
    for row in rows:
        metrics.add_image(row.get("label") or UNREADABLE)
    if all("error" in row for row in rows):
        return _error(422, "; ".join(
            "{}: {}".format(row["name"] or "image", row["error"]) for row in rows))
    return flask.jsonify(threshold=batcher.model.threshold, results=rows)


def _check_options() -> None:
    """Refuse an option that would do nothing."""
    for name, value in flask.request.args.items(multi=True):
        if value not in OPTIONS.get(name, ()):
            flask.abort(400, "?{}={}: not an option; there is ?map=1".format(name, value))


def _header_fault(content: bytes, max_pixels: int) -> str | None:
    """Why an image is refused before it waits for its turn; None if it isn't."""
    try:
        check_header(content, max_pixels)
    except BadImage as error:
        return str(error)
    return None


def _row(name: str | None, answer: Answer) -> dict[str, typing.Any]:
    """The JSON object for an image."""
    result = answer.result
    if result.error:
        return {"name": name, "error": result.error}
    row = {"name": name, "label": result.label, "is_face": result.is_face,
           "probability": result.probability,
           "place": result.box and result.box._asdict(),
           "faces": None if result.faces is None else [
               dict(face.box._asdict(), probability=face.probability) for face in result.faces]}
    if answer.heat_map is not None:
        row["map"] = _data_url(answer.heat_map)
    return row


def _data_url(heat_map: np.ndarray) -> str:
    """A heat map as a small PNG to lay over its image: the warmer and denser, the more a face."""
    scale = min(1.0, MAP_SIDE / max(heat_map.shape))
    size = [max(1, int(round(side * scale))) for side in heat_map.shape]
    levels = resize(heat_map, *size).clip(0, 1)
    alpha = np.rint(0.8 * 255 * np.sqrt(levels)).astype(np.uint8)
    content = encode(np.dstack([warm_colours(levels), alpha]), "PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode()
