"""The thread that writes the journal: what was asked meanwhile is one transaction.

    loop:    put put put          put put put put put
    thread:  |-- commit, sync --| |-- commit, sync --|      one sync serves all who waited for it

Who waits long is served with many others, so the thread needs no timer to collect them.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.task_errors import JournalUnavailableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from perf_middleware.tasks.journal.stores.sqlite import SqliteJournal, Step

BATCH_MAX: Final = 500  # steps of one transaction: others write too, and wait for its end
ALIVE_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A step, and who hears what it gave: `tell(value, error)`, in the loop or the thread."""

    step: Step
    is_synced: bool
    tell: Callable[[Any, PerfMiddlewareError | None], None]
    in_thread: bool = False


class Writer:
    """Runs steps in the order in which they were put, from `start` to `stop`."""

    def __init__(self, store: SqliteJournal, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=self._write, name="perf_middleware journal", daemon=True
        )
        self._ended: asyncio.Future[None] = loop.create_future()
        self.batches = 0
        self.failures = 0

    def start(self) -> None:
        self._thread.start()

    def put(
        self,
        step: Step,
        tell: Callable[[Any, PerfMiddlewareError | None], None],
        *,
        is_synced: bool = False,
    ) -> None:
        """Run `step`; synced before `tell` hears of it, where it asks for that."""
        self._asked.put(Asked(step, is_synced, tell))

    async def ask(self, step: Step, *, is_synced: bool = False) -> Any:
        """What `step` gave.  Raises what it raised; the step runs also where we are cancelled."""
        waiter: asyncio.Future[Any] = self._loop.create_future()

        def tell(value: Any, error: PerfMiddlewareError | None) -> None:
            if waiter.done():
                return
            if error is None:
                waiter.set_result(value)
            else:
                waiter.set_exception(error)

        self.put(step, tell, is_synced=is_synced)
        return await waiter

    def ask_from_thread(self, step: Step) -> PerfMiddlewareError | None:
        """Wait until `step` has run; its error."""
        has_run = threading.Event()
        told: list[PerfMiddlewareError | None] = []

        def tell(_value: Any, error: PerfMiddlewareError | None) -> None:
            told.append(error)
            has_run.set()

        self._asked.put(Asked(step, is_synced=False, tell=tell, in_thread=True))
        while not has_run.wait(ALIVE_LOOK_S):
            if not self._thread.is_alive() and not has_run.is_set():
                return JournalUnavailableError("it is closed")
        return told[0]

    async def stop(self) -> None:
        """Wait until all that was put has run."""
        self._asked.put(None)
        await self._ended

    def _write(self) -> None:
        is_stopped = False
        while not is_stopped:
            batch: list[Asked] = []
            asked = self._asked.get()
            with suppress(Empty):
                while asked is not None:
                    batch.append(asked)
                    if len(batch) >= BATCH_MAX:
                        break
                    asked = self._asked.get_nowait()
            is_stopped = asked is None
            if batch:
                self._run(batch)
        self._in_loop(self._tell_ended)

    def _run(self, batch: list[Asked]) -> None:
        self.batches += 1
        try:
            given = self._store.run(
                [asked.step for asked in batch], is_synced=any(asked.is_synced for asked in batch)
            )
        except JournalUnavailableError as exc:
            self.failures += 1
            given = [exc] * len(batch)
        except Exception as exc:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            self.failures += 1
            given = [JournalUnavailableError(f"{type(exc).__name__}: {exc}")] * len(batch)
        for asked, value in zip(batch, given, strict=True):
            if asked.in_thread:
                asked.tell(*_apart(value))
        self._in_loop(_tell_all, batch, given)

    def _in_loop(self, do: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(do, *args)

    def _tell_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _tell_all(batch: list[Asked], given: list[Any]) -> None:
    for asked, value in zip(batch, given, strict=True):
        if not asked.in_thread:
            asked.tell(*_apart(value))


def _apart(value: Any) -> tuple[Any, PerfMiddlewareError | None]:
    return (None, value) if isinstance(value, PerfMiddlewareError) else (value, None)
