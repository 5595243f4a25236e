"""What the endpoints of every app here stand on."""

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tests.http.servers import Gates, Journal

FROM_OUTSIDE = ContextVar("FROM_OUTSIDE", default="unset")
FROM_MIDDLEWARE = ContextVar("FROM_MIDDLEWARE", default="unset")
FROM_ENDPOINT = ContextVar("FROM_ENDPOINT", default="unset")


class TeapotError(Exception):
    """Has a handler that answers 418."""


class UnhandledError(Exception):
    """Has no handler: a 500, and the server logs it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the endpoints stand on."""

    journal: Journal
    gates: Gates
    files: Path
