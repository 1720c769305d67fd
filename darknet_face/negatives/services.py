"""Where candidates come from: two search services without a key, and a file of addresses.

Wikimedia Commons speaks the API of MediaWiki (https://www.mediawiki.org/wiki/API:Search),
Openverse its own (https://api.openverse.org/v1/).
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import typing
from urllib.parse import urljoin, urlsplit

from markupsafe import Markup

from darknet_face.console import UserError
from darknet_face.negatives.client import MAX_URL, PoliteClient, is_web_address, sanitize
from darknet_face.negatives.guard import networks_of
from darknet_face.runtime.safe_files import open_regular


class Candidate(typing.NamedTuple):
    """A search result."""

    url: str  # of the image
    page: str
    creator: str
    licence: str


class ResultPage(typing.NamedTuple):
    """One page of search results."""

    candidates: list[Candidate]  # by rank
    next: dict[str, str] | None  # the parameters of the next page; None: there is none


MAX_BYTES = 1 << 28  # of a file of addresses
LONGEST_QUERY = 200  # characters; Wikimedia refuses those above 300


class Wikimedia:
    """Wikimedia Commons, or another MediaWiki.

    For media, Wikimedia's robot policy (https://wikitech.wikimedia.org/wiki/Robot_policy) allows
    two connections at a time and 25 Mbit/s. Thumbnails come in standard widths
    (https://www.mediawiki.org/wiki/Common_thumbnail_sizes); 500 is the nearest to 512.

    Parameters
    ----------
    endpoint
        Another base address.

    Raises
    ------
    UserError
        The endpoint is not an http(s) address.
    """

    name = "wikimedia"
    base, path = "https://commons.wikimedia.org", "/w/api.php"
    rate, workers, is_remembered = 2.0, 2, True
    page_size, thumbnail_width = 50, 500

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = _endpoint(endpoint or self.base, self.path)

    def search(self, client: PoliteClient, query: str,
               continuation: dict[str, str]) -> ResultPage:
        """Fetch one page of results.

        Parameters
        ----------
        client, query
        continuation
            The ``next`` of the page before; empty for the first page.

        Raises
        ------
        FetchError
        """
        params = {
            "action": "query", "format": "json", "maxlag": "5",
            "generator": "search", "gsrnamespace": "6", "gsrlimit": str(self.page_size),
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
        candidates = [self._candidate(page) for page in found[:self.page_size]]
        following = _continuation(data.get("continue"))
        if following and "iistart" in following:
            # After a single result MediaWiki offers the older versions of that file instead.
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
    """Openverse, without an account: 20 results per page, 20 pages, about one request per second.

    Its daily limit of about 200 requests ends a run of many queries early, with HTTP 401 or 429.
    The same command continues on the next day. For the endpoint see :class:`Wikimedia`.
    """

    name = "openverse"
    base, path = "https://api.openverse.org", "/v1/images/"
    rate, workers, is_remembered = 1.0, 2, True
    page_size, deepest_page = 20, 20

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = _endpoint(endpoint or self.base, self.path)

    def search(self, client: PoliteClient, query: str,
               continuation: dict[str, str]) -> ResultPage:
        """Fetch one page of results; see :meth:`Wikimedia.search`."""
        number = int(continuation.get("page", 1))
        data = client.get_json(self.endpoint, {
            "q": query, "page": str(number), "page_size": str(self.page_size)})
        results = data.get("results")
        results = results if isinstance(results, list) else []
        pages = data.get("page_count")
        pages = min(self.deepest_page, pages if isinstance(pages, int) else 0)
        candidates = [self._candidate(_dict(result)) for result in results[:self.page_size]]
        following = {"page": str(number + 1)} if results and number < pages else None
        return ResultPage(list(filter(None, candidates)), following)

    def _candidate(self, result):
        licence = sanitize(result.get("license")).upper()
        if licence and licence not in ("CC0", "PDM"):
            licence = "CC " + licence
        return _new_candidate(
            self.endpoint, [result.get("thumbnail"), result.get("url")],
            result.get("foreign_landing_url"), result.get("creator"),
            "{} {}".format(licence, sanitize(result.get("license_version"))))


class UrlFile:
    """A text file with one image address per line; skips blank lines and ``#`` comments.

    Addresses that are not http(s) are kept: the client refuses them, and they are reported.

    Parameters
    ----------
    path
    endpoint
        An address on the network that the images may be on, if that is a private one.

    Raises
    ------
    UserError
        The file is not UTF-8 text or holds no address, or the endpoint is not an http(s) address.
    """

    name = "urls"
    rate, workers = 2.0, 8
    is_remembered = False  # the file may have grown since

    def __init__(self, path: str, endpoint: str | None = None) -> None:
        self.endpoint = endpoint and _endpoint(endpoint, "/")
        try:
            with open_regular(path, "r", encoding="utf-8-sig") as stream:
                if os.fstat(stream.fileno()).st_size > MAX_BYTES:
                    raise UserError("{}: larger than {:,} bytes; give a text file with one "
                                    "address per line".format(path, MAX_BYTES))
                lines = [line.strip() for line in stream]
        except UnicodeDecodeError:
            raise UserError("{}: not UTF-8 text; give a text file with one address "
                            "per line".format(path)) from None
        self._urls = [line for line in lines if line and not line.startswith("#")]
        if not self._urls:
            raise UserError("{}: no address in it; write one per line".format(path))

    def search(self, client: PoliteClient, query: str,
               continuation: dict[str, str]) -> ResultPage:
        """Return all addresses as one page, in the order of the file."""
        return ResultPage([Candidate(url, url, "", "") for url in self._urls], None)


Service = typing.Union[Wikimedia, Openverse, UrlFile]


def web_source(name: str, urls: str | None, endpoint: str | None,
               queries: list[str]) -> tuple[Service, list[str]]:
    """The source to collect from, and the queries to ask it.

    Parameters
    ----------
    name
        "wikimedia", "openverse" or "urls".
    urls
        The file of addresses.
    endpoint, queries

    Raises
    ------
    UserError
        A missing or useless file, endpoint or query.
    """
    if name == "urls":
        if not urls:
            raise UserError("--source urls: --urls FILE is missing; give a file with one address "
                            "per line")
        return UrlFile(urls, endpoint), [os.path.splitext(os.path.basename(urls))[0]]
    queries = [sanitize(query, LONGEST_QUERY + 1) for query in queries]
    if not all(queries):
        raise UserError("--queries: one of them is empty; name things to search for")
    if max(map(len, queries)) > LONGEST_QUERY:
        raise UserError("--queries: one of them is longer than {} characters; shorten it".format(
            LONGEST_QUERY))
    service = Wikimedia(endpoint) if name == "wikimedia" else Openverse(endpoint)
    return service, list(collections.OrderedDict.fromkeys(queries))


def allowed_networks(endpoint: str | None) -> set[str]:
    """The networks that a service's images may be on: "public", and that of its address.

    So a mirror on a private network may name images there, but a public service may not. See
    :func:`darknet_face.negatives.guard.network_of`.
    """
    return {"public"} | (networks_of(urlsplit(endpoint).hostname or "") if endpoint else set())


def text_of(markup: typing.Any) -> str:
    """The text of a piece of HTML, such as an artist's name; "" if it is no string."""
    if not isinstance(markup, str):
        return ""
    # striptags keeps what is between <style> and </style>, and joins what stood in two lines.
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", markup[:6000], flags=re.S | re.I)
    return sanitize(Markup(text.replace("<", " <")).striptags())


def _endpoint(address, path):
    """The full address of an API, from that or from its base address."""
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
                    return Candidate(url, sanitize(page, MAX_URL), sanitize(creator),
                                     sanitize(licence))
    return None


def _continuation(value):
    """The parameters of the next page, or None if there are no more results."""
    keys = {key: str(item) for key, item in _dict(value).items()
            if isinstance(item, (str, int)) and len(str(item)) <= 500}
    return keys if 0 < len(keys) <= 20 else None


def _dict(value):
    """A part of an answer that should be a JSON object; {} if it is not."""
    return value if isinstance(value, dict) else {}
