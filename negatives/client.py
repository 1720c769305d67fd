"""Where pictures on the web are found and how they are fetched: two search services, one client.

Services: Wikimedia Commons (API of MediaWiki, https://www.mediawiki.org/wiki/API:Search) and
Openverse (https://api.openverse.org/v1/), both without a key, and a file of addresses.

:class:`PoliteClient` asks each host no faster than agreed, waits when it is told to wait, tries
again what may pass and trusts nothing a server says about itself.
"""

import collections
import contextlib
import email.utils
import html
import http.client
import io
import json
import random
import re
import socket
import threading
import time
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from utils import UserError

MAX_REDIRECTS = 5
MAX_URL = 2000  # characters; longer ones are attacks or mistakes
MAX_JSON_BYTES = 4 * 1000 * 1000  # far more than a page of 50 results takes
_ENVELOPE = 1000 * 1000  # bytes that an answer's headers and chunk marks may add to its body
_CHUNK = 16 * 1024
_PASSING = frozenset([408, 425, 429])  # and every 5xx: worth trying again
# A quota used up, a missing --contact, a proxy's password, a thumbnail that Openverse could not
# get from where the picture lies, be it for a time-out: later runs ask again.
_DENIED = frozenset([401, 403, 407, 424])

Candidate = collections.namedtuple("Candidate", "url page creator licence")
Candidate.__doc__ = """A search result: picture address, source page, creator and licence."""

ResultPage = collections.namedtuple("ResultPage", "candidates next")
ResultPage.__doc__ = """Candidates in their order of rank, and how to ask for more (None: no more).
"""


class FetchError(Exception):
    """A fetch that brought nothing.

    Parameters
    ----------
    cause : str
        A few words to count it under.
    detail : str
    """

    def __init__(self, cause, detail=""):
        super().__init__(": ".join(filter(None, [cause, detail])))
        self.cause = cause
        self.detail = detail


class Refused(FetchError):
    """For good: asking again would bring the same."""


class Denied(FetchError):
    """To this client and for now: worth another try in a later run, but not in this one."""


class Unavailable(FetchError):
    """For a passing reason: worth another try, now or in a later run.

    ``host`` is the host that wants less traffic as a whole, or None; ``retry_after`` is the number
    of seconds that it asks for, or None.
    """

    def __init__(self, cause, detail="", host=None, retry_after=None):
        super().__init__(cause, detail)
        self.host = host
        self.retry_after = retry_after


class Stopped(Exception):
    """The client was told to stop while a request waited for its turn."""


class _Pace:
    """When each host may be asked next; shared by all threads."""

    def __init__(self, rate):
        self._interval = 1.0 / rate
        self._free_at = collections.defaultdict(float)
        self._closed_until = collections.defaultdict(float)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def take_turn(self, host):
        """Wait until it is this thread's turn to ask ``host``."""
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

    def hold(self, host, seconds):
        """Let nobody ask ``host`` for some seconds."""
        with self._lock:
            self._free_at[host] = max(self._free_at[host], time.monotonic() + seconds)

    def close(self, host, seconds):
        """Fail whoever asks ``host`` within so many seconds, rather than let them wait."""
        with self._lock:
            self._closed_until[host] = max(
                self._closed_until[host], time.monotonic() + seconds)

    def sleep(self, seconds):
        if self._stopped.wait(seconds):
            raise Stopped

    def stop(self):
        self._stopped.set()


class _Alarm:
    """Cuts a connection when a request has taken its time or brought too much, wherever it is.

    The time-outs of sockets begin anew with each byte, so that a server which trickles would hold
    a thread for days; and urllib3 reads the lines between and after chunks without a limit.
    """

    def __init__(self, seconds, max_bytes, active):
        self.rang = self.flooded = False
        self._bytes_left = max_bytes
        self._active = active  # the alarms of all requests under way
        self._socket = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self.ring)
        self._timer.daemon = True

    def __enter__(self):
        self._active.add(self)
        self._timer.start()
        _running.alarm = self
        return self

    def __exit__(self, *_):
        _running.alarm = None
        self._active.discard(self)
        self._timer.cancel()

    def watch(self, connected):
        """Take charge of the socket that the request goes through."""
        with self._lock:
            self._socket = connected
        if self.rang:
            self._cut()

    def count(self, read):
        """Take note of bytes that came over the connection."""
        self._bytes_left -= read
        if self._bytes_left < 0:
            self.flooded = True
            raise OSError("too many bytes")

    def ring(self):
        """End the request now."""
        self.rang = True
        self._cut()

    def _cut(self):
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The plain socket's method: TLS's own would pull the rug from its reader.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_running = threading.local()  # .alarm: that of the request which this thread is at


class _Counted(io.RawIOBase):
    """A socket's reading side that tells the thread's alarm of every byte."""

    def __init__(self, raw):
        self._raw = raw

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self._raw.readinto(buffer)
        _running.alarm.count(count or 0)
        return count

    def close(self):
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Counted(self.fp.detach()))


class _Watched:
    """Mixed into urllib3's connections: tells the thread's alarm which socket to cut."""

    response_class = _Answer

    def getresponse(self, *args, **kwargs):
        _running.alarm.watch(self.sock)
        return super().getresponse(*args, **kwargs)


class _HTTPConnection(_Watched, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_Watched, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' transport with connections that an alarm can cut."""

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, *args, **kwargs):
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


class _Session(requests.Session):
    """A session that leaves redirects to its caller.

    requests reads the body of a redirect whole before it follows, however long that is.
    """

    def get_redirect_target(self, resp):
        return None


class PoliteClient:
    """Fetches pictures and JSON over HTTP for several threads.

    Each request follows at most five redirects, to http and https only, and is tried again, with
    exponential back-off and jitter, after a time-out, a broken connection, HTTP 408, 425, 429 or
    5xx. ``Retry-After`` is obeyed for the whole host; one beyond ``longest_wait`` closes the host
    for that long instead. urllib3's own ``Retry`` could not do this: it stops at the headers,
    knows nothing of other threads, and sleeps for as long as the server says.

    Parameters
    ----------
    contact : str
        E-mail or web address for the User-Agent, as Wikimedia's policy demands.
    rate : float
        Requests per second to one host.
    workers : int
        Threads that will use it, for the size of the connection pool.
    connect_timeout, read_timeout : float
        Seconds until a connection, and between two pieces of an answer.
    time_limit : float
        Seconds for one whole answer.
    retries : int
        Further tries after the first.
    backoff, longest_wait : float
        Seconds before the first further try, doubled each time, and their upper end.

    Raises
    ------
    UserError
        A proxy named in the environment that cannot be used: every address would seem bad.
    """

    def __init__(self, contact, rate, workers, connect_timeout, read_timeout, time_limit,
                 retries, backoff, longest_wait):
        self._timeout = (connect_timeout, read_timeout)
        self._time_limit = time_limit
        self._retries = retries
        self._backoff = backoff
        self._longest_wait = longest_wait
        self._pace = _Pace(rate)
        self._alarms = set()
        self._session = _Session()
        self._session.headers["User-Agent"] = "gen_neg_samples/1.0 ({}) {}".format(
            defused(contact).encode("ascii", "replace").decode() or "no contact given",
            requests.utils.default_user_agent())
        self._session.headers["Accept-Encoding"] = "gzip"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(pool_maxsize=workers + 1))
        _check_proxies(self._session.adapters["http://"])

    def get_picture(self, url, max_bytes):
        """Fetch a picture file, unless its server forbids to train models on it.

        Parameters
        ----------
        url : str
        max_bytes : int
            No more is read, whatever the server announces.

        Returns
        -------
        bytes

        Raises
        ------
        Refused, Denied, Unavailable, Stopped
        """
        return self._get(url, max_bytes, lambda answer: _check_wishes(answer.headers))

    def get_json(self, url, params):
        """Ask an API: its answer as a dict.

        Raises
        ------
        Refused, Denied, Unavailable, Stopped
            Unavailable also for an answer that is not a JSON object, or reports an error.
        """
        address = requests.Request("GET", url, params=params).prepare().url
        return self._get(address, MAX_JSON_BYTES, parse=_parse_json)

    def stop(self):
        """Make the requests of all threads give up, those under way and those in wait."""
        self._pace.stop()
        for alarm in list(self._alarms):
            alarm.ring()

    def _get(self, url, max_bytes, check=None, parse=None):
        attempt = 0
        while True:
            try:
                answer, body = self._try_once(url, max_bytes, check)
                return parse(answer, body) if parse else body
            except Unavailable as error:
                wait = self._heed(error, attempt)
                if attempt == self._retries or wait > self._longest_wait:
                    raise
            self._pace.sleep(wait)
            attempt += 1

    def _heed(self, error, attempt):
        """Hold the host back if it asks for that: the seconds to wait before another try."""
        wait = error.retry_after or 0
        if attempt < self._retries:
            backoff = min(self._longest_wait, self._backoff * 2 ** attempt)
            wait = max(wait, backoff * random.uniform(0.5, 1))
        if wait > self._longest_wait:
            self._pace.close(error.host, wait)
        elif error.host:
            self._pace.hold(error.host, wait)
        return wait

    def _try_once(self, url, max_bytes, check):
        """Follow the redirects from ``url``: the last answer and its body."""
        for _ in range(MAX_REDIRECTS + 1):
            if not is_web_address(url):
                raise Refused("not an http(s) address", defused(url))
            self._pace.take_turn(urlsplit(url).hostname)
            with _Alarm(self._time_limit, max_bytes + _ENVELOPE, self._alarms) as alarm:
                try:
                    answer, body, url = self._exchange(url, max_bytes, check)
                    if alarm.rang:  # a cut in headers, or before an unknown end, looks like the end
                        raise requests.Timeout
                except (requests.RequestException, urllib3.exceptions.HTTPError, OSError,
                        ValueError) as error:
                    if alarm.flooded:
                        raise Refused(
                            "too many bytes", "more than {:,}".format(max_bytes)) from None
                    raise _as_fetch_error(error, alarm.rang) from None
            if url is None:
                return answer, body
        raise Refused("too many redirects", "more than {}".format(MAX_REDIRECTS))

    def _exchange(self, url, max_bytes, check):
        """One request: its answer, and either the body or the address it redirects to."""
        answer = self._session.get(url, stream=True, timeout=self._timeout, allow_redirects=False)
        with contextlib.closing(answer):
            if answer.is_redirect:
                # http.client takes header bytes for Latin-1; addresses are UTF-8.
                target = answer.headers["location"].encode("latin-1").decode("utf-8", "replace")
                return answer, None, urljoin(url, target)
            _check_status(answer)
            if check:
                check(answer)
            return answer, _read_body(answer, max_bytes), None


def _check_proxies(adapter):
    """Make sure that the proxies which the environment names, if any, are ones to be used."""
    for scheme, proxy in requests.utils.getproxies().items():
        if scheme in ("http", "https", "all"):
            try:
                adapter.get_connection("http://localhost", {"http": proxy})
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise UserError("{}_proxy {}: {}; mend or unset that environment variable".format(
                    scheme, proxy, error)) from None


def _check_status(answer):
    """Raise the fetch error that an HTTP status stands for, if any."""
    status = answer.status_code
    if status in _PASSING or status >= 500:
        raise Unavailable("HTTP {}".format(status), **_wish(answer, status in (429, 503)))
    if status in _DENIED:
        raise Denied("HTTP {}".format(status))
    if status != 200:
        raise Refused("HTTP {}".format(status))


def _wish(answer, overload):
    """Which host wants less traffic, and for how long, as arguments of :class:`Unavailable`."""
    wait = _retry_after(answer)
    if overload or wait is not None:
        return {"host": urlsplit(answer.url).hostname, "retry_after": wait}
    return {}


def _retry_after(answer):
    """Seconds that the ``Retry-After`` header asks for (a number or a date), or None."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.match(r"^\d{1,9}$", value):
        return float(value)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _check_wishes(headers):
    """Refuse what is sent with ``X-Robots-Tag: noai`` or ``noimageai``, whomever it addresses."""
    wishes = re.split(r"[\s,;:]+", headers.get("X-Robots-Tag", "").lower())
    if "noai" in wishes or "noimageai" in wishes:
        raise Refused("noai", "its server forbids to train on it")


def _read_body(answer, max_bytes):
    """Read a body of at most ``max_bytes``, also after decompression."""
    if answer.headers.get("Content-Encoding", "").lower() not in ("", "identity", "gzip"):
        # We ask for no other; a chain of them would let each chunk grow a million times.
        raise Refused("damaged", "an unasked-for compression")
    announced = answer.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced[:18]) > max_bytes:
        raise Refused("too many bytes", "{} announced".format(announced[:18]))
    pieces, size = [], 0
    for piece in answer.iter_content(_CHUNK):
        size += len(piece)
        if size > max_bytes:
            raise Refused("too many bytes", "more than {:,}".format(max_bytes))
        pieces.append(piece)
    if not pieces and not announced:
        raise Unavailable("connection broken", "no body")  # closed before the headers' end
    return b"".join(pieces)


def _as_fetch_error(error, out_of_time):
    """Sort the exceptions of requests, urllib3 and the system by what they mean here."""
    if out_of_time or isinstance(error, requests.Timeout) or "timed out" in str(error):
        return Unavailable("time-out", type(error).__name__)
    if isinstance(error, (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError,
                          UnicodeError)):
        return Refused("bad address", defused(str(error), 100))
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return Refused("damaged", "its compression does not decode")
    return Unavailable("connection broken", defused(str(_root(error)), 100))


def _root(error):
    """What an exception comes from: the system's words, without the libraries' around them."""
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
        code = _dict(data["error"]).get("code", "error")
        raise Unavailable("service error", defused(code),
                          **_wish(answer, code in ("maxlag", "ratelimited")))
    return data


def _short_int(digits):
    """An integer of sane length: a million digits would take Python minutes."""
    if len(digits) > 18:
        raise ValueError("a number of {} digits".format(len(digits)))
    return int(digits)


def is_web_address(url):
    """Whether a string is an http or https address with a host, of sane length."""
    if len(url) > MAX_URL or re.search(r"[\x00-\x20\x7f]", url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def defused(value, limit=300):
    """A stranger's text made harmless: no control characters, one line, cut to length."""
    if not isinstance(value, (str, int, float)):
        return ""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value)[:20 * limit])
    return " ".join(text.split())[:limit]


def text_of(markup):
    """The text of a piece of HTML, such as Wikimedia's name of an artist; "" if it is no string."""
    if not isinstance(markup, str):
        return ""
    # The standard library's parser takes seconds, or raises, on what is no HTML at all.
    text = re.sub(r"<(style|script)\b.*?</\1>|<[^<>]*>", " ", markup[:6000], flags=re.S | re.I)
    return defused(html.unescape(text))


class Wikimedia:
    """Wikimedia Commons.

    Wikimedia's robot policy (https://wikitech.wikimedia.org/wiki/Robot_policy) allows media two
    connections at a time and 25 Mbit/s; thumbnails come in standard widths, of which 500 is the
    one nearest 512 (https://www.mediawiki.org/wiki/Common_thumbnail_sizes).
    """

    name = "wikimedia"
    base, path = "https://commons.wikimedia.org", "/w/api.php"
    rate, workers, is_remembered = 2.0, 2, True
    thumbnail_width = 500

    def __init__(self, endpoint=None):
        self.endpoint = _endpoint(endpoint or self.base, self.path)

    def search(self, client, query, continuation):
        """One page of results.

        Parameters
        ----------
        client : PoliteClient
        query : str
        continuation : dict
            The ``next`` of the page before; empty for the first page.

        Returns
        -------
        ResultPage

        Raises
        ------
        FetchError
        """
        params = {
            "action": "query", "format": "json", "maxlag": "5",
            "generator": "search", "gsrnamespace": "6", "gsrlimit": "50",
            "gsrsearch": "filetype:bitmap " + query,
            "prop": "imageinfo", "iiprop": "url|extmetadata",
            "iiextmetadatafilter": "Artist|LicenseShortName",
            "iiurlwidth": str(self.thumbnail_width),
        }
        params.update(continuation)
        data = client.get_json(self.endpoint, params)
        found = [_dict(page) for page in _dict(_dict(data.get("query")).get("pages")).values()]
        # The pages come keyed by number, in no order; "index" is their rank.
        found.sort(key=lambda page: page["index"] if isinstance(page.get("index"), int) else 0)
        candidates = [self._candidate(page) for page in found]
        following = _continuation(data.get("continue"))
        if following and "iistart" in following:
            # Of a single result MediaWiki goes on with the file's older versions instead.
            following = None
        return ResultPage(list(filter(None, candidates)), following)

    def _candidate(self, page):
        info = page.get("imageinfo")
        info = _dict(info[0]) if isinstance(info, list) and info else {}
        about = _dict(info.get("extmetadata"))
        return _new_candidate(
            self.endpoint, [info.get("thumburl"), info.get("url")], info.get("descriptionurl"),
            text_of(_dict(about.get("Artist")).get("value")),
            text_of(_dict(about.get("LicenseShortName")).get("value")))


class Openverse:
    """Openverse, without an account: 20 results a page, 20 pages, about one request a second.

    Its daily limit of about 200 requests ends a run of many queries early, with HTTP 401 or 429;
    the same command goes on the next day.
    """

    name = "openverse"
    base, path = "https://api.openverse.org", "/v1/images/"
    rate, workers, is_remembered = 1.0, 2, True
    page_size, deepest_page = 20, 20

    def __init__(self, endpoint=None):
        self.endpoint = _endpoint(endpoint or self.base, self.path)

    def search(self, client, query, continuation):
        """One page of results; see :meth:`Wikimedia.search`."""
        number = int(continuation.get("page", 1))
        data = client.get_json(self.endpoint, {
            "q": query, "page": str(number), "page_size": str(self.page_size)})
        results = data.get("results")
        results = results if isinstance(results, list) else []
        pages = data.get("page_count")
        pages = min(self.deepest_page, pages if isinstance(pages, int) else 0)
        candidates = [self._candidate(_dict(result)) for result in results]
        following = {"page": str(number + 1)} if results and number < pages else None
        return ResultPage(list(filter(None, candidates)), following)

    def _candidate(self, result):
        licence = defused(result.get("license")).upper()
        if licence and licence not in ("CC0", "PDM"):
            licence = "CC " + licence
        return _new_candidate(
            self.endpoint, [result.get("thumbnail"), result.get("url")],
            result.get("foreign_landing_url"), result.get("creator"),
            "{} {}".format(licence, defused(result.get("license_version"))))


class UrlFile:
    """A text file with one picture address a line; blank lines and ``#`` comments are skipped.

    Addresses that are not http(s) stay in, to be refused and reported like those that fail.

    Raises
    ------
    UserError
        No such file, not UTF-8 text, or no address in it.
    """

    name = "urls"
    rate, workers = 2.0, 8
    is_remembered = False  # the file may have grown since

    def __init__(self, path):
        try:
            with open(path, encoding="utf-8-sig") as stream:
                lines = [line.strip() for line in stream]
        except UnicodeDecodeError:
            raise UserError("{}: not UTF-8 text; give a text file with one address a "
                            "line".format(path)) from None
        self._urls = [line for line in lines if line and not line.startswith("#")]
        if not self._urls:
            raise UserError("{}: no address in it; write one a line".format(path))

    def search(self, client, query, continuation):
        """All addresses as one page, in the file's order."""
        return ResultPage([Candidate(url, url, "", "") for url in self._urls], None)


def _endpoint(address, path):
    """The full address of an API whose base, or whose full address, is given."""
    if not is_web_address(address):
        raise UserError("--endpoint {}: not an http(s) address; give one such as {}".format(
            address, Wikimedia.base))
    if urlsplit(address).path.rstrip("/").endswith(path.rstrip("/")):
        return address
    return address.rstrip("/") + path


def _new_candidate(endpoint, addresses, page, creator, licence):
    """A candidate with the first usable address, or None if there is none."""
    for address in addresses:
        if isinstance(address, str) and len(address) <= MAX_URL:
            with contextlib.suppress(ValueError):
                url = urljoin(endpoint, address.strip())
                if is_web_address(url):
                    return Candidate(url, defused(page, MAX_URL), defused(creator),
                                     defused(licence))
    return None


def _continuation(value):
    """The keys to repeat a request with, or None if there are no more results."""
    keys = {key: str(item) for key, item in _dict(value).items()
            if isinstance(item, (str, int)) and len(str(item)) <= 500}
    return keys if 0 < len(keys) <= 20 else None


def _dict(value):
    """A part of an answer that should be a JSON object; empty if it is something else."""
    return value if isinstance(value, dict) else {}
