"""Timeouts as a layer: a request that takes too long is answered with 504 and cancelled.

    server's task:  DeadlineMiddleware --> app          the endpoint runs where it ran before
                         |                               a timer is set, and stopped
    at expiry:           `-- a task sends 504; the endpoint is cancelled, behind its shields

Sources: RFC 9110 §15.6.5 (504); RFC 9457 (problem+json).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from perf_middleware.asgi import Around, header_pairs
from perf_middleware.errors import DeadlineExceededError, SettingsError
from perf_middleware.limits.deadlines.drivers.asyncio_work import AsyncioWork
from perf_middleware.limits.deadlines.middleware.timed import TimedRequest
from perf_middleware.limits.deadlines.runtime import CURRENT, Deadlines
from perf_middleware.limits.deadlines.settings import OF_REQUEST_LIMITS, DeadlineSettings
from perf_middleware.standing_alone import require_whole, section_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send


class DeadlineMiddleware(Around):
    """Answers 504 once a request has had its time, and cancels the endpoint.

    Stands alone: `settings` are the fields of DeadlineSettings for timeouts (`timeout_s=2.0`,
    `rules=[…]`), `trusts` says whose deadlines are obeyed where `follow_header` is set.
    `deadlines`, given instead of both, are those that exist.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(
        self,
        app: ASGIApp,
        deadlines: Deadlines | None = None,
        *,
        trusts: Callable[[Scope], bool] | None = None,
        **settings: Any,
    ) -> None:
        if deadlines is None:
            for name in sorted(settings.keys() & (OF_REQUEST_LIMITS | {"enabled"})):
                by = "install" if name == "enabled" else "RequestLimitsMiddleware"
                raise SettingsError((f"DeadlineMiddleware({name}=…): only {by} does that",))
            made = section_of(DeadlineSettings, settings, call="DeadlineMiddleware")
            deadlines = made.make_deadlines()
            deadlines.trusts = trusts
        else:
            beside = settings if trusts is None else {"trusts": trusts, **settings}
            require_whole(deadlines, Deadlines, beside, call="DeadlineMiddleware")
        self.app = app
        self.deadlines = deadlines
        self._rules = deadlines.timeouts

    # A coroutine function: by that uvicorn knows an app of ASGI 3.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self.below(scope, receive, send)
        deadlines = self.deadlines
        choice = self._rules.rule_for(scope) if self._rules.has_any else None
        if choice is None:
            choice = deadlines.default_timeout
        timeout_us = choice.timeout_us
        is_told = False
        if deadlines.follows_header and not choice.is_exempt:
            if type(scope["headers"]) is not list:
                scope["headers"] = header_pairs(scope["headers"])
            told_us = deadlines.told_us(scope)
            if told_us is not None and (timeout_us is None or told_us < timeout_us):
                timeout_us = told_us
                is_told = True
        if timeout_us is None:
            return await self.below(scope, receive, send)
        is_total = (choice.covers or deadlines.covers) == "total"
        return await self._held(
            scope, receive, send, timeout_us, is_total=is_total, is_told=is_told
        )

    async def _held(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        timeout_us: int,
        *,
        is_total: bool,
        is_told: bool,
    ) -> Any:
        deadlines = self.deadlines
        now_us = deadlines.clock()
        at_us: int | None = now_us + timeout_us
        outer = CURRENT.get()
        if deadlines.dry_run:
            at_us = None if outer is None else outer.at_us
        elif outer is not None and outer.at_us is not None and outer.at_us < now_us + timeout_us:
            at_us = outer.at_us  # a layer further out has its own timer
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            from perf_middleware.limits.deadlines.drivers.trio_work import TrioWork

            on_trio = TrioWork(timeout_us)
            timed = TimedRequest(at_us, deadlines, scope, send, on_trio, on_trio, is_total=is_total)
            on_trio.join(timed)
            app = on_trio.around(self.below)
        else:
            lines = deadlines.lines(loop)
            line = lines.alone(timeout_us) if is_told else lines.line(timeout_us)
            timed = TimedRequest(
                at_us, deadlines, scope, send, AsyncioWork(loop), line, is_total=is_total
            )
            line.join(timed, now_us, loop)
            app = self.below
        token = CURRENT.set(timed)
        error: BaseException | None = None
        try:
            result = await app(scope, receive, timed.send)
        except BaseException as exc:
            if timed.expired_in is None and not isinstance(
                exc, DeadlineExceededError | BaseExceptionGroup
            ):
                raise
            error = exc
        else:
            if timed.expired_in is None:
                return result
        finally:
            CURRENT.reset(token)
            timed.end()
        try:
            await timed.settle(error)
        finally:
            del error  # its traceback knows this frame
        return None
