"""serve.py behind a proxy: who is believed, and the nginx of docs/serving.md over HTTP and TLS.

The tests with nginx are skipped where it is not installed.
"""

import ipaddress
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
import requests
from conftest import ROOT
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from darknet_face.classify.results import Box, Result
from darknet_face.images.samples import sample_images
from darknet_face.serving.app import Settings, create_app
from darknet_face.serving.batching import Batcher
from darknet_face.serving.callers import TrustedProxies
from darknet_face.serving.server import Server

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
NAME = "faces.example"
CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; limit_conn_zone $binary_remote_addr zone=clients:1m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; server_name {name};
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        {snippet}
        location /bare/ {{ proxy_pass http://127.0.0.1:{port}/; }}
        location /kept/ {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $http_host; }}
    }}
}}
"""


@pytest.mark.parametrize("address, headers, seen", [
    ("10.0.0.1", {}, "10.0.0.1 http://inner:8000/a"),
    ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6, 7.7.7.7", "X-Forwarded-Proto": "https",
                  "X-Forwarded-Host": NAME, "X-Forwarded-Prefix": "/faces"},
     "7.7.7.7 https://faces.example/faces/a"),
    ("10.0.0.1", {"Forwarded": 'for=6.6.6.6, For="7.7.7.7";proto=https;Host="faces.example"'},
     "7.7.7.7 https://faces.example/a"),
    ("10.0.0.1", {"Forwarded": "for=6.6.6.6;host=strange.example", "X-Forwarded-Proto": "https",
                  "X-Forwarded-For": "7.7.7.7"}, "7.7.7.7 https://inner:8000/a"),
    ("10.0.0.1", {"Forwarded": ';;="'}, "10.0.0.1 http://inner:8000/a"),
    ("10.0.1.1", {"Forwarded": "for=7.7.7.7;proto=https;host=strange.example"},
     "10.0.1.1 http://inner:8000/a"),
    ("10.0.1.1", {"X-Forwarded-For": "7.7.7.7", "X-Forwarded-Proto": "https",
                  "X-Forwarded-Host": "strange.example", "X-Forwarded-Prefix": "/x"},
     "10.0.1.1 http://inner:8000/a")])
def test_only_trusted_proxies_are_believed(address, headers, seen):
    @Request.application
    def tell(request):
        return Response("{} {}".format(request.remote_addr, request.url))

    app = TrustedProxies(tell, [ipaddress.ip_network("10.0.0.0/24")])
    answer = Client(app, Response).get("/a", "http://inner:8000", headers=headers,
                                       environ_base={"REMOTE_ADDR": address})
    assert answer.get_data(as_text=True) == seen


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Model:
    """Stands for the network, which the proxy never sees."""

    path, image_size, threshold = "model.npz", 32, 0.5

    def __call__(self, images):
        return [Result("bytes", 0.75, True, "FACE", Box(1, 2, 3, 4)) for _ in images]


@pytest.fixture(scope="module")
def backend():
    """The port of a server that trusts a proxy on this computer."""
    batcher, proxies = Batcher(Model()), [ipaddress.ip_network("127.0.0.1")]
    app = create_app(batcher, Settings(names=[NAME], proxies=proxies, is_local=False))
    server = Server(app, "127.0.0.1", 0, 4, 20 * 1000 * 1000, proxies, "/kept")
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server.port
    server.stop()
    thread.join()
    batcher.close()


@pytest.fixture(scope="module")
def proxy(backend, tmp_path_factory):
    """The addresses of an nginx with the documented snippet, without TLS and with it."""
    if not (NGINX and shutil.which("openssl")):
        pytest.skip("nginx or openssl is not installed")
    with open(os.path.join(ROOT, "docs", "serving.md")) as stream:
        snippet = re.search(r"```nginx\n(.*?)```", stream.read(), re.DOTALL).group(1)
    port = str(backend)
    folder, plain, tls = str(tmp_path_factory.mktemp("nginx")), free_port(), free_port()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=" + NAME, "-keyout", folder + "/key.pem", "-out",
                    folder + "/cert.pem"], check=True, stderr=subprocess.DEVNULL)
    with open(folder + "/nginx.conf", "w") as stream:
        stream.write(CONFIGURATION.format(
            folder=folder, plain=plain, tls=tls, name=NAME, port=port,
            snippet=snippet.replace("127.0.0.1:8000", "127.0.0.1:" + port)))
    process = subprocess.Popen([NGINX, "-p", folder, "-c", folder + "/nginx.conf"])
    try:
        wait_for(plain, process)
        yield {"http": "http://127.0.0.1:{}".format(plain),
               "https": "https://127.0.0.1:{}".format(tls)}
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port, process):
    deadline = time.time() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.time() < deadline and process.poll() is None, "nginx did not start"
            time.sleep(0.1)


def ask(address, origin, site=None, **options):
    """Send an image as the page does in a browser that sees ``origin``."""
    headers = {"Host": origin.split("//")[1], "Origin": origin}
    if site:
        headers["Sec-Fetch-Site"] = site
    with open(sample_images()[0], "rb") as stream:
        return requests.post(address + "classify", stream.read(), headers=headers, verify=False,
                             timeout=60, **options)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_documented_nginx_passes_images_on(proxy, scheme):
    address, own = proxy[scheme] + "/faces/", scheme + "://" + NAME
    assert ask(address, own, "same-origin").status_code == 200
    assert ask(address, own).status_code == 200
    for origin in (own + ".strange.example", "null"):
        headers = {"Host": NAME, "Origin": origin}
        answer = requests.post(address + "classify", b"x", headers=headers, verify=False)
        assert answer.status_code == 403
    assert ask(address, scheme + "://strange.example").status_code == 403, "the name decides"
    page = requests.get(address, headers={"Host": NAME}, verify=False)
    assert page.status_code == 200 and "page.js" in page.text
    health = requests.get(address + "healthz", headers={"Host": NAME}, verify=False)
    assert health.json()["local"] is False
    metrics = requests.get(address + "metrics", headers={"Host": NAME}, verify=False)
    assert metrics.status_code == 403


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("path", ["/bare/", "/kept/"])
def test_proxies_that_say_nothing_pass_images_on(proxy, path):
    """A plain proxy_pass, which replaces the Host, and one that leaves the prefix in place."""
    assert ask(proxy["https"] + path, "https://" + NAME, "same-origin").status_code == 200
    assert ask(proxy["http"] + path, "http://" + NAME).status_code == 200
    assert requests.get(proxy["http"] + path, headers={"Host": NAME}).status_code == 200


def test_a_prefix_without_its_slash_is_completed(backend):
    url = "http://127.0.0.1:{}/kept".format(backend)
    answer = requests.get(url, allow_redirects=False)
    assert answer.status_code == 308 and answer.headers["Location"] == "/kept/"
    assert requests.get(url + "/page.js").status_code == 200
