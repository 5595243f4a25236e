"""The operators' token: the one from the settings, or a random one told in the log at start."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

from perf_middleware.dashboard.access import TokenGate

if TYPE_CHECKING:
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.dashboard")


class OperatorDoor:
    """Holds the gate of the operator endpoints; tells a random token when the app starts.

    Not earlier: tools import an app only to look at it.
    """

    name = "operator endpoints"
    required = False

    def __init__(self, prefix: str, token: str | None) -> None:
        self._prefix = prefix
        self._random = secrets.token_urlsafe(24) if token is None else None
        self.gate = TokenGate(token or self._random or "")

    async def open(self, background: Background) -> None:
        if self._random is not None:
            # A warning, because it must be seen: most apps show nothing below that level.
            logger.warning(
                "operator endpoints (%s/status, %s/summary) take this token until the next start; "
                "PERFORMANCE_DASHBOARD_TOKEN sets a lasting one.  Authorization: Bearer %s",
                self._prefix,
                self._prefix,
                self._random,
            )

    async def close(self) -> None:
        """Nothing is held."""

    def status(self) -> dict[str, Any]:
        return {"prefix": self._prefix, "token": "random" if self._random else "from settings"}
