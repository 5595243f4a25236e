"""`perf.memory`: what one app knows of its memory, and what it does about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from perf_middleware.memory_watch.cleanup import Callback, CleanupReport
    from perf_middleware.memory_watch.collector.runtime import GarbageCollection
    from perf_middleware.memory_watch.functions.decorators import FunctionMemory, P, R
    from perf_middleware.memory_watch.leaks.runtime import LeakWatch
    from perf_middleware.memory_watch.middleware.guard import RequestGuard
    from perf_middleware.memory_watch.on_demand.runtime import MemoryInspection
    from perf_middleware.memory_watch.probes.memory import MemoryProbe
    from perf_middleware.memory_watch.reading import MemoryReading
    from perf_middleware.memory_watch.runtime import MemoryWatch


class Memory:
    """The parts, each of which is there also where nobody watches.

    `watch` climbs the steps and cleans up, `guard` sheds and ends the worker, `leaks` judges
    growth, `inspect` looks on demand, `functions` measures what is tracked, `gc` is the collector,
    `probe` reads.
    """

    def __init__(
        self,
        *,
        probe: MemoryProbe,
        watch: MemoryWatch,
        guard: RequestGuard,
        leaks: LeakWatch,
        inspect: MemoryInspection,
        functions: FunctionMemory,
        gc: GarbageCollection,
    ) -> None:
        self.probe = probe
        self.watch = watch
        self.guard = guard
        self.leaks = leaks
        self.inspect = inspect
        self.functions = functions
        self.gc = gc

    @property
    def step(self) -> int:
        """How short memory is: 0 normal, 1 soft, 2 hard, 3 critical."""
        return self.watch.step

    @property
    def finishing(self) -> bool:
        """Whether this worker was asked to finish, for want of memory."""
        return self.guard.finishing

    def read(self) -> MemoryReading:
        """Everything that is known of the memory now."""
        return self.probe.read()

    def on_pressure(
        self,
        name: str,
        callback: Callback,
        *,
        order: int = 100,
        thread: bool = False,
        relief: Callable[[], object] | None = None,
    ) -> None:
        """Call `callback(pressure)` in each cleanup: see `MemoryWatch.on_pressure`."""
        self.watch.on_pressure(name, callback, order=order, thread=thread, relief=relief)

    def clean_up(self) -> Awaitable[CleanupReport]:
        """Clean up now, whatever the step."""
        return self.watch.clean_up()

    def track(
        self, name: str | None = None, *, traced: bool = False, sample_every: int = 100
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Measure what the decorated function leaves in memory: see `FunctionMemory.track`."""
        return self.functions.track(name, traced=traced, sample_every=sample_every)

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture of each part."""
        return {
            **self.watch.status(),
            "reading": self.probe.status(),
            "requests": self.guard.status(),
            "leaks": self.leaks.status(),
            "inspect": self.inspect.status(),
            "functions": self.functions.status(),
            "gc": self.gc.status(),
        }
