"""The header fields that a cache looks at, collected in one pass over a head.

Headers stay what ASGI gives: lists of (name, value) in bytes.  An app may send names in any case
and several lines of one name; both are kept apart here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.caching.syntax.lists import members

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers: TypeAlias = "list[tuple[bytes, bytes]]"
Lines: TypeAlias = "dict[bytes, list[bytes]]"
"""Field name in lower case -> the values of its lines, in order."""

RESPONSE_FIELDS: Final = frozenset(
    {
        b"age", b"cache-control", b"cache-groups", b"cache-group-invalidation", b"connection",
        b"content-encoding", b"content-length", b"content-location", b"content-range", b"date",
        b"etag", b"expires", b"last-modified", b"location", b"set-cookie", b"vary",
    }
)  # fmt: skip

HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip
"""What one connection says to the next: never stored (RFC 9111 §3.1, RFC 9110 §7.6.1)."""

RATE_LIMITS: Final = frozenset(
    {
        b"ratelimit", b"ratelimit-policy", b"x-ratelimit-limit", b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
    }
)  # fmt: skip
"""What one client has left at one moment: never stored, or others would be told of his quota."""

AUTHORIZATION: Final = frozenset({b"authorization"})
CREDENTIALS: Final = frozenset(
    {
        b"authorization", b"cookie", b"proxy-authorization",
        # Keys and tokens that RFC 9111 has no rule for.
        b"access-token", b"api-key", b"apikey", b"dpop", b"ocp-apim-subscription-key",
        b"private-token", b"token", b"x-amz-security-token", b"x-auth", b"x-goog-api-key", b"x-key",
        b"x-token", b"x-access-token", b"x-api-key", b"x-api-token", b"x-auth-token",
        b"x-authorization", b"x-csrf-token", b"x-session-id", b"x-session-token",
        # Who a proxy says the client is.
        b"cf-access-authenticated-user-email", b"client-cert", b"tailscale-user-login",
        b"x-auth-request-access-token", b"x-auth-request-email", b"x-auth-request-user",
        b"x-forwarded-preferred-username", b"x-pomerium-jwt-assertion", b"x-webauth-user",
        b"cf-access-jwt-assertion", b"remote-user", b"x-amzn-oidc-data", b"x-amzn-oidc-identity",
        b"x-authenticated-user", b"x-client-cert", b"x-forwarded-access-token",
        b"x-forwarded-client-cert", b"x-forwarded-email", b"x-forwarded-user",
        b"x-goog-authenticated-user-email", b"x-goog-iap-jwt-assertion", b"x-ms-client-principal",
        b"x-ms-token-aad-id-token", b"x-remote-user", b"x-ssl-client-cert", b"x-user-id",
    }
)  # fmt: skip
"""Request fields that say who asks: an answer to them is one client's own until told otherwise."""


def collect(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> Lines:
    """The lines of the fields in `names`; those that are not there have no entry."""
    found: Lines = {}
    for name, value in headers:
        low = name.lower()
        if type(low) is not bytes:
            low = hashable(low)
        if low in names:
            line = value if type(value) is bytes else hashable(value)
            lines = found.get(low)
            if lines is None:
                found[low] = [line]
            else:
                lines.append(line)
    return found


def hashable(part: Any) -> Any:
    """A buffer as bytes: servers send both, but it cannot be looked up, nor be remembered."""
    return bytes(part) if isinstance(part, bytearray | memoryview) else part


def storable_headers(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    connection: Iterable[bytes],
    without: frozenset[bytes],
) -> Headers:
    """The fields that may be stored, in order; names in lower case.

    Left out: hop-by-hop fields, those that a Connection line names, those in `without`.
    Source: RFC 9111 §3.1.
    """
    dropped = HOP_BY_HOP | without | {name.lower() for name in members(connection)}
    kept = []
    for name, value in headers:
        low = bytes(name).lower()
        if low not in dropped:
            kept.append((low, bytes(value)))
    return kept
