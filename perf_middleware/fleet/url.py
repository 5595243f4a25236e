"""What a Redis URL may be, said before anything connects."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

SCHEMES: Final = ("redis", "rediss", "unix")
OF_OTHERS: Final = frozenset({
    "decode_responses", "health_check_interval", "legacy_responses", "max_connections", "protocol",
    "retry_on_error", "retry_on_timeout", "socket_connect_timeout", "socket_timeout", "timeout",
})  # fmt: skip
"""Options for pools and clients, as other libraries are told by the same URL: not for us."""


class UrlError(ValueError):
    """What is wrong with a URL; its text repeats nothing of it, for it may hold a password."""

    holds_no_value = True  # the errors of settings may tell it though the setting is a secret


def check_url(url: str, *, cluster: bool = False) -> None:
    """Raises UrlError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlError("is no URL: redis://user:password@host:6379/0") from None
    if parts.scheme not in SCHEMES:
        raise UrlError("must begin with redis://, rediss:// (TLS) or unix://")
    if parts.scheme == "unix":
        if not parts.path:
            raise UrlError("names no socket: unix:///path/of/socket")
        if cluster:
            raise UrlError("a cluster is not reached over a socket in the file system")
        return
    if not parts.hostname:
        raise UrlError("names no host: redis://host:6379/0")
    if port == 0:
        raise UrlError("has no port that a server could have: redis://host:6379/0")
    database = parts.path.strip("/")
    if database and not database.isdigit():
        raise UrlError("has no number of a database as its path: redis://host:6379/0")
    if cluster and database not in {"", "0"}:
        raise UrlError("a cluster has no database but 0")


def for_connecting(url: str) -> str:
    """The URL without the options that mean nothing here."""
    query = urlsplit(url).query
    if not query:
        return url
    options = [pair for pair in parse_qsl(query) if pair[0] not in OF_OTHERS]
    address = url.partition("?")[0]  # whose form urlunsplit would change, of a socket
    return f"{address}?{urlencode(options)}" if options else address


def shown(url: str) -> str:
    """The URL for logs and errors: without user, password and options."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    database = parts.path.strip("/")
    return f"{parts.scheme}://{host}:{parts.port or 6379}" + (f"/{database}" if database else "")
