"""Who may use the server: this computer, people let in by the operator, no other site's page.

A browser sends requests that any page makes to any address, this computer's own among them. Such a
request says where it is from, in ``Origin`` or ``Sec-Fetch-Site``. If the page has pointed a name
of its own at this computer, the ``Host`` is that name.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Callable, Collection, Iterable, Union
from urllib.parse import urlsplit

import flask
from werkzeug.http import parse_options_header
from werkzeug.middleware.proxy_fix import ProxyFix

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

FORWARDED = ["HTTP_X_FORWARDED_" + each for each in ("FOR", "PROTO", "HOST", "PREFIX", "PORT")]
ANY_ORIGIN = "*"
PREFLIGHT_SECONDS = 600  # that a browser may remember the answer to a preflight request


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    try:
        known = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return any(known in network for network in networks)


class TrustedProxies:
    """WSGI middleware: believes what proxies say about the client, and nobody else.

    Parameters
    ----------
    app
        The WSGI application below.
    networks
        Where the proxies are. Their ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix`` are
        taken, or their ``Forwarded`` (RFC 7239) if they send none of these.
    """

    def __init__(self, app: Callable[..., Any], networks: Collection[Network]) -> None:
        self._app, self._networks = app, networks
        self._proxied = ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        forwarded = environ.pop("HTTP_FORWARDED", None)
        if not is_within(environ["REMOTE_ADDR"], self._networks):
            for name in FORWARDED:
                environ.pop(name, None)
            return self._app(environ, start_response)
        if forwarded and not any(name in environ for name in FORWARDED):
            environ.update(_from_forwarded(forwarded))
        return self._proxied(environ, start_response)


def _from_forwarded(value: str) -> dict[str, str]:
    """The last element of ``Forwarded``, which the proxy wrote, as the other headers say it."""
    _, options = parse_options_header("forwarded;" + value.split(",")[-1].strip())
    lower = {name.lower(): option for name, option in options.items()}
    return {"HTTP_X_FORWARDED_" + name.upper(): lower[name]
            for name in ("for", "proto", "host") if name in lower}


class Callers:
    """Refuses requests that a page of another site makes.

    Parameters
    ----------
    names
        Host names of this server, beside this computer's own name and its addresses.
    origins
        Sites whose pages may use the server, such as "https://app.example"; "*" for all.
    """

    def __init__(self, names: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._names = {name.lower() for name in names}
        self._own = self._names | {"localhost", socket.gethostname().lower(),
                                   socket.getfqdn().lower()}
        self._origins = set(origins)

    def check(self) -> flask.Response | None:
        """Abort with 403 unless the request may be answered; answer a preflight request."""
        request = flask.request
        if not self._is_own(request.host):
            flask.abort(403, "Host {}: not a name of this server; start it with --name to allow "
                             "it".format(request.host))
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if self._is_allowed(origin):
            is_preflight = "Access-Control-Request-Method" in request.headers
            return flask.Response(status=204) if is_preflight else None
        # A browser that says same-origin has compared the addresses that it sees itself.
        is_foreign = site in ("cross-site", "same-site") and request.method != "GET"
        if is_foreign or (origin and site != "same-origin" and not self._is_own_origin(origin)):
            flask.abort(403, "requests from other sites are refused; --cors allows one")
        return None

    def add_headers(self, response: flask.Response) -> flask.Response:
        """Let the pages of an allowed site read the answer."""
        if self._origins:
            response.headers["Vary"] = "Origin"
        if self._is_allowed(flask.request.headers.get("Origin")):
            response.headers.update({
                "Access-Control-Allow-Origin":
                    ANY_ORIGIN if ANY_ORIGIN in self._origins else flask.request.headers["Origin"],
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": "Content-Type",
                "Access-Control-Expose-Headers": "Retry-After",
                "Access-Control-Max-Age": str(PREFLIGHT_SECONDS)})
        return response

    def _is_allowed(self, origin: str | None) -> bool:
        return origin is not None and bool(self._origins & {origin, ANY_ORIGIN})

    def _is_own(self, host: str) -> bool:
        """Whether a Host header is an address, or one of the names."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        try:
            ipaddress.ip_address(name.strip("[]"))
            return True
        except ValueError:
            return name.lower() in self._own

    def _is_own_origin(self, origin: str) -> bool:
        """Whether a page is this server's own: of its address, or of a name that it was given.

        The second holds behind a proxy that says nothing of the address that browsers see.
        """
        if origin == "{}://{}".format(flask.request.scheme, flask.request.host):
            return True
        try:
            return urlsplit(origin).hostname in self._names
        except ValueError:
            return False
