"""The web application of serve.py: the page, the JSON endpoint and the checks before them.

``create_app`` makes a Flask application. See docs/serving.md for the endpoint's requests and
answers.
"""

from __future__ import annotations

import base64
import collections
import io
import ipaddress
import os
import socket

import cv2
import flask
import numpy as np
from PIL import Image
from werkzeug.exceptions import HTTPException

from darknet_face.console import UserError, print_error
from darknet_face.images.decode import BadImage, check_header
from darknet_face.serving.batching import Closed, Full

# What a picture may be sent as. curl --data-binary says "form" of any body.
PICTURE_TYPES = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
MAP_SIDE = 256  # pixels: the longest side of the heat map in an answer
TOO_LONG = "a request of more than {:,} bytes; send smaller or fewer pictures"
RETRY_AFTER = 1  # seconds, for a client that finds the queue full
PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}

# The page may load its own files, show pictures that it was given, and nothing else.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
                               "'self' blob: data:; connect-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Limits = collections.namedtuple("Limits", "pixels names", defaults=(50 * 1000 * 1000, ()))
Limits.__doc__ = """What the application accepts; :class:`darknet_face.serving.server.Server`
limits the bytes.

Parameters
----------
pixels : int
    The most in a picture.
names : collection of str
    Names of this computer that requests may use, beside its own name and its addresses.
"""


def create_app(batcher, limits):
    """The application that answers for a :class:`darknet_face.serving.batching.Batcher`'s model.

    Parameters
    ----------
    batcher : darknet_face.serving.batching.Batcher
    limits : Limits

    Returns
    -------
    flask.Flask
    """
    app = flask.Flask(__name__, static_folder=None)
    names = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    names.update(name.lower() for name in limits.names)
    app.before_request(lambda: _check_caller(names))
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _explain)
    app.register_error_handler(Exception, _explain_failure)
    for path, name in PAGE.items():
        app.add_url_rule(path, name, lambda name=name: flask.send_from_directory(
            os.path.dirname(os.path.abspath(__file__)), name))
    app.add_url_rule("/healthz", "healthz", lambda: _health(batcher))
    app.add_url_rule("/classify", "classify", lambda: _classify(batcher, limits),
                     methods=["POST"])
    return app


def _check_caller(names):
    """Refuse requests that another site's page makes in the browser of somebody who runs this.

    Such a page says where it is from, in ``Origin`` or ``Sec-Fetch-Site``. If it has pointed its
    own name at this computer, the ``Host`` is that name.
    """
    host = flask.request.host
    if not _is_own(host, names):
        flask.abort(403, "Host {}: not a name of this server; start it with --name to allow "
                         "it".format(host))
    origin = flask.request.headers.get("Origin")
    if origin is not None and origin != "{}://{}".format(flask.request.scheme, host):
        flask.abort(403, "requests from other sites are refused")
    is_foreign = flask.request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if is_foreign and flask.request.method != "GET":
        flask.abort(403, "requests from other sites are refused")


def _is_own(host, names):
    """Whether a Host header is an address, or one of the names."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.strip("[]"))
        return True
    except ValueError:
        return name.lower() in names


def _add_headers(response):
    response.headers.update(HEADERS)
    return response


def _error(status, message):
    response = flask.jsonify(error=message)
    response.status_code = status
    return response


def _explain(error):
    """Any HTTP error as a line of JSON."""
    if error.code == 404:
        return _error(404, "{}: not found; pictures go to /classify".format(flask.request.path))
    if error.code == 405:
        return _error(405, "{} is not for {}".format(flask.request.path, flask.request.method))
    return _error(error.code, " ".join(str(error.description).split()))


def _explain_failure(error):
    """What the network can't do is the client's to know; anything else is logged here."""
    if isinstance(error, UserError):
        return _error(500, str(error))
    print_error("{}: {}".format(type(error).__name__, error))
    return _error(500, "this server failed; its terminal says why")


def _health(batcher):
    model = batcher.model
    return flask.jsonify(status="ok", model=os.path.basename(model.path),
                         image_size=model.image_size, threshold=model.threshold,
                         waiting=len(batcher))


def _classify(batcher, limits):
    """Answer for the pictures in a request."""
    pictures = _pictures()
    if len(pictures) > batcher.most_waiting:
        flask.abort(413, "{} pictures, at most {} fit in a request".format(
            len(pictures), batcher.most_waiting))
    causes = [_header_fault(content, limits.pixels) for _, content in pictures]
    wants_map = flask.request.args.get("map") == "1"
    try:
        futures = batcher.submit([content for (_, content), cause in zip(pictures, causes)
                                  if not cause], wants_map)
    except Full:
        response = _error(503, "too many pictures wait; try again")
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    except Closed:
        return _error(503, "the server is shutting down")
    answers = iter(futures)
    rows = [{"name": name, "error": cause} if cause else _row(name, next(answers).result())
            for (name, _), cause in zip(pictures, causes)]
    if all("error" in row for row in rows):
        return _error(422, "; ".join(
            "{}: {}".format(row["name"] or "picture", row["error"]) for row in rows))
    return flask.jsonify(threshold=batcher.model.threshold, results=rows)


def _pictures():
    """The names and contents of the pictures in the request, at least one."""
    kind = flask.request.mimetype
    if kind == "multipart/form-data":
        files = [each for _, each in flask.request.files.items(multi=True)]
        if not files:
            flask.abort(422, "no file in the form, or the form is cut off")
        return [(each.filename, each.read()) for each in files]
    if kind and not kind.startswith(PICTURE_TYPES):
        flask.abort(415, "Content-Type {}: send a picture (image/...), or several as "
                         "multipart/form-data".format(kind))
    return [(None, flask.request.get_data(cache=False))]


def _header_fault(content, max_pixels):
    """Why a picture is refused before it waits for its turn; None if it isn't."""
    try:
        check_header(content, max_pixels)
    except BadImage as error:
        return str(error)
    return None


def _row(name, answer):
    """The JSON object for a picture."""
    result = answer.result
    if result.error:
        return {"name": name, "error": result.error}
    row = {"name": name, "label": result.label, "is_face": result.is_face,
           "probability": result.probability,
           "place": result.box and result.box._asdict()}
    if answer.heat_map is not None:
        row["map"] = _data_url(answer.heat_map)
    return row


def _data_url(heat_map):
    """A heat map as a small PNG to lay over its picture: the warmer and denser, the more a face."""
    scale = min(1.0, MAP_SIDE / max(heat_map.shape))
    size = [max(1, int(round(side * scale))) for side in heat_map.shape[::-1]]
    levels = np.rint(cv2.resize(heat_map, tuple(size), interpolation=cv2.INTER_AREA) * 255)
    levels = levels.clip(0, 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    alpha = np.rint(0.8 * 255 * np.sqrt(levels / 255.0)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.dstack([colours, alpha])).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
