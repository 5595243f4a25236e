"""The app as a user installs it: bare, with the defaults, with everything on, and as a hit.

Only public names are used here: it runs with older versions of the package, too (compare.py).
The route is the 20 kB one, whose bytes are there already: little work of the app's own, so that
what is installed shows best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Response

from benchmarks.layers import HEADERS, LARGE_BYTES
from perf_middleware import Settings, cache_response, install

if TYPE_CHECKING:
    from collections.abc import Callable

PATH: Final = "/large/{item}"
TTL_S: Final = 3600  # longer than any run: what expired would be no hit
PLENTY: Final = "1000000/second"  # nobody is refused

LIMITED: Final[dict[str, Any]] = {"ratelimit": {"quotas": [PLENTY]}}
BACKPRESSURE: Final[dict[str, Any]] = {
    "enabled": True,
    # All of its work, and patience: where other processes take the machine for a second, or a
    # thousand requests are one turn of the loop, nobody waits and nobody is refused.
    "limit_first": 64, "limit_min": 64, "turn_budget_s": 10.0,
    "wait_max_s": 60.0, "wait_target_s": 60.0,
}  # fmt: skip
EVERYTHING: Final[dict[str, Any]] = {
    **LIMITED,
    "backpressure": BACKPRESSURE,
    "memory": {"shed": True},
    # Metrics, compression and cache are on by default.
}
"""All layers, as in stacks.py."""


def accepting(coding: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a client that takes this coding."""
    return tuple((name, coding if name == b"accept-encoding" else value) for name, value in HEADERS)


def bare(decorate: Callable[[Any], Any] | None = None) -> FastAPI:
    """The app without anything of ours, its endpoint inside `decorate`."""
    app = FastAPI()

    async def large(item: str) -> Response:
        return Response(LARGE_BYTES, media_type="application/json")

    app.get(PATH)(large if decorate is None else decorate(large))
    return app


def with_settings(**sections: Any) -> FastAPI:
    """Installed; its answers may not be stored: no Cache-Control, no rule."""
    app = bare()
    install(app, Settings(**sections))
    return app


def hit(**sections: Any) -> FastAPI:
    """Installed; what its endpoint answers is stored."""
    app = bare(cache_response(ttl=TTL_S))
    install(app, Settings(**sections))
    return app
