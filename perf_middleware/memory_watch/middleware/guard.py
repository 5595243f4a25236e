"""What the layer asks for each request, and the watch tells at each look: who is let in now."""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from perf_middleware.clock import monotonic_us
from perf_middleware.memory_watch.changes_told import ChangesTold
from perf_middleware.memory_watch.finish.drivers.process import send_to_self, signal_heeded
from perf_middleware.memory_watch.finish.drivers.turn import turn_of
from perf_middleware.memory_watch.finish.runtime import Finisher
from perf_middleware.memory_watch.shedding import (
    CRITICAL_CLASS,
    EVERYBODY,
    NOBODY,
    refused_in_words,
    shed_from,
)
from perf_middleware.memory_watch.shedding_figures import SheddingFigures
from perf_middleware.refusals import RETRY_AFTER_S_MAX, Refusals

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from perf_middleware.asgi import Scope
    from perf_middleware.clock import Clock
    from perf_middleware.events import WorkerFinishing
    from perf_middleware.families import Family
    from perf_middleware.memory_watch.reading import MemorySample
    from perf_middleware.memory_watch.settings import MemorySettings

logger = logging.getLogger("perf_middleware.memory_watch")

DETAIL: Final = "The server is short of memory: ask again later."
FAILURES_TOLD_EVERY: Final = 1_000
SAMPLE_S: Final = 1.0
COMPANY_MAX: Final = 20  # requests beside others, until who is to be measured is left in peace
US_PER_S: Final = 1_000_000


class Watch(Protocol):
    """What looks at the memory: its step, and who is told of each look."""

    step: int
    on_sample: list[Callable[[MemorySample], object]]
    on_end: list[Callable[[], object]]

    def start(self) -> object:
        """Begin to look, in a thread; once."""

    def stop(self) -> object:
        """End it."""


class RouteSampler(Protocol):
    """Measures a request that runs alone."""

    def begin(self, scope: Scope) -> Any:
        """Before a request that no other runs beside: what `end` needs."""

    def end(self, token: Any, scope: Scope) -> object:
        """After it, unless another came meanwhile or it failed.  True: the next one closes it."""

    def forget(self) -> object:
        """A request came that is not told of: what waits for the next one cannot be closed."""


class Standing(Protocol):
    """A layer that stands in the way of requests only while it is needed."""

    def settle(self) -> object:
        """Stand there or step aside, as the guard needs it now; from any thread."""


class RequestGuard:
    """Who is let in while memory is short, as one number: `refused_from`.

    Hooks, None until somebody sets them:
    `criticality_of(scope)` is the code of a request's class, 0 critical_plus to 3 sheddable.
    `has_classes()` says whether requests differ at all; without it they do where the other is set.
    `in_progress()` counts the requests in flight where somebody does so anyway (MemoryLayer).
    `route_sampler` measures a request that runs alone, about one in `sample_s` seconds.
    """

    __slots__ = (
        "_clock", "_company", "_critical_share", "_hard_share", "_lines", "_refused_before",
        "_sampled_us", "_since_us", "criticality_of", "exempt_paths", "figures", "finisher",
        "had_company", "has_classes", "in_flight", "in_progress", "layers", "refusals",
        "refused_from", "route_sampler", "sample_s", "sheds", "wants_sample", "watch",
    )  # fmt: skip

    def __init__(
        self,
        watch: Watch,
        *,
        refusals: Refusals,
        sheds: bool = True,
        hard_share: float,
        critical_share: float,
        exempt_paths: Iterable[str] = (),
        finisher: Finisher | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        """With `sheds` false nobody is refused."""
        self.watch = watch
        self.refusals = refusals
        self.sheds = sheds
        self.exempt_paths = frozenset(exempt_paths)
        self.finisher = finisher
        self.figures = SheddingFigures()
        self.refused_from = NOBODY
        self.in_flight = 0
        self.in_progress: Callable[[], int] | None = None
        self.had_company = False  # since the request that is being measured began
        self.sample_s = SAMPLE_S
        self.wants_sample = False
        self.layers: list[Standing] = []
        self.criticality_of: Callable[[Scope], int] | None = None
        self.has_classes: Callable[[], bool] | None = None
        self.route_sampler: RouteSampler | None = None
        self._hard_share = hard_share
        self._critical_share = critical_share
        self._clock = clock
        self._company = 0
        self._sampled_us = 0
        self._since_us = 0
        self._refused_before = 0
        self._lines = ChangesTold(0)  # how many classes are refused
        if finisher is not None:
            finisher.in_flight = self.requests_in_flight
        watch.on_sample.append(self.looked)
        watch.on_end.append(self.let_in)

    @property
    def finishing(self) -> bool:
        """Whether this worker was asked to finish."""
        return self.finisher is not None and self.finisher.finishing

    def requests_in_flight(self) -> int:
        """How many requests the app works on."""
        return self.in_flight if self.in_progress is None else self.in_progress()

    # --- on the watch's thread --------------------------------------------------------------------

    def looked(self, sample: MemorySample) -> None:
        """A look at the memory: from now on others may be refused, and the worker may finish."""
        step = self.watch.step
        if self.sheds:
            refused_from = shed_from(
                step,
                sample.share,
                hard_share=self._hard_share,
                critical_share=self._critical_share,
                has_classes=self._has_classes(),
            )
            if min(refused_from, self.refused_from) < NOBODY or self._lines.told:
                self._change(refused_from, sample.share)
        if self.route_sampler is not None and self._is_due(sample.at_us):
            self._company = 0
            self.wants_sample = True
        self._settle()
        if self.finisher is not None:
            refused = self.figures.refused if self.refused_from <= EVERYBODY else None
            self.finisher.looked(step, sample, refused=refused)

    def let_in(self) -> None:
        """Nobody looks any more: nobody is refused for what was seen last."""
        self.refused_from = NOBODY
        self.wants_sample = False
        self._lines = ChangesTold(0)
        self._settle()

    def _is_due(self, at_us: int) -> bool:
        if at_us - self._sampled_us < self.sample_s * US_PER_S:
            return False
        self._sampled_us = at_us
        return True

    def _settle(self) -> None:
        for layer in self.layers:
            layer.settle()

    def _has_classes(self) -> bool:
        if self.criticality_of is None:
            return False
        return self.has_classes is None or self.has_classes()

    def _change(self, refused_from: int, share: float | None) -> None:
        if self.refused_from >= NOBODY > refused_from and self._lines.told == 0:
            self._since_us, self._refused_before = self._clock(), self.figures.refused
        self.refused_from = refused_from
        was = NOBODY - self._lines.told
        held_back = self._lines.note(NOBODY - refused_from, now_us=self._clock())
        if held_back is None:
            return
        used = "" if share is None else f", at {share:.0%} of its limit"
        if held_back:
            used += f" ({held_back} changes before are not in the log)"
        if refused_from < NOBODY:
            logger.log(
                logging.WARNING if refused_from < was else logging.INFO,
                "memory is short%s: requests are refused: %s",
                used, refused_in_words(refused_from),
            )  # fmt: skip
        else:
            logger.info(
                "memory suffices again%s: every request is served (%d were refused in %d s)",
                used, max(self.figures.refused - self._refused_before, 0),
                (self._clock() - self._since_us) // US_PER_S,
            )  # fmt: skip

    # --- for the layer ----------------------------------------------------------------------------

    def refuses(self, criticality: int) -> bool:
        """Whether requests of that class are refused now."""
        return criticality >= self.refused_from

    def class_of(self, scope: Scope) -> int:
        """The code of a request's class; one that cannot be told is critical."""
        if self.criticality_of is None:
            return CRITICAL_CLASS
        try:
            return min(max(self.criticality_of(scope), 0), NOBODY - 1)
        except Exception as error:  # noqa: BLE001 - the request is judged without it
            self._note_failure("criticality", "it counts as critical", error)
            return CRITICAL_CLASS

    @property
    def needs_layer(self) -> bool:
        """Whether requests must pass the layer: some are refused, or one is to be measured."""
        return self.wants_sample or self.refused_from < NOBODY

    def note_company(self) -> None:
        """A request came that is not alone: after some of them none is measured until later."""
        self.had_company = True
        if self.route_sampler is not None:
            self.route_sampler.forget()
        self._company += 1
        if self._company >= COMPANY_MAX:
            self._rest()

    def _rest(self) -> None:
        self.wants_sample = False
        self._settle()

    def begin_sample(self, scope: Scope) -> Any:
        """The sampler's token for a request that no other runs beside, None where it is not to be
        measured.
        """
        self.had_company = False  # who comes meanwhile is
        sampler = self.route_sampler
        try:
            return None if sampler is None else sampler.begin(scope)
        except Exception as error:  # noqa: BLE001 - the request goes on unmeasured
            self._note_failure("sampler", "it is not measured", error)
            return None

    def end_sample(self, token: Any, scope: Scope) -> None:
        """The request is over; what is measured beside others says nothing of it."""
        sampler = self.route_sampler
        try:
            # What it has left shows when the next one begins.
            goes_on = (
                sampler is not None
                and token is not None
                and not self.had_company
                and sampler.end(token, scope)
            )
        except Exception as error:  # noqa: BLE001 - the request is answered already
            self._note_failure("sampler", "it is not measured", error)
            goes_on = False
        if not goes_on:
            self._rest()

    def drop_sample(self) -> None:
        """The request has failed: it says nothing of what others leave."""
        if self.route_sampler is not None:
            self.route_sampler.forget()
        self._rest()

    def _note_failure(self, hook: str, so: str, error: Exception) -> None:
        self.figures.failures[hook] += 1
        if self.figures.failures[hook] % FAILURES_TOLD_EVERY == 1:
            logger.warning(
                "the hook %r failed for a request, %s: %s: %s",
                hook, so, type(error).__name__, error,
            )  # fmt: skip

    # --- for operators ----------------------------------------------------------------------------

    def families(self) -> Iterator[Family]:
        """The families for a scrape: those of shedding, and of finishing where that is on."""
        if self.sheds:
            yield from self.figures.families(refused_from=self.refused_from)
        if self.finisher is not None:
            yield from self.finisher.families()

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.figures.reset()
        self._refused_before = 0
        if self.finisher is not None:
            self.finisher.reset_counts()

    def status(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "in_flight": self.requests_in_flight(),
            "refused": refused_in_words(self.refused_from),
            **self.figures.totals(),
            "finish": None if self.finisher is None else self.finisher.status(),
        }


def guard_of(
    settings: MemorySettings,
    watch: Watch,
    *,
    service: str = "app",
    directory: str | os.PathLike[str] | None = None,
    on_finish: Callable[[], object] | None = None,
    on_change: Callable[[WorkerFinishing], object] | None = None,
    clock: Clock = monotonic_us,
) -> RequestGuard:
    """What these settings ask for beside `watch`.

    Workers of `service` meet in `directory`, or in one of this user's own; `on_finish` is called in
    the place of the signal.
    """
    finisher = None
    if settings.finish:
        by_signal = on_finish is None
        finisher = Finisher(
            send_to_self(settings.finish_signal) if on_finish is None else on_finish,
            turn=turn_of(
                service, directory=directory, gap_us=round(settings.finish_gap_s * US_PER_S)
            ),
            uptime_us_min=round(settings.finish_uptime_s_min * US_PER_S),
            settle_us=round(settings.cleanup_s_max * US_PER_S),
            stuck_us=round(settings.cooldown_s * US_PER_S),  # another cleanup has brought nothing
            shares=(settings.hard_share, settings.critical_share),
            is_heeded=signal_heeded(settings.finish_signal) if by_signal else None,
            clock=clock,
        )
        finisher.on_change = on_change
    return RequestGuard(
        watch,
        refusals=Refusals(
            detail=DETAIL,
            min_s=settings.retry_after_s,
            max_s=min(2 * settings.retry_after_s, RETRY_AFTER_S_MAX),
            random=Random().random,  # noqa: S311 - jitter, no secret
        ),
        sheds=settings.shed,
        hard_share=settings.hard_share,
        critical_share=settings.critical_share,
        exempt_paths=settings.exempt_paths,
        finisher=finisher,
        clock=clock,
    )
