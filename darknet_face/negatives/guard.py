"""Bounds on a request to an untrusted server: where it may go, and how long it may take.

A search result or a redirect can point anywhere, so the address of every connection is checked
before a byte is sent: an outsider must not reach the user's own network. And a
socket's time-out starts again with each byte, so a timer closes the connection of a request that
takes too long.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import typing
import unicodedata

import requests
import urllib3

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


class ForbiddenAddress(Exception):
    """A connection to a network that the request must not reach; the message is the address."""


def network_of(address: str) -> str:
    """Classify the network of an IP address.

    Parameters
    ----------
    address
        IPv4 or IPv6. An IPv6 address that carries an IPv4 address counts as the latter.

    Returns
    -------
    str
        "public", "loopback", "link-local" or "private". The last also stands for shared, reserved
        and multicast ranges.
    """
    ip = _carried_ipv4(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_loopback or ip.is_unspecified:
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    odd = ip.is_multicast or ip.is_reserved or (ip.version == 6 and ip.is_site_local)
    return "public" if ip.is_global and not odd else "private"


def _carried_ipv4(ip):
    """The IPv4 address inside an IPv6 address (mapped, 6to4, NAT64, compatible), if any."""
    if ip.version == 4 or ip.is_loopback or ip.is_unspecified:
        return ip
    if ip in _NAT64 or ip in _IPV4_COMPATIBLE:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def networks_of(host: str) -> set[str]:
    """The networks of a host's addresses: a set of what :func:`network_of` returns.

    The set is empty if the host name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {network_of(str(address[0])) for _, _, _, _, address in found}


def literal_address(host: str) -> str | None:
    """The IP address that a host name spells out, in any notation, or None.

    ``2130706433``, ``0x7f.1`` and ``127.1`` are all 127.0.0.1.
    """
    host = unicodedata.normalize("NFKC", host).rstrip(".")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.partition("%")[0]))
    with contextlib.suppress(OSError, ValueError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return None


class RequestGuard:
    """Watches over one request of one thread; used as a context manager.

    Parameters
    ----------
    seconds
        When they are over, the connection is closed.
    networks
        The networks that may be reached, as :func:`network_of` names them.
    active
        The guard is in it while its request runs.
    """

    def __init__(self, seconds: float, networks: typing.Collection[str],
                 active: set[RequestGuard]) -> None:
        self.expired = False
        self._networks = networks
        self._active = active
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self.expire)
        self._timer.daemon = True

    def __enter__(self) -> RequestGuard:
        self._active.add(self)
        self._timer.start()
        _this_thread.guard = self
        return self

    def __exit__(self, *_: object) -> None:
        _this_thread.guard = None
        self._active.discard(self)
        self._timer.cancel()
        with self._lock:  # the connection may serve another request from now on
            self._socket = None

    def check_address(self, address: str) -> None:
        """Raise ForbiddenAddress unless an IP address may be reached."""
        if network_of(address) not in self._networks:
            raise ForbiddenAddress(address)

    def watch(self, connected: socket.socket) -> None:
        """Take the socket that the request uses, to close it in time."""
        with self._lock:
            self._socket = connected
        if self.expired:
            self.expire()

    def expire(self) -> None:
        """End the request now."""
        self.expired = True
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The method of the plain socket: that of TLS breaks a reader in another thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_this_thread = threading.local()  # .guard: that of the request which this thread is making


class _Guarded:
    """Mixed into urllib3's connections: shows each socket to the guard of the thread."""

    def _new_conn(self: typing.Any) -> typing.Any:
        connected = super()._new_conn()  # type: ignore[misc]
        try:
            if self.proxy is None:  # the proxy itself may be anywhere
                _this_thread.guard.check_address(connected.getpeername()[0])
        except BaseException:
            connected.close()
            raise
        return connected

    def getresponse(self: typing.Any, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        _this_thread.guard.watch(self.sock)
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = type("HTTPConnection", (_Guarded, urllib3.connection.HTTPConnection), {})


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = type("HTTPSConnection", (_Guarded, urllib3.connection.HTTPSConnection), {})


class GuardedAdapter(requests.adapters.HTTPAdapter):
    """The transport of requests, for use inside a :class:`RequestGuard` only."""

    _POOLS = {"http": _HTTPPool, "https": _HTTPSPool}

    def init_poolmanager(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._POOLS

    def proxy_manager_for(self, proxy: typing.Any, **kwargs: typing.Any) -> typing.Any:
        if proxy.lower().startswith("socks"):
            raise requests.exceptions.InvalidSchema("SOCKS proxies are not supported")
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._POOLS
        return manager
