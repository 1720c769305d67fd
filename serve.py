"""Try the model in a page, or ask it over HTTP.

    python serve.py                     # then open http://127.0.0.1:8000
    python serve.py --port 0            # any free port, printed
    curl --data-binary @photo.jpg http://127.0.0.1:8000/classify
    curl -F 1=@a.jpg -F 2=@b.jpg http://127.0.0.1:8000/classify

The page takes pictures that you drop on it, and shows the answer, the place of the face and a heat
map. Pictures stay on this computer: nothing is stored, and the page loads nothing from elsewhere.
The newest model is used, or the released one. Pictures of several requests are classified together.
Ctrl-C or SIGTERM ends the server after it has answered what was asked. docs/serving.md describes
requests and answers.
"""

import argparse
import ipaddress
import logging
import signal

from darknet_face.classify.api import load
from darknet_face.classify.sliding_window import DEFAULT_SEARCH, SEARCH_CHOICES
from darknet_face.images.decode import MAX_PIXELS
from darknet_face.images.reader import LARGEST_SIZE
from darknet_face.runtime.session import PRECISIONS
from darknet_face.serving.app import Limits, create_app
from darknet_face.serving.batching import Batcher
from darknet_face.serving.server import Server
from darknet_face.weights.released import describe_model
from utils import HelpFormatter, UserError, cli, number_type, warn

SPARE_THREADS = 8  # beyond a thread per waiting picture, to say at once that the queue is full
MEGA = 1000 * 1000


def _parser():
    parser = argparse.ArgumentParser(
        description="Serve a page to try the model in, and a JSON endpoint.",
        formatter_class=HelpFormatter)
    parser.add_argument("--weights", metavar="PATH",
                        help="the model, in any form that extract_weights.py reads (default: the "
                             "newest in the model directory, otherwise the released one)")
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


def is_loopback(host):
    """Whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_server(app, args):
    """The server, listening at the address that the options name."""
    most_bytes = int(args.max_megabytes * MEGA)
    try:
        return Server(app, args.host, args.port, args.queue + SPARE_THREADS, most_bytes)
    except (OSError, ValueError) as error:
        raise UserError("--host {} --port {}: {}; choose another, --port 0 takes a free one".format(
            args.host, args.port, getattr(error, "strerror", None) or error))


@cli
def main():
    parser = _parser()
    args = parser.parse_args()
    logging.getLogger("waitress").setLevel(logging.ERROR)
    try:
        model = load(args.weights, args.search, args.threshold, args.precision, args.image_size,
                     args.batch_size, args.model_dir, tight_boxes=True)
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


def _announce(model, host, port):
    print(describe_model(model.path, model.image_size, model.threshold))
    if not is_loopback(host):
        warn("--host {}: everyone who reaches this computer can use this server; it has no "
             "password and no encryption".format(host))
    print("open http://{}:{} (Ctrl-C stops)".format(
        "[{}]".format(host) if ":" in host else host, port), flush=True)


if __name__ == "__main__":
    main()
