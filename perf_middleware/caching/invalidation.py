"""What an unsafe request makes invalid: its target, what the answer points to (RFC 9111 §4.4)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

if TYPE_CHECKING:
    from perf_middleware.asgi import Scope
    from perf_middleware.caching.fields import Lines

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""All others, unknown ones too, may have changed something (RFC 9110 §9.2.1)."""

POINTERS_MAX: Final = 8  # lines of one field; one is the rule
URL_BYTES_MAX: Final = 8_192
ORIGINS_MAX: Final = 64  # remembered, each up to so many bytes: clients choose them
ORIGIN_BYTES_MAX: Final = 255
TEXT: Final = ("utf-8", "surrogateescape")  # header bytes of any kind come back as they were
DIVIDING: Final = frozenset(b"&=+;#%")  # decoded, these would divide a query otherwise
# Looked for as numbers: CPython takes bytes for a number first, and fails at the price of an error.
PERCENT: Final = ord("%")
PLUS: Final = ord("+")
_SPELLED: Final = re.compile(rb"%([0-9A-Fa-f]{2})?|\+")


def invalidates(method: str, status: int) -> bool:
    """Whether this answer makes stored responses of its target invalid."""
    return 200 <= status < 400 and method not in SAFE_METHODS


def target_of(scheme: str, host: bytes, path: bytes, query: bytes, *, root: bytes = b"") -> bytes:
    """The URL in the form in which stored responses are found: origin, decoded path and query."""
    return target_and_path_of(scheme, host, path, query, root=root)[0]


def target_and_path_of(
    scheme: str, host: bytes, path: bytes, query: bytes, *, root: bytes = b""
) -> tuple[bytes, bytes]:
    """The target of a URL, and what is its path and query (`path_of`).

    Two spellings of one URL (`%61`, `a`) are one target: the app's router sees the same path, its
    endpoint the same parameters.  So does it not see the `root` that the app is served below
    (ASGI's root_path).
    """
    if PERCENT in path:
        path = unquote_to_bytes(path)
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {b"/", b""}:
        path = path[len(root) :] or b"/"
    find_origin = _known_origin if len(host) <= ORIGIN_BYTES_MAX else _origin
    origin, has_path = find_origin(scheme, bytes(host))  # a bridge may send a buffer
    if query:
        path = b"".join((path, b"?", decoded_query(query)))
    target = origin + path
    if has_path or not path.startswith(b"/"):
        path = path_of(target)
    return target, path


def decoded_query(query: bytes) -> bytes:
    """A query in one spelling: nothing escaped but what would divide it otherwise.

    A plus is a space there, as in every form (WHATWG URL §5.1), a `%` that begins no escape itself.
    """
    if PERCENT in query or PLUS in query:
        return _SPELLED.sub(_decoded, query)
    return query


def _decoded(spelled: re.Match[bytes]) -> bytes:
    if spelled[0] == b"+":
        return b" "
    if spelled[1] is None:
        return b"%25"
    byte = int(spelled[1], 16)
    return b"%%%02X" % byte if byte in DIVIDING else bytes([byte])


def root_of(scope: Scope) -> bytes:
    """ASGI's root_path as it stands in a decoded path."""
    root: str = scope.get("root_path") or ""
    return root.rstrip("/").encode(*TEXT) if root else b""


def path_of(target: bytes) -> bytes:
    """Path and query of a target; nothing where it has no path, as `*` has none."""
    _, slash, path = target.partition(b"://")[2].partition(b"/")
    return slash + path


def origin_of(target: bytes) -> bytes:
    """Scheme and host of a target."""
    return target.removesuffix(path_of(target))


def split_url(url: str) -> tuple[str, bytes | None, bytes, bytes]:
    """Scheme, host, path and query of a URL that the app's code gives; no host: it is of any.

    Raises ValueError for what is neither `/path` nor `http(s)://host/path`.
    """
    any_host = url.startswith("/")
    parts = _split("http://any" + url if any_host else url)
    if parts is None:
        raise ValueError(
            f"{url!r} is neither a path that begins with / nor an http or https URL with a host"
        )
    scheme, host, path, query = parts
    return scheme, None if any_host else host, path, query


def target_of_url(url: str, *, root: bytes = b"") -> tuple[bytes, bool]:
    """The target of a URL, and whether it is one of any host: its path and query alone.

    Raises ValueError as `split_url` does.
    """
    scheme, host, path, query = split_url(url)
    target = target_of(scheme, host or b"", path, query, root=root)
    return (path_of(target), True) if host is None else (target, False)


def pointed_targets(target_url: str, lines: Lines, *, root: bytes = b"") -> list[bytes]:
    """The targets of Location and Content-Location, where they are of the same origin."""
    found = []
    own = _split(target_url)
    for name in (b"location", b"content-location"):
        for value in lines.get(name, ())[:POINTERS_MAX]:
            if len(value) > URL_BYTES_MAX or own is None:
                continue
            try:
                other = _split(urljoin(target_url, value.decode(*TEXT).strip()))
            except ValueError:
                continue
            if other is not None and other[:2] == own[:2]:
                scheme, host, path, query = other
                found.append(target_of(scheme, host, path, query, root=root))
    return found


def _split(url: str) -> tuple[str, bytes, bytes, bytes] | None:
    """Scheme, host with its port where that is not the scheme's, path and query of a URL."""
    try:
        parts = urlsplit(url)
        path, query = parts.path.encode(*TEXT), parts.query.encode(*TEXT)
        host = parts.netloc.rpartition("@")[2].encode(*TEXT)
    except (ValueError, UnicodeEncodeError):
        return None
    if parts.scheme not in {"http", "https"} or not host:
        return None
    return parts.scheme, _host_of(parts.scheme, host), path or b"/", query


def _origin(scheme: str, host: bytes) -> tuple[bytes, bool]:
    """And whether a path begins in it already: a client may send a Host with a slash."""
    origin = scheme.encode() + b"://" + _host_of(scheme, host)
    return origin, path_of(origin) != b""


# Shared by all apps of the process, as re's cache of patterns is: it holds nothing of theirs.
_known_origin: Final = lru_cache(maxsize=ORIGINS_MAX)(_origin)


def _host_of(scheme: str, host: bytes) -> bytes:
    """The host in lower case, without a port that says nothing (RFC 9110 §4.2.3)."""
    return host.lower().removesuffix(b":443" if scheme == "https" else b":80").removesuffix(b":")
