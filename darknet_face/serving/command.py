"""The command that serves the page and the endpoint: its options, its start and its end.

``serve.py`` at the root of the repository runs it, and says how to use it.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import signal
from typing import Sequence

from flask import Flask

from darknet_face.classify.api import FaceModel, load
from darknet_face.classify.sliding_window import DEFAULT_SEARCH, SEARCH_CHOICES
from darknet_face.console import HelpFormatter, UserError, cli, number_type, warn
from darknet_face.engines.engine import add_engine_argument
from darknet_face.images.decode import MAX_PIXELS
from darknet_face.images.reader import LARGEST_SIZE
from darknet_face.options import add_weights_argument
from darknet_face.runtime.session import PRECISIONS
from darknet_face.serving.app import Limits, create_app
from darknet_face.serving.batching import Batcher
from darknet_face.serving.server import Server

SPARE_THREADS = 8  # beyond a thread per waiting picture, to say at once that the queue is full
MEGA = 1000 * 1000


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Serve a page to try the model in, and a JSON endpoint.",
        formatter_class=HelpFormatter)
    add_weights_argument(parser)
    parser.add_argument("--model-dir", default="saved_models", help="folder with your own model")
    parser.add_argument("--image-size", type=number_type(int, 32, LARGEST_SIZE),
                        help="height and width of the network's input, a multiple of 32 "
                             "(default: as in training)")
    parser.add_argument("--search", choices=SEARCH_CHOICES, default=DEFAULT_SEARCH,
                        help="how far to search a picture, as in inference.py")
    parser.add_argument("--threshold", type=number_type(float, 0, 1),
                        help="call a picture a face if its probability is at least this "
                             "(default: the model's own, or 0.5)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in")
    add_engine_argument(parser)
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1",
                       help="address to listen at; any other than this computer's own lets others "
                            "use the server, which asks for no password")
    group.add_argument("--port", type=number_type(int, 0, 65535), default=8000,
                       help="0 takes a free one and prints it")
    group.add_argument("--name", action="append", default=[], metavar="NAME",
                       help="also answer requests to this host name, for a server behind another "
                            "(may be repeated)")
    group.add_argument("--max-megabytes", type=number_type(float, 0.001, 1000), default=20,
                       help="refuse longer requests")
    group.add_argument("--max-megapixels", type=number_type(float, 0.001, MAX_PIXELS / MEGA),
                       default=50, help="refuse larger pictures")
    group.add_argument("--queue", type=number_type(int, 1, 1000), default=32,
                       help="pictures that may wait; beyond that the answer is status 503")
    group.add_argument("--batch-size", type=number_type(int, 1, 256), default=8,
                       help="pictures that are classified together")
    return parser


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_server(app: Flask, args: argparse.Namespace) -> Server:
    """The server, listening at the address that the options name."""
    most_bytes = int(args.max_megabytes * MEGA)
    try:
        return Server(app, args.host, args.port, args.queue + SPARE_THREADS, most_bytes)
    except (OSError, ValueError) as error:
        raise UserError("--host {} --port {}: {}; choose another, --port 0 takes a free one".format(
            args.host, args.port, getattr(error, "strerror", None) or error))


@cli
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Serve until a signal comes; ``arguments`` and ``prog`` are the program's own if absent."""
    parser = _parser(prog)
    args = parser.parse_args(arguments)
    logging.getLogger("waitress").setLevel(logging.ERROR)
    try:
        model = load(args.weights, args.search, args.threshold, args.precision, args.image_size,
                     args.batch_size, args.model_dir, tight_boxes=True, engine=args.engine)
    except ValueError as error:
        parser.error(str(error))
    batcher = Batcher(model, args.queue, args.batch_size)
    try:
        limits = Limits(int(args.max_megapixels * MEGA), args.name)
        server = open_server(create_app(batcher, limits), args)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop())
        _announce(model, args.host, server.port)
        server.run()
    finally:
        batcher.close()
        model.close()
    print("answered everything, stopped")


def _announce(model: FaceModel, host: str, port: int) -> None:
    print(model.description)
    if not is_loopback(host):
        warn("--host {}: everyone who reaches this computer can use this server; it has no "
             "password and no encryption".format(host))
    print("open http://{}:{} (Ctrl-C stops)".format(
        "[{}]".format(host) if ":" in host else host, port), flush=True)
