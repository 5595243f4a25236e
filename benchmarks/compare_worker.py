"""One side of compare.py: a process with the package of one revision, told what to run.

    -> standard input:   limited 40          one line for each run
    <- standard output:  2117533             its CPU nanoseconds

Its first line says what it is and can: the package's folder, the cases that are checked and warm,
and why others are not there.  Who ends its input ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import sys
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

import perf_middleware
from benchmarks.installed_apps import EVERYTHING, LIMITED, PATH, accepting, bare, hit, with_settings
from benchmarks.layers import HEADERS, LARGE_BYTES, OFF, scopes
from benchmarks.runner import Answer, Case, check, on_loop, spent_ns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send

CONTROL: Final = "bare app"  # nothing of ours in it: it shows what the comparison is worth
WARM_UP_REQUESTS: Final = 100
WARM_UPS: Final = 3  # the loop turns between them: what is encoded behind an answer gets ready


def _case(
    name: str, build: Callable[[], ASGIApp], *header_names: bytes, coding: bytes = b"identity"
) -> Case:
    return Case(
        name=name,
        build=build,
        scope=scopes(PATH, accepting(coding) if coding != b"identity" else HEADERS),
        expected=Answer(status=200, body=LARGE_BYTES, header_names=frozenset(header_names)),
        has_one_body=coding == b"identity",
    )


_NONE_RUN = {"lifespan": OFF}  # none is run in process, so none is missed

CASES: Final = (
    _case(CONTROL, bare),
    _case("defaults, miss", partial(with_settings, **_NONE_RUN), b"cache-status"),
    _case("one quota", partial(with_settings, **_NONE_RUN, **LIMITED), b"ratelimit"),
    _case("everything, miss", partial(with_settings, **_NONE_RUN, **EVERYTHING), b"ratelimit"),
    _case("everything, hit", partial(hit, **_NONE_RUN, **EVERYTHING), b"age", b"ratelimit"),
    _case(
        "everything, hit of gzip",
        partial(hit, **_NONE_RUN, **EVERYTHING),
        b"age",
        b"content-encoding",
        coding=b"gzip",
    ),
)


class Slow:
    """A layer that burns so many microseconds: what the comparison must find."""

    def __init__(self, app: ASGIApp, *, burn_us: float) -> None:
        self._app = app
        self._burn_ns = int(burn_us * 1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        until_ns = perf_counter_ns() + self._burn_ns
        while perf_counter_ns() < until_ns:
            pass
        await self._app(scope, receive, send)


async def ready(case: Case, burn_us: float) -> ASGIApp:
    """The app of this case, checked and warm.  Raises CheckError for a wrong answer."""
    app = case.build()
    if burn_us and case.name != CONTROL:
        app = Slow(app, burn_us=burn_us)
    for _ in range(WARM_UPS):
        await spent_ns(app, case.scope, WARM_UP_REQUESTS)
        await asyncio.sleep(0.01)
    await check(case, app)
    return app


async def serve(cases: tuple[Case, ...], burn_us: float, asked: TextIO, told: TextIO) -> None:
    """Build what can be built, say so, and run what is asked for."""
    apps: dict[str, ASGIApp] = {}
    missing: dict[str, str] = {}
    for case in cases:
        try:
            apps[case.name] = await ready(case, burn_us)
        except Exception as error:  # noqa: BLE001 - an older version may refuse in any way
            missing[case.name] = f"{type(error).__name__}: {error}"
    scope_of = {case.name: case.scope for case in cases}
    gc.collect()
    gc.freeze()
    where = {"package": perf_middleware.__file__, "cases": [*apps], "missing": missing}
    print(json.dumps(where), file=told, flush=True)
    for line in asked:
        name, _, requests = line.strip().rpartition(" ")
        gc.collect()
        await spent_ns(apps[name], scope_of[name], max(1, int(requests) // 10))
        print(await spent_ns(apps[name], scope_of[name], int(requests)), file=told, flush=True)


def main() -> None:
    """Serve one side until standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), required=True)
    parser.add_argument("--burn-us", type=float, default=0.0)
    options = parser.parse_args()
    told, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no figure
    logging.disable(logging.WARNING)
    on_loop(options.loop, serve(CASES, options.burn_us, sys.stdin, told))


if __name__ == "__main__":
    main()
