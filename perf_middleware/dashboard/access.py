"""Who may see the operator endpoints: whoever knows the token (RFC 6750 §2.1, Bearer)."""

from __future__ import annotations

import hashlib
import hmac


class TokenGate:
    """Admits requests whose Authorization field carries the token."""

    __slots__ = ("_digest",)

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("a token must not be empty")
        self._digest = _digest(token.encode())

    def admits(self, authorization: bytes | None) -> bool:
        """Whether `authorization` is `Bearer <token>`.

        The comparison takes the same time for any wrong token, of any length.
        """
        scheme, _, given = (authorization or b"").partition(b" ")
        matches = hmac.compare_digest(_digest(given.strip()), self._digest)
        return matches and scheme.lower() == b"bearer"


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
