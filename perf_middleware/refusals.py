"""The 503 of a request that is shed, made before it is needed (RFC 9110 §15.6.4, RFC 9457)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.problem import NO_STORE, PROBLEM

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_AFTER_S_MAX: Final = 3_600


class Refusals:
    """One head for each second from `min_s` to `max_s`; `random` gives a number from 0 to below 1.

    `detail` says in one sentence why.
    Clients that were refused together shall not come again together: each is told another second.
    """

    def __init__(self, *, detail: str, min_s: int, max_s: int, random: Callable[[], float]) -> None:
        if not 0 <= min_s <= max_s <= RETRY_AFTER_S_MAX:
            raise ValueError(f"0 <= min_s <= max_s <= {RETRY_AFTER_S_MAX}: {min_s}, {max_s}")
        told = {"status": 503, "title": "Service Unavailable", "detail": detail}
        self.body: Final = json.dumps(told, separators=(",", ":")).encode()
        self._heads = tuple(
            (
                (b"content-type", PROBLEM),
                (b"content-length", str(len(self.body)).encode()),
                NO_STORE,
                (b"retry-after", str(seconds).encode()),
            )
            for seconds in range(min_s, max_s + 1)
        )
        self._random = random

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The fields of one refusal: a new list, a layer outside may write into it."""
        return list(self._heads[int(self._random() * len(self._heads))])

    def messages(self, method: str, *, prefix: str = "http") -> tuple[dict[str, Any], ...]:
        """Head and body; `prefix` is that of a websocket's denial where it is one."""
        return (
            {"type": f"{prefix}.response.start", "status": 503, "headers": self.headers()},
            {"type": f"{prefix}.response.body", "body": b"" if method == "HEAD" else self.body},
        )
