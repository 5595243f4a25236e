"""The rate limit as a layer: a request that is over a quota is answered here, with 429.

    rule or mark -> plan -> key -> take      by look-ups, without a wait while it is in memory
                                 |-- admitted: the app, its answer told what is left
                                 `-- refused: 429, its body was made when the first one was

A plain callable: an admitted request runs in no coroutine of ours.
Sources: RFC 6585 §4 (429); RFC 9457 (problem+json); ASGI's websocket denial response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from perf_middleware.asgi import Around
from perf_middleware.errors import SettingsError
from perf_middleware.limits.rate.gcra import Left
from perf_middleware.limits.rate.middleware.answers import refuse, telling, telling_of_one
from perf_middleware.limits.rate.middleware.sockets import Conversation, refuse_handshake
from perf_middleware.limits.rate.plans import EVERY, INNER, OUTER
from perf_middleware.limits.rate.runtime import RateLimit
from perf_middleware.limits.rate.settings import RateLimitSettings
from perf_middleware.limits.settings import CallersSettings
from perf_middleware.standing_alone import require_whole, section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.limits.rate.plans import Batch, Plan

OF_INSTALL: Final = frozenset({"enabled", "share"})
_PLACES: Final = {"outer": OUTER, "inner": INNER, "every": EVERY}
CALL: Final = "RateLimitMiddleware"


class RateLimitLayer(Around):
    """One place of `rate`: `outer` or `inner` judges the quotas that stand there, `every` all."""

    def __init__(
        self, app: ASGIApp, rate: RateLimit, *, place: Literal["outer", "inner", "every"] = "every"
    ) -> None:
        self.app = app
        self.rate = rate
        self._place = _PLACES[place]
        # One of two layers counts what is exempt as a whole.
        self._counts_exempt = place != "inner"
        self._rules = rate.rules
        self._rule_for = rate.rules.rule_for
        self._default = rate.default
        self._memory = rate.memory
        # Where no rule and no mark says otherwise: looked up here, and not for each request.
        self._default_batch = batch = rate.default.requests[self._place]
        self._default_single = None if batch is None else batch.single
        self._tells_plainly = rate.tells and not rate.tells_legacy and self._place != INNER

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        """A coroutine: the app's own where the request is admitted."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                return self._websocket(scope, receive, send)
            return self.below(scope, receive, send)
        rate = self.rate
        batch: Any  # none only where there is no single one
        others = rate.other_paths
        if others is None or scope["path"] in others or scope.get("root_path"):
            batch = self._batch_for(scope)
            single = None if batch is None else batch.single
        else:
            batch, single = self._default_batch, self._default_single
        if single is None or rate.shared is not None:
            return self._otherwise(batch, scope, receive, send)
        try:
            key_of = single.key_of
            key = key_of(scope)
            left = None if key is None else self._memory.draw(key, single.quota, single.cost)
        except Exception as error:  # noqa: BLE001 - fail open: no request for our mistake
            rate.note_failure("the rate limit", error)
            return self.below(scope, receive, send)
        if left is None:
            single.counts.exempt += 1
            return self.below(scope, receive, send)
        if left[1]:
            single.counts.refused += 1
            return refuse(rate, self._place, batch, (single,), (Left(*left),), scope, send)
        single.counts.admitted += 1
        if self._tells_plainly:
            send = telling_of_one(rate, batch.lines, left, send)
        elif rate.tells:
            send = telling(rate, self._place, batch.lines, (left,), send)
        below = self.below
        return below(scope, receive, send)

    def _otherwise(
        self, batch: Batch | None, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[Any]:
        """Where not one quota in memory decides."""
        if batch is None:
            return self.below(scope, receive, send)
        judge = self._judged if self.rate.shared is None else self._shared
        return judge(batch, scope, receive, send)

    def _batch_for(self, scope: Scope) -> Batch | None:
        """What is judged for a request; None, and counted, where it is exempt."""
        literals = self._rules.literals
        if literals is None or scope.get("root_path"):
            plan = self._rule_for(scope) or self._default
        else:
            plan = literals.get(scope["path"]) or self._default
        batch = plan.requests[self._place]
        if batch is None:
            if plan.is_exempt and self._counts_exempt:
                self.rate.count_exempt()
            return None
        if self.rate.has_exempt_networks and self.rate.exempts(scope):
            return None
        return batch

    def _judged(self, batch: Batch, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        rate = self.rate
        try:
            admitted, entries, left = rate.judge(batch, scope)
        except Exception as error:  # noqa: BLE001 - the same
            rate.note_failure("the rate limit", error)
            return self.below(scope, receive, send)
        if not admitted:
            return refuse(rate, self._place, batch, entries, left, scope, send)
        if rate.tells and entries:
            send = telling(rate, self._place, batch.lines_of(entries), left, send)
        return self.below(scope, receive, send)

    async def _shared(self, batch: Batch, scope: Scope, receive: Receive, send: Send) -> Any:
        rate = self.rate
        try:
            admitted, entries, left = await rate.judge_shared(batch, scope)
        except Exception as error:  # noqa: BLE001 - the same
            rate.note_failure("the rate limit", error)
            return await self.below(scope, receive, send)
        if not admitted:
            return await refuse(rate, self._place, batch, entries, left, scope, send)
        if rate.tells and entries:
            send = telling(rate, self._place, batch.lines_of(entries), left, send)
        return await self.below(scope, receive, send)

    def _websocket(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        plan: Plan = self.rate.plan_for(scope)
        batch, messages = plan.requests[self._place], plan.messages[self._place]
        if batch is None and messages is None:
            if plan.is_exempt and self._counts_exempt:
                self.rate.count_exempt()
            return self.below(scope, receive, send)
        if self.rate.has_exempt_networks and self.rate.exempts(scope):
            return self.below(scope, receive, send)
        return self._conversation(batch, messages, scope, receive, send)

    async def _conversation(
        self,
        batch: Batch | None,
        messages: Batch | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Any:
        rate = self.rate
        if batch is not None:
            try:
                if rate.shared is None:
                    admitted, entries, left = rate.judge(batch, scope)
                else:
                    admitted, entries, left = await rate.judge_shared(batch, scope)
            except Exception as error:  # noqa: BLE001 - the same
                rate.note_failure("the rate limit", error)
            else:
                if not admitted:
                    return await refuse_handshake(
                        rate, self._place, batch, entries, left, scope, send
                    )
        if messages is not None:
            conversation = Conversation(rate, messages, scope, receive, send)
            return await self.below(scope, conversation.receive, conversation.send)
        return await self.below(scope, receive, send)


class RateLimitMiddleware(RateLimitLayer):
    """Answers 429 once a caller is over a quota, and tells the others what is left.

    Stands alone: `settings` are the fields of RateLimitSettings (`quotas=["100/minute"]`) and of
    CallersSettings (`trusted_proxies=["10.0.0.0/8"]`); all quotas are judged where it stands.
    `rate`, given instead of them, is one that exists.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(self, app: ASGIApp, rate: RateLimit | None = None, **settings: Any) -> None:
        if rate is None:
            for name in sorted(OF_INSTALL & settings.keys()):
                raise SettingsError((f"{CALL}({name}=…): only install can do that",))
            of_callers = {
                name: settings.pop(name) for name in CallersSettings.model_fields.keys() & settings
            }
            callers = section_of(CallersSettings, of_callers, call=CALL).make_callers()
            made = section_of(RateLimitSettings, settings, call=CALL)
            rate = made.make_rate_limit(callers=callers)
        else:
            require_whole(rate, RateLimit, settings, call=CALL)
        super().__init__(app, rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        # By this alone servers tell an app of ASGI 3 from one of ASGI 2, where it is the outermost.
        return await super().__call__(scope, receive, send)
