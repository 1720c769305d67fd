"""A polite HTTP client for downloads from untrusted servers by several threads.

:class:`PoliteClient` limits the rate of requests to each host, waits when a host asks for it,
retries what may pass and trusts nothing that a server says about itself.
"""

from __future__ import annotations

import collections
import contextlib
import http.cookiejar
import json
import random
import re
import threading
import time
import typing
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

import requests
import urllib3

from darknet_face.console import UserError
from darknet_face.negatives.guard import (
    ForbiddenAddress,
    GuardedAdapter,
    RequestGuard,
    literal_address,
    network_of,
)
from darknet_face.negatives.reports import Unusable

MAX_REDIRECTS = 5
MAX_URL = 2000  # characters of an image's address; longer ones are attacks or mistakes
MAX_REQUEST_URL = 6000  # characters; a search for 200 Chinese letters takes over 2,000
MAX_JSON_BYTES = 4 * 1000 * 1000  # far more than a page of 50 results takes

_CHUNK = 16 * 1024  # bytes read at a time; decompressed, at most a thousand times as many
_TRANSIENT = frozenset([408, 425, 429])  # and every 5xx: worth another try
# A quota is used up, --contact is missing, a proxy wants a password, or Openverse could not fetch
# a thumbnail in time: later runs ask again.
_DENIED = frozenset([401, 403, 407, 424])
_LONGEST_RETRY_AFTER = 6 * 3600.0  # seconds; newer versions of urllib3 have the same limit


class Patience(typing.NamedTuple):
    """How long a client waits, in seconds.

    After a transient failure there are ``retries`` further tries: the first after ``backoff``, each
    later one after twice the wait before, up to ``longest_wait``.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 20.0  # for the next bytes
    time_limit: float = 60.0  # for a whole response
    retries: int = 4
    backoff: float = 1.0
    longest_wait: float = 120.0


class FetchError(Unusable):
    """A failed download."""


class Refused(FetchError):
    """A lasting failure: another try would fail too."""


class Denied(FetchError):
    """The host does not serve this client for now: try again in a later run."""


class Unavailable(FetchError):
    """A transient failure: try again, in this run or in a later one.

    ``host`` is the host that is overloaded, or None. ``retry_after`` is the number of seconds that
    it asks for, or None.
    """

    def __init__(self, cause: str, detail: str = "", host: str | None = None,
                 retry_after: float | None = None) -> None:
        super().__init__(cause, detail)
        self.host = host
        self.retry_after = retry_after


class Stopped(Exception):
    """The client was stopped while a request waited for its turn."""


class _RateLimiter:
    """When each host may be asked next; shared by all threads."""

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._free_at: dict[str, float] = collections.defaultdict(float)
        self._closed_until: dict[str, float] = collections.defaultdict(float)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def take_turn(self, host: str) -> None:
        """Wait until this thread may ask ``host``."""
        while True:
            with self._lock:
                if self._stopped.is_set():
                    raise Stopped
                now = time.monotonic()
                closed = self._closed_until[host] - now
                if closed > 0:
                    raise Denied("host asks to wait", "for {:.0f} s more".format(closed))
                delay = self._free_at[host] - now
                if delay <= 0:
                    self._free_at[host] = now + self._interval
                    return
            self.sleep(delay)

    def hold(self, host: str, seconds: float) -> None:
        """Make all threads wait for some seconds before they ask ``host``."""
        with self._lock:
            self._free_at[host] = max(self._free_at[host], time.monotonic() + seconds)

    def close(self, host: str, seconds: float) -> None:
        """Fail all requests to ``host`` for some seconds, instead of letting them wait."""
        with self._lock:
            self._closed_until[host] = max(
                self._closed_until[host], time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def stop(self) -> None:
        self._stopped.set()


class _Session(requests.Session):
    """A session without cookies and credentials that leaves redirects to its caller.

    requests would read the whole body of a redirect, however long, before following it. And it
    would send the password that ``~/.netrc`` has for a host to any server of that name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
        # Any authentication of our own keeps requests from looking for one. trust_env = False would
        # do so too, but turn off the environment's proxies as well.
        self.auth = lambda request: request

    def get_redirect_target(self, resp: typing.Any) -> None:
        return None


class PoliteClient:
    """Fetches images and JSON over HTTP for several threads.

    A request follows at most five redirects, to http and https addresses only. It is retried with
    exponential back-off and jitter after a time-out, a broken connection, HTTP 408, 425, 429 or
    5xx. ``Retry-After`` holds for the whole host; if it is longer than ``patience.longest_wait``,
    requests to the host fail until it is over. urllib3's ``Retry`` would not do: it covers the
    headers only, knows nothing of other threads, and sleeps as long as the server says.

    Parameters
    ----------
    contact
        E-mail or web address for the User-Agent, as Wikimedia's policy demands.
    rate
        Requests per second to one host.
    workers
        Number of threads that will use the client.
    networks
        The networks that may be reached; see :func:`darknet_face.negatives.guard.network_of`.
    patience

    Raises
    ------
    UserError
        The environment names a proxy that cannot be used.
    """

    def __init__(self, contact: str, rate: float, workers: int,
                 networks: typing.Collection[str] = ("public",),
                 patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._networks = frozenset(networks)
        self._limiter = _RateLimiter(rate)
        self._active: set[RequestGuard] = set()  # the guards of all requests under way
        self._session = _Session()
        self._session.headers["User-Agent"] = "gen_neg_samples/1.0 ({}) {}".format(
            sanitize(contact).encode("ascii", "replace").decode() or "no contact given",
            requests.utils.default_user_agent())
        self._session.headers["Accept-Encoding"] = "gzip"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, GuardedAdapter(pool_maxsize=workers + 1))
        _check_proxies(self._session.adapters["http://"])

    def get_image(self, url: str, max_bytes: int) -> bytes:
        """Fetch an image file, unless its server forbids to train models on it.

        Parameters
        ----------
        url
        max_bytes
            Longer files are refused, whatever length the server announces.

        Raises
        ------
        Refused, Denied, Unavailable, Stopped
        """
        return self._get(url, max_bytes, lambda answer: _check_robots_tag(answer.headers))

    def get_json(self, url: str, params: dict[str, str]) -> dict[str, typing.Any]:
        """Ask an API and return its answer as a dict.

        Raises
        ------
        Refused, Denied, Unavailable, Stopped
            Unavailable also for an answer that is not a JSON object, or that reports an error.
        """
        address = requests.Request("GET", url, params=params).prepare().url
        return self._get(address, MAX_JSON_BYTES, parse=_parse_json)

    def stop(self) -> None:
        """Make the requests of all threads fail, those under way and those that wait."""
        self._limiter.stop()
        for guard in list(self._active):
            guard.expire()

    def _get(self, url, max_bytes, check=None, parse=None):
        attempt = 0
        while True:
            try:
                answer, body = self._try_once(url, max_bytes, check)
                return parse(answer, body) if parse else body
            except Unavailable as error:
                wait = self._back_off(error, attempt)
                if attempt == self._patience.retries or wait > self._patience.longest_wait:
                    raise
            self._limiter.sleep(wait)
            attempt += 1

    def _back_off(self, error, attempt):
        """Hold back an overloaded host; return the seconds to wait before another try."""
        patience = self._patience
        wait = error.retry_after or 0
        if attempt < patience.retries:
            backoff = min(patience.longest_wait, patience.backoff * 2 ** attempt)
            wait = max(wait, backoff * random.uniform(0.5, 1))
        if wait > patience.longest_wait:
            self._limiter.close(error.host, wait)
        elif error.host:
            self._limiter.hold(error.host, wait)
        return wait

    def _try_once(self, url, max_bytes, check):
        """Follow the redirects from ``url``: the last response and its body."""
        for _ in range(MAX_REDIRECTS + 1):
            if not is_web_address(url, MAX_REQUEST_URL):
                raise Refused("not an http(s) address", sanitize(url))
            host = urlsplit(url).hostname
            address = literal_address(host)
            if address and network_of(address) not in self._networks:
                raise Refused("private address", sanitize(host))
            self._limiter.take_turn(host)
            with RequestGuard(self._patience.time_limit, self._networks, self._active) as guard:
                try:
                    answer, body, url = self._exchange(url, max_bytes, check)
                    if guard.expired:  # the cut can look like the end of the headers or the body
                        raise requests.Timeout
                except ForbiddenAddress as error:
                    raise Refused("private address", "{} is at {}".format(
                        sanitize(host), error)) from None
                except (requests.RequestException, urllib3.exceptions.HTTPError, OSError,
                        ValueError) as error:
                    raise _as_fetch_error(error, guard.expired) from None
            if url is None:
                return answer, body
        raise Refused("too many redirects", "more than {}".format(MAX_REDIRECTS))

    def _exchange(self, url, max_bytes, check):
        """One request: its response, and either the body or the address it redirects to."""
        answer = self._session.get(
            url, stream=True, allow_redirects=False,
            timeout=(self._patience.connect_timeout, self._patience.read_timeout))
        with contextlib.closing(answer):
            if answer.is_redirect:
                # http.client decodes headers as Latin-1; addresses are UTF-8.
                target = answer.headers["location"].encode("latin-1").decode("utf-8", "replace")
                return answer, None, urljoin(url, target)
            _check_status(answer)
            if check:
                check(answer)
            return answer, _read_body(answer, max_bytes), None


def _check_proxies(adapter):
    """Make sure that every proxy that the environment names can be used."""
    for scheme, proxy in getproxies().items():
        if scheme in ("http", "https", "all"):
            try:
                address = requests.utils.prepend_scheme_if_needed(proxy, "http")
                if not urlsplit(address).hostname:
                    raise requests.exceptions.InvalidProxyURL("it names no host")
                adapter.proxy_manager_for(address)
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise UserError("{}_proxy {}: {}; correct or unset that environment "
                                "variable".format(scheme, proxy, error)) from None


def _check_status(answer):
    """Raise the FetchError that an HTTP status stands for, if any."""
    status = answer.status_code
    if status in _TRANSIENT or status >= 500:
        raise Unavailable("HTTP {}".format(status), **_overload(answer, status in (429, 503)))
    if status in _DENIED:
        raise Denied("HTTP {}".format(status))
    if status != 200:
        raise Refused("HTTP {}".format(status))


def _overload(answer, is_overloaded):
    """The overloaded host and its Retry-After, as arguments of :class:`Unavailable`."""
    wait = _retry_after(answer)
    if is_overloaded or wait is not None:
        return {"host": urlsplit(answer.url).hostname, "retry_after": wait}
    return {}


def _retry_after(answer):
    """The seconds that the ``Retry-After`` header asks for (a number or a date), or None."""
    try:
        seconds = urllib3.Retry().parse_retry_after(answer.headers["Retry-After"])
    except Exception:  # no such header; and email.utils raises nearly anything on bad dates
        return None
    return min(float(seconds), _LONGEST_RETRY_AFTER)


def _check_robots_tag(headers):
    """Refuse an image sent with ``X-Robots-Tag: noai`` or ``noimageai``, for any robot."""
    words = re.split(r"[\s,;:]+", headers.get("X-Robots-Tag", "").lower())
    if "noai" in words or "noimageai" in words:
        raise Refused("noai", "its server forbids to train on it")


def _read_body(answer, max_bytes):
    """Read a body of at most ``max_bytes``, also after decompression."""
    if answer.headers.get("Content-Encoding", "").lower() not in ("", "identity", "gzip"):
        # We ask for gzip only; a chain of compressions could make a chunk a million times larger.
        raise Refused("damaged", "unknown compression")
    announced = answer.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced[:18]) > max_bytes:
        raise Refused("too many bytes", "{} announced".format(announced[:18]))
    # Not iter_content: its urllib3 reads the lines between chunks without a limit.
    pieces, size = [], 0
    for piece in iter(lambda: answer.raw.read(_CHUNK, decode_content=True), b""):
        size += len(piece)
        if size > max_bytes:
            raise Refused("too many bytes", "more than {:,}".format(max_bytes))
        pieces.append(piece)
    if not pieces and not announced:
        raise Unavailable("connection broken", "no body")  # closed before the headers ended
    return b"".join(pieces)


def _as_fetch_error(error, out_of_time):
    """Translate an exception of requests, urllib3 or the system."""
    if out_of_time or isinstance(error, requests.Timeout) or "timed out" in str(error):
        return Unavailable("time-out", type(error).__name__)
    if isinstance(error, (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError,
                          UnicodeError)):
        return Refused("bad address", sanitize(str(error), 100))
    if isinstance(error, urllib3.exceptions.DecodeError):
        return Refused("damaged", "it does not decompress")
    if "got more than" in str(error):  # http.client's limits on headers and on lines
        return Refused("too many bytes", sanitize(str(_root(error)), 100))
    return Unavailable("connection broken", sanitize(str(_root(error)), 100))


def _root(error):
    """The innermost cause of an exception: the system's own words."""
    for inner in (getattr(error, "reason", None), error.__cause__) + error.args:
        if isinstance(inner, BaseException):
            return _root(inner)
    return error


def _parse_json(answer, body):
    """An API's answer as a dict, or Unavailable."""
    try:
        data = json.loads(body.decode("utf-8"), parse_int=_short_int)
    except (ValueError, RecursionError) as error:
        raise Unavailable("malformed JSON", str(error)) from None
    if not isinstance(data, dict):
        raise Unavailable("malformed JSON", "not an object")
    if data.get("error"):
        report = data["error"] if isinstance(data["error"], dict) else {}
        code = report.get("code", "error")
        raise Unavailable("service error", sanitize(code),
                          **_overload(answer, code in ("maxlag", "ratelimited")))
    return data


def _short_int(digits):
    """Parse an integer of sane length: a million digits would take Python minutes."""
    if len(digits) > 18:
        raise ValueError("a number of {} digits".format(len(digits)))
    return int(digits)


def is_web_address(url: str, longest: int = MAX_URL) -> bool:
    """Whether a string is an http or https address of a host, of at most ``longest`` letters.

    An address with a user name or password is not: no server needs one from us.
    """
    if len(url) > longest or re.search(r"[\x00-\x20\x7f]", url):
        return False
    try:
        url.encode("utf-8")  # no halves of surrogate pairs, which JSON can carry
        parts = urlsplit(url)
        return (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
                and "@" not in parts.netloc)
    except ValueError:
        return False


def sanitize(value: typing.Any, limit: int = 300) -> str:
    """Untrusted text as one line without control characters, cut to ``limit`` letters."""
    if not isinstance(value, (str, int, float)):
        return ""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value)[:20 * limit])
    return " ".join(text.split())[:limit]
