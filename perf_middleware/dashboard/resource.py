"""The operators' token: the one from the settings, or a random one told in the log at start."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any

from perf_middleware.dashboard.access import TokenGate

if TYPE_CHECKING:
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.dashboard")


def random_token(service: str) -> str:
    """A token that nobody else knows and that all worker processes of one parent agree on.

    It is made from the key that multiprocessing draws at random in the parent and hands to its
    children; workers that were forked otherwise (gunicorn) each have their own.
    """
    digest = hmac.digest(
        current_process().authkey, f"operators of {service}".encode(), hashlib.sha256
    )
    return base64.urlsafe_b64encode(digest[:24]).decode()


class OperatorDoor:
    """Holds the gate of the operator endpoints; tells a random token when the app starts.

    Not earlier: tools import an app only to look at it.
    """

    name = "operator endpoints"
    required = False

    def __init__(self, prefix: str, token: str | None, *, service: str) -> None:
        self._prefix = prefix
        self._random = random_token(service) if token is None else None
        self.gate = TokenGate(token or self._random or "")

    async def open(self, background: Background) -> None:
        if self._random is not None:
            # A warning, because it must be seen: most apps show nothing below that level.
            logger.warning(
                "operator endpoints (%s/status and others) take this token until the next start; "
                "PERFORMANCE_DASHBOARD_TOKEN sets a lasting one.  Authorization: Bearer %s",
                self._prefix,
                self._random,
            )

    async def close(self) -> None:
        """Nothing is held."""

    def status(self) -> dict[str, Any]:
        return {"prefix": self._prefix, "token": "random" if self._random else "from settings"}
