"""`perf.compression`: the codings of one app, how hard they try now, and what they did."""

from __future__ import annotations

import logging
from time import perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from perf_middleware.clock import monotonic_us
from perf_middleware.coding_choice import ATTRIBUTE, CHOSEN, Choice, choice_of
from perf_middleware.compression.choices import PathChoices
from perf_middleware.compression.drivers.behind import EncodingBehind, Job
from perf_middleware.compression.earning import KEPT_LEVEL_BYTES_MAX, earned
from perf_middleware.compression.etags import suffix_of
from perf_middleware.compression.figures import CodingCounts, CompressionFigures
from perf_middleware.compression.negotiation import acceptable_codings
from perf_middleware.compression.pressure import (
    IDENTITY,
    LOWER_LEVEL,
    NORMAL,
    Pressure,
    Thresholds,
    after,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perf_middleware.asgi import Message, Scope
    from perf_middleware.clock import Clock
    from perf_middleware.coded_forms import Forms
    from perf_middleware.compression.codecs import Codec, Encoder
    from perf_middleware.compression.drivers.behind import Done
    from perf_middleware.compression.earning import Effort
    from perf_middleware.compression.encoding import Judge
    from perf_middleware.compression.repeats import RepeatedBodies
    from perf_middleware.families import Family

logger = logging.getLogger("perf_middleware.compression")

T = TypeVar("T")

FIELDS_MAX: Final = 1_000  # values of Accept-Encoding that are remembered; browsers send a few
KNOWN_FIELD_BYTES_MAX: Final = 256  # of those
BEHIND_MAX: Final = 100  # stored bodies that wait to be encoded; a further one with a later hit
BEHIND_BYTES_MAX: Final = 4 << 20  # of their bodies: they may have left the store meanwhile
SAMPLE_EVERY_US: Final = 250_000
FAILURES_TOLD_EVERY: Final = 1_000
NO_CHOICE: Final = Choice()


class Coding:
    """One content coding as answers use it: its codec, its levels, what its head says."""

    __slots__ = (
        "_cheap_level", "_kept_level", "_level", "_stream_level", "codec", "content_encoding",
        "counts", "name", "suffix",
    )  # fmt: skip

    def __init__(
        self, codec: Codec, *, level: int, stream_level: int, cheap_level: int, kept_level: int
    ) -> None:
        self.codec = codec
        self.name = codec.name
        self.content_encoding = (b"content-encoding", codec.name.encode())
        self.suffix = suffix_of(codec.name)
        self.counts = CodingCounts()
        self._level = level
        self._stream_level = stream_level
        self._cheap_level = cheap_level
        self._kept_level = kept_level

    def level(self, step: int) -> int:
        """The level of a whole body at this step of pressure."""
        return self._level if step < LOWER_LEVEL else min(self._level, self._cheap_level)

    def kept_level(self, body_bytes: int) -> int:
        """The level of a stored body that is asked for often, and encoded behind an answer."""
        return self._kept_level if body_bytes <= KEPT_LEVEL_BYTES_MAX else self._level

    def encode(self, body: bytes, step: int) -> tuple[bytes, int]:
        """A whole body, and the nanoseconds that it took; in any thread."""
        began_ns = perf_counter_ns()
        coded = self.codec.encode(body, level=self.level(step))
        return coded, perf_counter_ns() - began_ns

    def encoder(self, step: int, *, stays_open: bool) -> Encoder:
        """For a body in pieces; one that may stay open for long takes little memory."""
        level = self._stream_level if stays_open else self._level
        if step >= LOWER_LEVEL:
            level = min(level, self._cheap_level)
        return self.codec.encoder(level=level, small_window=stays_open)

    def count(self, body: bytes, coded: bytes, busy_ns: int) -> None:
        """Count what `encode` or `piece_of` gave; on the event loop, where no addition is lost."""
        counts = self.counts
        counts.in_bytes += len(body)
        counts.out_bytes += len(coded)
        counts.busy_ns += busy_ns


def piece_of(encoder: Encoder, body: bytes, *, is_last: bool) -> tuple[bytes, int]:
    """One more piece of a coded body, all of which its receiver can decode; in any thread.

    And the nanoseconds that it took.
    """
    began_ns = perf_counter_ns()
    coded = encoder.encode(body) if body else b""
    coded += encoder.finish() if is_last else encoder.flush()
    return coded, perf_counter_ns() - began_ns


class Compression:
    """Encodes the answers of one app; its middleware asks it what to do.

    `pressure` gives a share of the CPU, 0 to 1, when asked on the event loop, a few times a second;
    without it nothing adapts.  `router_scope` gives the scope that the router saw, where a
    middleware in between has copied the server's; `follow` is told of one that we have copied.
    """

    def __init__(
        self,
        *,
        codings: Sequence[Coding],
        judge: Judge,
        paths: PathChoices | None = None,
        streams_max: int = 1_000,
        thread_bytes_min: int = 128 * 1024,
        threads_max: int = 4,
        thresholds: Thresholds | None = None,
        encodes_cross_site: bool = False,
        hidden_bytes_max: int = 100,
        keeps_forms: bool = True,
        repeats: RepeatedBodies | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        self.codings = tuple(codings)
        self.judge = judge
        self.paths = paths or PathChoices()
        self.streams_max = streams_max
        self.thread_bytes_min = thread_bytes_min
        self.encodes_cross_site = encodes_cross_site
        self.hidden_bytes_max = hidden_bytes_max
        self.keeps_forms = keeps_forms
        self.repeats = repeats
        self._behind = EncodingBehind(waiting_max=BEHIND_MAX, bytes_max=BEHIND_BYTES_MAX)
        self.figures = CompressionFigures([coding.name for coding in codings])
        for coding in codings:
            coding.counts = self.figures.by_coding[coding.name]
        self.suffixes = tuple(coding.suffix for coding in codings)
        self.pressure: Callable[[], float] | None = None
        self.router_scope: Callable[[Scope], Scope] | None = None
        self.follow: Callable[[Scope], None] | None = None
        self._names = tuple(coding.name for coding in codings)
        self._by_name = {coding.name: coding for coding in codings}
        self.known: dict[bytes | None, tuple[Coding, ...]] = {}
        self._thresholds = thresholds
        self._pressure = Pressure()
        self._sample_due_us = 0
        self._clock = clock
        self._threads_max = threads_max
        self._limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar(
            "perf_middleware.compression"
        )
        self._failures = 0

    def acceptable(self, value: bytes | None) -> tuple[Coding, ...]:
        """The codings that may answer this Accept-Encoding, best first; none: identity.

        `known` may be read instead, for a value that was asked for before.
        """
        names = acceptable_codings(value, self._names)
        codings = tuple(self._by_name[name] for name in names if name in self._by_name)
        if value is None or len(value) <= KNOWN_FIELD_BYTES_MAX:
            if len(self.known) >= FIELDS_MAX:
                self.known.clear()
            self.known[value] = codings
        return codings

    def choice_for(self, scope: Scope, start: Message, of_path: Choice | None) -> Choice:
        """What holds for this route: what a rule says of its path, else its endpoint.

        Of a stored answer the cache tells it: no router has seen its request.
        """
        if of_path is not None:
            return of_path
        if CHOSEN in start:
            kept: Choice | None = start[CHOSEN]
            if kept is not None:
                return kept
        if self.router_scope is not None:
            scope = self.router_scope(scope)
        endpoint = scope.get("endpoint")
        if (
            type(endpoint) is FunctionType
            and ATTRIBUTE not in endpoint.__dict__
            and CHOSEN not in scope
        ):
            return NO_CHOICE
        if endpoint is not None:
            chosen = choice_of(endpoint, scope["method"])
            if chosen is not None:
                return chosen
        return scope.get(CHOSEN) or NO_CHOICE

    def step(self) -> int:
        """How far CPU pressure has lowered it: NORMAL, LOWER_LEVEL or IDENTITY."""
        if self._thresholds is not None and self.pressure is not None:
            now_us = self._clock()
            if now_us >= self._sample_due_us:
                self._sample_due_us = now_us + SAMPLE_EVERY_US
                before = self._pressure
                self._pressure = after(
                    before, self.pressure(), now_us=now_us, thresholds=self._thresholds
                )
                if self._pressure.step != before.step:
                    self._tell_step(self._pressure.step)
        return self._pressure.step

    def kept_form(self, codings: Sequence[Coding], forms: Forms) -> tuple[Coding, bytes] | None:
        """The best ready form of a stored body, never encoding it now; none: send it plain.

        A better one is made behind this answer where that is earned, unless the CPU is scarce.
        """
        best = codings[0]
        form = forms.get(best.name)
        effort = earned(forms.ask(best.name), has_form=form is not None)
        if effort is not None and not forms.is_claimed(best.name, effort) and not self.step():
            self._encode_behind(best, forms, effort, has_form=form is not None)
        if form is not None:
            return best, form
        for coding in codings[1:]:
            form = forms.get(coding.name)
            if form is not None:
                return coding, form
        return None

    def collect(self) -> None:
        """Take in what was encoded behind other answers."""
        if self._behind.waiting:
            for done in self._behind.collect():
                self._take_in(done)

    def _encode_behind(
        self, coding: Coding, forms: Forms, effort: Effort, *, has_form: bool
    ) -> None:
        hurried = coding.level(NORMAL)
        level = hurried if effort == "hurried" else coding.kept_level(len(forms.body))
        # Of a large body the same would come out again.
        is_new = level != hurried or not (has_form or forms.is_claimed(coding.name, "hurried"))
        if not is_new or self._behind.put(Job(forms, coding.codec, level)):
            forms.claim(coding.name, effort)

    def _take_in(self, done: Done) -> None:
        job = done.job
        if done.coded is None:
            if done.error is not None:
                self.note_failure(done.error)
            return
        coding = self._by_name[job.codec.name]
        coding.counts.behind += 1
        coding.count(job.forms.body, done.coded, done.busy_ns)
        job.forms.remember(coding.name, done.coded)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """`call()` in one of our own threads; never abandoned while it runs."""
        try:
            limiter = self._limiter.get()
        except LookupError:  # one for each event loop that this app runs in
            limiter = anyio.CapacityLimiter(self._threads_max)
            self._limiter.set(limiter)
        self.figures.offloaded += 1
        return await anyio.to_thread.run_sync(call, limiter=limiter)

    def note_failure(self, error: Exception) -> None:
        """A codec has failed; its answer goes out as it is."""
        self._failures += 1
        self.figures.skipped["failed"] += 1
        if self._failures % FAILURES_TOLD_EVERY == 1:
            logger.error("an answer could not be encoded, it is sent as it is", exc_info=error)

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.figures.reset()

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        self.collect()
        return self.figures.families(step=self._pressure.step, repeats=self.repeats)

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {
            "codings": list(self._names),
            "pressure_step": self._pressure.step,
            "repeated_bytes": self.repeats.held_bytes if self.repeats is not None else 0,
            **self.figures.totals(),
        }

    def _tell_step(self, step: int) -> None:
        what = "not encoded" if step == IDENTITY else "encoded at a cheap level"
        if step:
            logger.info("the CPU is scarce: answers are %s", what)
        else:
            logger.info("the CPU is free again: answers are encoded as they are set to be")
