"""What a Redis URL may be, said before anything connects."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

SCHEMES: Final = ("redis", "rediss", "unix")


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


def shown(url: str) -> str:
    """The URL for logs and errors: without user, password and options."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    database = parts.path.strip("/")
    return f"{parts.scheme}://{host}:{parts.port or 6379}" + (f"/{database}" if database else "")
