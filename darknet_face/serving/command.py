"""The command that serves the page and the endpoint: its options, its start and its end.

``serve.py`` at the root of the repository runs it, and says how to use it.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import re
import signal
from typing import Sequence

from flask import Flask

from darknet_face.classify.api import FaceModel, load
from darknet_face.classify.options import add_model_arguments, add_search_argument
from darknet_face.console import HelpFormatter, UserError, cli, number_type, warn
from darknet_face.images.decode import MAX_PIXELS
from darknet_face.serving.app import Settings, create_app
from darknet_face.serving.batching import Batcher
from darknet_face.serving.callers import ANY_ORIGIN
from darknet_face.serving.server import Server

SPARE_THREADS = 8  # beyond a thread for each image in the queue and the batch, to answer at once
LAST_SECONDS = 5  # for the batch in progress, when the time to answer what was asked is over
MEGA = 1000 * 1000


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Serve a page to try the model in, and a JSON endpoint.",
        formatter_class=HelpFormatter)
    add_model_arguments(parser, batch_size=8)
    add_search_argument(parser)
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1",
                       help="address to listen at; any other than this computer's own lets others "
                            "use the server, which asks for no password")
    group.add_argument("--port", type=number_type(int, 0, 65535), default=8000,
                       help="0 takes a free one and prints it")
    group.add_argument("--max-megabytes", type=number_type(float, 0.001, 1000), default=20,
                       help="refuse longer requests")
    group.add_argument("--max-megapixels", type=number_type(float, 0.001, MAX_PIXELS / MEGA),
                       default=65, help="refuse larger images")
    group.add_argument("--queue", type=number_type(int, 1, 1000), default=32,
                       help="images that may wait; beyond that the answer is status 503")
    group.add_argument("--access-log", metavar="FILE",
                       help="append a line for each request; - for standard output")
    group = parser.add_argument_group("others that may use the server; see docs/serving.md")
    group.add_argument("--name", action="append", default=[], metavar="NAME",
                       help="also answer requests to this host name (may be repeated)")
    group.add_argument("--trusted-proxy", action="append", default=[], type=ipaddress.ip_network,
                       metavar="ADDRESS",
                       help="believe what this address or network (10.0.0.0/8) says about the "
                            "client and the address that it asked, in X-Forwarded-For, -Proto, "
                            "-Host and -Prefix or in Forwarded (may be repeated)")
    group.add_argument("--prefix", type=_prefix, metavar="/PATH",
                       help="answer below this path too, for a proxy that leaves it in requests")
    group.add_argument("--cors", action="append", default=[], type=_origin, metavar="ORIGIN",
                       help="let the pages of this site (https://app.example) use the endpoint; * "
                            "lets those of every site (may be repeated)")
    return parser


def _prefix(text: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)+/?", text):
        raise argparse.ArgumentTypeError("{}: must be a path such as /faces".format(text))
    return text.rstrip("/")


def _origin(text: str) -> str:
    if text != ANY_ORIGIN and not re.fullmatch(r"[a-z]+://[^/?#@\s]+", text):
        raise argparse.ArgumentTypeError("{}: must be an origin such as https://app.example, "
                                         "without a path, or *".format(text))
    return text


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_server(app: Flask, args: argparse.Namespace) -> Server:
    """The server, listening at the address that the options name."""
    threads = args.queue + args.batch_size + SPARE_THREADS
    try:
        return Server(app, args.host, args.port, threads, int(args.max_megabytes * MEGA),
                      args.trusted_proxy, args.prefix or "")
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
    model.prepare()
    batcher = Batcher(model, args.queue, args.batch_size)
    try:
        server = open_server(create_app(batcher, _settings(args)), args)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: _stop(server, number))
        _announce(model, args.host, server.port)
        server.run()
    finally:
        if not batcher.close(LAST_SECONDS):
            _end_now("did not answer everything in time", 1)
        model.close()
    print("answered everything, stopped")


def _settings(args: argparse.Namespace) -> Settings:
    is_local = is_loopback(args.host) and not (args.trusted_proxy or args.name)
    return Settings(int(args.max_megapixels * MEGA), args.name, args.cors, args.trusted_proxy,
                    is_local, args.access_log)


def _stop(server: Server, number: int) -> None:
    """Handle a signal: the first lets the server answer what was asked, the second does not."""
    if server.is_stopping:
        _end_now("stopped before everything was answered", 128 + number)
    server.stop()


def _end_now(message: str, code: int) -> None:
    """End the process without waiting for the network, which can't be interrupted."""
    os.write(2, "error: {}\n".format(message).encode())  # print() may be what was interrupted
    os._exit(code)


def _announce(model: FaceModel, host: str, port: int) -> None:
    print(model.description)
    if not is_loopback(host):
        warn("--host {}: everyone who reaches this computer can use this server; it has no "
             "password and no encryption".format(host))
    print("open http://{}:{} (Ctrl-C stops)".format(
        "[{}]".format(host) if ":" in host else host, port), flush=True)
