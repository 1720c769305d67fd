"""Latency and throughput of serve.py under load, printed as percentiles.

    python benchmarks/serving.py                          # starts serve.py, 1, 4 and 16 clients
    python benchmarks/serving.py --clients 8 --requests 50 --search 1 --json serving.json
    python benchmarks/serving.py --url http://127.0.0.1:8000    # a server that runs already

Each client sends one image after another over one connection. A client that is told to come back
later (status 503) waits as long as the server says; its latency counts from the first try. The
images are scikit-image's, or those that ``--images`` names. Any other failure ends
the run with exit code 1.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import threading
import time

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import requests
from environments import ROOT

from darknet_face.classify.sliding_window import DEFAULT_SEARCH, SEARCH_CHOICES
from darknet_face.console import HelpFormatter, UserError, cli, number_type
from darknet_face.images.samples import sample_images
from darknet_face.runtime.atomic_files import write_json

PERCENTILES = (50, 90, 99)


def measure(url, contents, clients, per_client):
    """Let clients ask at the same time.

    Parameters
    ----------
    url : str
        The server's address.
    contents : list of bytes
        Encoded images; clients take them in turn.
    clients : int
    per_client : int
        Requests of each client.

    Returns
    -------
    dict
        ``clients``, ``requests``, ``retries``, ``failures``, ``per_second``, and the latencies
        ``p50``, ``p90``, ``p99`` in seconds.
    """
    latencies, failures, retries = [], [], []

    def client(number):
        with requests.Session() as session:
            for turn in range(per_client):
                start = time.perf_counter()
                content = contents[(number + turn) % len(contents)]
                try:
                    answer = session.post(url + "/classify", data=content, timeout=600)
                    while answer.status_code == 503:
                        retries.append(number)
                        time.sleep(float(answer.headers.get("Retry-After", 1)))
                        answer = session.post(url + "/classify", data=content, timeout=600)
                    if answer.status_code != 200:
                        raise ValueError("status {}".format(answer.status_code))
                except (requests.RequestException, ValueError) as error:
                    failures.append(str(error))
                    continue
                latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    row = {"clients": clients, "requests": clients * per_client, "retries": len(retries),
           "failures": len(failures), "per_second": len(latencies) / seconds}
    values = np.percentile(latencies, PERCENTILES) if latencies else [float("nan")] * 3
    row.update(("p{}".format(each), float(value)) for each, value in zip(PERCENTILES, values))
    return row


@contextlib.contextmanager
def running_server(options):
    """Start serve.py on a free port with more options; yield its address."""
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "serve.py"), "--port", "0"] + options,
        stdout=subprocess.PIPE, universal_newlines=True)
    try:
        for line in iter(process.stdout.readline, ""):
            found = re.match(r"open (http://\S+:[0-9]+) ", line)
            if found:
                yield found.group(1)
                return
        raise UserError("serve.py did not start; see above", exit_code=1)
    finally:
        process.terminate()
        process.communicate()


def format_rows(rows):
    """The table for people to read, latencies in milliseconds."""
    lines = ["clients  requests  retries    images/s       p50       p90       p99"]
    lines += ["{clients:7}  {requests:8}  {retries:7}  {per_second:10.1f}  {:>8}  {:>8}  "
              "{:>8}".format(*["{:.0f} ms".format(1000 * row["p{}".format(each)])
                               for each in PERCENTILES], **row) for row in rows]
    return "\n".join(lines)


def _parser():
    parser = argparse.ArgumentParser(
        description="Measure the latency and the throughput of serve.py under load.",
        formatter_class=HelpFormatter)
    parser.add_argument("--clients", type=number_type(int, 1, 1000), nargs="+",
                        default=[1, 4, 16], help="how many ask at the same time, run by run")
    parser.add_argument("--requests", type=number_type(int, 1), default=20,
                        help="images that each client sends in a run")
    parser.add_argument("--search", choices=SEARCH_CHOICES, default=DEFAULT_SEARCH,
                        help="for the server: how far to search an image")
    parser.add_argument("--weights", metavar="PATH",
                        help="for the server: the model (default: as serve.py)")
    parser.add_argument("--images", "--pictures", nargs="+", metavar="FILE",
                        help="what the clients send (default: scikit-image's)")
    parser.add_argument("--url", help="a server that runs already; --search and --weights are its "
                                      "own then")
    parser.add_argument("--json", metavar="FILE", help="also write the metrics there")
    return parser


@cli
def main():
    args = _parser().parse_args()
    contents = []
    for path in args.images or sample_images():
        with open(path, "rb") as stream:
            contents.append(stream.read())
    options = ["--search", args.search] + (["--weights", args.weights] if args.weights else [])
    server = contextlib.nullcontext(args.url.rstrip("/")) if args.url else running_server(options)
    with server as url:
        measure(url, contents[:1], 1, 1)  # the first run of a session is slow
        rows = [measure(url, contents, clients, args.requests) for clients in args.clients]
    print(format_rows(rows))
    if args.json:
        write_json(args.json, {"search": args.search, "runs": rows})
    failures = sum(row["failures"] for row in rows)
    if failures:
        raise UserError("{} requests failed".format(failures), exit_code=1)


if __name__ == "__main__":
    main()
