"""What a request's head says of its body, and how long the head is itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import Scope

CONTENT_LENGTH: Final = b"content-length"
TRANSFER_ENCODING: Final = b"transfer-encoding"
UNTOLD: Final = -1


def body_bytes_of(scope: Scope) -> int:
    """The bytes that the body has, as its head tells, or UNTOLD; 0 where there is none.

    Source: RFC 9112 §6.3: on HTTP/1 neither Content-Length nor Transfer-Encoding is no body, and
    with both the length says nothing.
    """
    told: int | None = None
    for name, value in scope["headers"]:
        if name == TRANSFER_ENCODING:
            return UNTOLD
        if name == CONTENT_LENGTH:
            if not value.isdigit() or len(value) > 18:  # a list, or no length
                return UNTOLD
            told = max(int(value), told or 0)
    if told is not None:
        return told
    return 0 if scope.get("http_version", "1.1").startswith("1") else UNTOLD


def header_bytes(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """The bytes of all names and values."""
    return sum([len(name) + len(value) for name, value in headers])


def url_bytes(scope: Scope) -> int:
    """The bytes of path and query, as sent where the server tells that."""
    path: bytes | None = scope.get("raw_path")
    query: bytes = scope.get("query_string", b"")
    sent = len(scope["path"].encode("utf-8", "surrogateescape")) if path is None else len(path)
    return sent + (1 + len(query) if query else 0)
