"""May this response be stored, and for whom?  (RFC 9111 §3, §3.5, §5.2.2)

Answers with a reason for every "no": Cache-Status shows it.  Ours is stricter than the RFC in one
place: credentials.  An answer to a request that carries any is not shared, whatever its
Cache-Control says, unless the response's Vary names each of them or a rule vouches for the key;
the RFC's own leave for Authorization (§3.5) holds only where `authorization_by_rfc` is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.caching.fields import AUTHORIZATION
from perf_middleware.caching.freshness import HEURISTIC_STATUSES

if TYPE_CHECKING:
    from perf_middleware.caching.syntax.directives import ResponseDirectives

NEVER_STORED: Final = frozenset({428, 429, 431, 511})
"""About the client and not the resource: MUST NOT be stored (RFC 6585 §3 to §6)."""

STATUSES_UNDERSTOOD: Final = HEURISTIC_STATUSES | frozenset(
    {302, 303, 307, 400, 401, 402, 403, 406, 407, 408, 409, 411, 412, 413, 415, 416, 417, 421, 422,
     426, 500, 502, 503, 504, 505}
)  # fmt: skip
"""Statuses whose caching requirements this cache knows, for must-understand (§5.2.2.3)."""

INDISPENSABLE: Final = frozenset(
    {b"cache-control", b"content-encoding", b"content-range", b"content-type", b"expires",
     b"location", b"vary"}
)  # fmt: skip
"""Fields without which a response says something else: it is stored with them or not at all."""


def refusal(
    status: int, directives: ResponseDirectives, *, request_no_store: bool = False
) -> str | None:
    """Why a response with these must not be stored by a shared cache at all; None where it may.

    Source: RFC 9111 §3.
    """
    if status < 200 or status == 304:
        return "not-final"
    if status == 206:
        return "partial"  # a cache need not combine parts (§3.3)
    if status in {412, 416}:
        return "conditional"  # the answer to one request's conditions or ranges
    if status in NEVER_STORED:
        return "status"
    if directives.must_understand:
        if status not in STATUSES_UNDERSTOOD:
            return "must-understand"
        # §5.2.2.3: no-store is there for caches that do not know the directive.
    elif directives.no_store:
        return "no-store"
    if directives.private or not INDISPENSABLE.isdisjoint(directives.private_fields):
        return "private"
    if not INDISPENSABLE.isdisjoint(directives.no_cache_fields):
        return "no-cache"
    if request_no_store:
        return "request-no-store"
    return None


def uncovered_credentials(
    credentials: frozenset[bytes],
    directives: ResponseDirectives,
    *,
    vary: frozenset[bytes],
    authorization_by_rfc: bool,
) -> frozenset[bytes]:
    """The credential fields of the request that nothing makes safe to share.

    Safe is what Vary makes part of the key.  For Authorization the app must say so too, by public,
    s-maxage or must-revalidate (§3.5); where the RFC's rule is wanted that alone is enough.
    """
    left = credentials - vary
    if b"authorization" not in credentials:
        return left
    if not permits_authorization(directives):
        return left | AUTHORIZATION
    return left - AUTHORIZATION if authorization_by_rfc else left


def permits_authorization(directives: ResponseDirectives) -> bool:
    """Whether the app permits to share an answer to a request with Authorization (§3.5)."""
    return bool(directives.public or directives.s_maxage is not None or directives.must_revalidate)
