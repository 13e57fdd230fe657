"""The two servers behind the gateway: which addresses are allowed, and the HTTP client that talks to both.

aiohttp, because it was measured: through the same proxy it takes a quarter of httpx2's time per request. Nothing of
its own is added to a request: no default headers, no cookies, no credentials of a netrc file, no redirects.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from trainer.errors import TrainerError

CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""
_AUTOMATIC = ("accept", "accept-encoding", "user-agent", "content-type")


class Upstream(NamedTuple):
    """A server that the gateway may ask."""

    url: str
    """Scheme, host, port and path prefix, without a slash at the end."""
    proxy: str | None
    """The proxy of the environment that leads there; None where there is none, and always on loopback."""

    def at(self, target: str) -> URL:
        """The address of a request target, passed on as it is written."""
        return URL(self.url + target, encoded=True)


def upstream(url: str, key: str, *, encrypted: bool) -> Upstream:
    """Checks an address of the config.

    Args:
        key: its key, for the message.
        encrypted: whether credentials go there: then plain http is for loopback only.

    Raises:
        TrainerError: it is not an http(s) address, holds credentials or a query, or is not encrypted.
    """
    if "@" in url or "?" in url or "#" in url:
        raise TrainerError(f"{key}: wanted scheme, host and path alone, without credentials, query or fragment")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise TrainerError(f"{key}: {url!r} is not an http(s) address")
    local = is_loopback(parts.hostname)
    if encrypted and parts.scheme == "http" and not local:
        raise TrainerError(f"{key}: {url!r} would send credentials unencrypted; use https")
    through = None
    if not local and not urllib.request.proxy_bypass(str(parts.hostname)):
        through = urllib.request.getproxies().get(parts.scheme)
    return Upstream(url.rstrip("/"), through)


def is_loopback(host: str | None) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address((host or "").partition("%")[0]).is_loopback
    except ValueError:
        return False


def open_client() -> aiohttp.ClientSession:
    """A client; to be made inside a running event loop.

    There is no limit of connections, and no time limit but that of connecting: how long to wait for the teacher is
    the decision of whoever asked, and the student's limit is set around the whole turn.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        skip_auto_headers=_AUTOMATIC,
        auto_decompress=False,
        max_line_size=65536,
        max_field_size=65536,
    )
