"""The batches of one event loop: collected, in line, in flight, settled.

    ask --> OPEN --- size_max or wait_s ---> LINED --- one of in_flight_max ---> RUNNING --> OVER
            takes keys                       takes keys up to size_max                        |
                      the last asker has gone, or timeout_s is over: OVER at once  <----------+

Every step is plain code on the loop's thread, without an await between look and change.  An asker
who goes takes only itself away; a key that nobody wants any more is not asked; a call that nobody
waits for any more is cancelled.  Every asker is settled once, within wait_s and timeout_s.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.tasks.batching.answers import by_key
from perf_middleware.tasks.batching.errors import (
    BatchCancelledError,
    BatchLineFullError,
    BatchTimeoutError,
)
from perf_middleware.tasks.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from contextvars import Context
    from types import TracebackType

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.batching.figures import BatchCounts
    from perf_middleware.tasks.batching.options import BatchOptions
    from perf_middleware.tasks.drivers.loops import Loop, Waiter

PENDING: Final = object()

GONE_MAX: Final = 16
"""Askers who have gone are forgotten from here on, where they are more than those who wait."""

OPEN: Final = 0
LINED: Final = 1
RUNNING: Final = 2
OVER: Final = 3


class Entry:
    """One key of one batch, and who waits for it."""

    __slots__ = ("_context", "_traceback", "batch", "key", "live", "outcome", "waiters")

    def __init__(self, key: Hashable, batch: Batch | None, outcome: Any = PENDING) -> None:
        self.key = key
        self.batch = batch
        self.outcome = outcome
        self.waiters: list[Waiter] = []
        self.live = 0
        self._traceback: TracebackType | None = None
        self._context: BaseException | None = None

    def settle(self, outcome: Any) -> None:
        """Tell it to all who wait, in the order in which they asked."""
        self.outcome = outcome
        self.batch = None
        if outcome.__class__ is Failed:
            self._traceback = outcome.error.__traceback__
            self._context = outcome.error.__context__
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def result(self) -> Any:
        """The value; raises the error that the key has failed with."""
        outcome = self.outcome
        if outcome.__class__ is not Failed:
            return outcome
        try:
            # Many raise the same error: none adds to another's traceback, nor shows in its own log
            # what another one was handling when it asked.
            outcome.error.__context__ = self._context
            raise outcome.error.with_traceback(self._traceback)
        finally:
            del outcome, self  # no cycle of the error, its traceback and this frame


class Batch:
    """The keys of one bulk call."""

    __slots__ = (
        "call", "cancel", "context", "entries", "group", "has_begun", "home", "stage", "stop_timer",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        home: LoopBatches,
        call: Callable[[list[Any]], Awaitable[Any]],
        *,
        group: Any,
        context: Context,
    ) -> None:
        self.home = home
        self.call = call
        self.group = group
        self.context = context
        self.entries: dict[Hashable, Entry] = {}
        self.waiting = 0
        self.stage = OPEN
        self.has_begun = False
        self.stop_timer: Callable[[], object] | None = None
        self.cancel: Callable[[], object] | None = None


class LoopBatches:
    """All batches of one batched function on one event loop."""

    def __init__(
        self, loop: Loop, *, options: BatchOptions, counts: BatchCounts, clock: Clock
    ) -> None:
        self._loop = loop
        self._options = options
        self._counts = counts
        self._clock = clock
        self._open: dict[Any, Batch] = {}
        self._line: OrderedDict[Batch, None] = OrderedDict()  # a set, in order
        self._running: set[Batch] = set()
        self.waiting = 0

    @property
    def in_flight(self) -> int:
        """Bulk calls that have not ended."""
        return len(self._running)

    # --- asking -----------------------------------------------------------------------------------

    def ask(
        self,
        key: Hashable,
        *,
        call: Callable[[list[Any]], Awaitable[Any]],
        group: Any,
        context: Context,
    ) -> tuple[Entry, Waiter]:
        """A place in the batch that is collected for `group`.  Raises BatchLineFullError."""
        self._require_room()
        batch = self._open.get(group)
        if batch is None:
            batch = Batch(self, call, group=group, context=context)
            entry = batch.entries[key] = Entry(key, batch)  # a key without a hash: nothing was done
            self._open[group] = batch
            batch.stop_timer = self._loop.later(self._options.wait_s, lambda: self._ripen(batch))
        else:
            found = batch.entries.get(key)
            if found is None:
                found = batch.entries[key] = Entry(key, batch)
            entry = found
        waiter = self._wait_for(entry, batch)
        if len(batch.entries) >= self._options.size_max:
            del self._open[group]
            if batch.stage == OPEN:
                self._ripen(batch)
        return entry, waiter

    def join(self, entry: Entry) -> Waiter | None:
        """Wait for what was asked already, or None where it is not of this loop or given up."""
        batch = entry.batch
        if batch is None or batch.home is not self or batch.entries.get(entry.key) is not entry:
            return None
        self._require_room()
        return self._wait_for(entry, batch)

    def leave(self, entry: Entry, waiter: Waiter) -> None:
        """The asker has gone; nothing happens to who else waits."""
        batch = entry.batch
        if batch is None:
            return  # settled in the same moment
        self._counts.left += 1
        self.waiting -= 1
        batch.waiting -= 1
        entry.live -= 1
        waiter.cancel()
        if entry.live == 0 and batch.stage != RUNNING:
            del batch.entries[entry.key]
        elif len(entry.waiters) > GONE_MAX + 2 * entry.live:
            entry.waiters = [each for each in entry.waiters if not each.done()]
        if batch.waiting == 0:
            self._give_up(batch)

    def _require_room(self) -> None:
        if self.waiting >= self._options.waiting_max:
            self._counts.refused += 1
            raise BatchLineFullError(self._options.name, self._options.waiting_max)

    def _wait_for(self, entry: Entry, batch: Batch) -> Waiter:
        waiter = self._loop.waiter()
        entry.waiters.append(waiter)
        entry.live += 1
        batch.waiting += 1
        self.waiting += 1
        return waiter

    # --- from open to over ------------------------------------------------------------------------

    def _ripen(self, batch: Batch) -> None:
        """Its time of collecting is over: it runs, or stands in line and takes what comes."""
        self._stop_timer(batch)
        timeout_s = self._options.timeout_s
        if timeout_s is not None:
            batch.stop_timer = self._loop.later(timeout_s, lambda: self._expire(batch))
        if len(self._running) < self._options.in_flight_max:
            self._start(batch)
        else:
            batch.stage = LINED
            self._line[batch] = None

    def _start(self, batch: Batch) -> None:
        self._close_to_keys(batch)
        batch.stage = RUNNING
        self._running.add(batch)
        self._counts.calls += 1
        self._counts.keys += len(batch.entries)
        cancel = self._loop.spawn(lambda: self._run(batch), batch.context)
        if batch.stage == RUNNING:  # a loop with eager tasks may have run all of it by now
            batch.cancel = cancel

    async def _run(self, batch: Batch) -> None:
        batch.has_begun = True
        keys = list(batch.entries)
        given = keys.copy()  # the call's own: what it does to it, others do not see
        options, counts = self._options, self._counts
        began_us = self._clock()
        ours = True
        try:
            if batch.stage == OVER:
                return
            results = await batch.call(given)
            outcomes = by_key(
                keys, results, given=given, name=options.name, default=options.default
            )
        except Exception as error:  # noqa: BLE001 - those who asked get it
            counts.failed_calls += 1
            self._settle(batch, [Failed(error)] * len(keys))
        except GeneratorExit:  # the loop is gone, and nobody is left to be told
            ours = False
            raise
        except (anyio.get_cancelled_exc_class(), KeyboardInterrupt):
            ours = batch.stage == OVER  # we have cancelled it; else the loop ends, or the call did
            self._settle(batch, [Failed(BatchCancelledError(options.name))] * len(keys))
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit, say: theirs who asked, too
            # Out of this task it would end the loop with all that others have on it.
            counts.failed_calls += 1
            self._settle(batch, [Failed(error)] * len(keys))
        else:
            if batch.stage == RUNNING:
                counts.failed_keys += sum(outcome.__class__ is Failed for outcome in outcomes)
            self._settle(batch, outcomes)
        finally:
            counts.call_us += self._clock() - began_us
            self._running.discard(batch)
            if ours:
                self._start_next()
            else:
                self._loop.soon_if_open(self._start_next)

    def _start_next(self) -> None:
        while self._line and len(self._running) < self._options.in_flight_max:
            batch, _ = self._line.popitem(last=False)
            self._start(batch)

    def _expire(self, batch: Batch) -> None:
        """No answer in time: whoever waits is told, whatever the call does when cancelled."""
        self._counts.timeouts += 1
        self._end(batch, BatchTimeoutError(self._options.name, self._options.timeout_s or 0.0))

    def _give_up(self, batch: Batch) -> None:
        """Nobody waits for it any more."""
        self._end(batch, BatchCancelledError(self._options.name))

    def _end(self, batch: Batch, error: Exception) -> None:
        cancel = batch.cancel
        self._settle(batch, [Failed(error)] * len(batch.entries))
        if cancel is not None:
            cancel()
            if not batch.has_begun:  # a task that is cancelled so early runs nothing of _run
                self._running.discard(batch)
                self._start_next()

    def _settle(self, batch: Batch, outcomes: list[Any]) -> None:
        if batch.stage == OVER:
            return
        self._close_to_keys(batch)
        if batch.stage == LINED:
            del self._line[batch]
        self._stop_timer(batch)
        batch.stage = OVER
        batch.cancel = None
        self.waiting -= batch.waiting
        batch.waiting = 0
        entries, batch.entries = batch.entries, {}
        for entry, outcome in zip(entries.values(), outcomes, strict=True):
            entry.settle(outcome)

    def _close_to_keys(self, batch: Batch) -> None:
        if self._open.get(batch.group) is batch:
            del self._open[batch.group]

    def _stop_timer(self, batch: Batch) -> None:
        stop, batch.stop_timer = batch.stop_timer, None
        if stop is not None:
            stop()
