"""Reads how much memory this process uses, and of what bounds: cheap looks, and the whole picture.

    sample()    each look of the watch      RSS and every bound
    witness()   for the hunt for leaks      what the process has written, small objects, malloc
    read()      for people and scrapes      everything
    refresh()   in the watch's thread       the slow figures of read(), so that no loop waits

All may be called from any thread, also while the event loop is stuck; none needs a loop.  Which
control groups there are, and all limits, are read anew every `LIMITS_EVERY_US`.  In a process that
was forked the probe begins anew.  Where no file can be opened for want of descriptors, what was
read last holds.

Cost, measured with one group that has a limit: sample() 35 us, 20 us without any, and 0.19 ms when
limits are due; witness() 23 us, and 0.08 ms for each 400,000 small dictionaries that live, in which
no other thread runs; read() 0.2 ms, and families() 0.1 ms from what is kept.  PSS and USS take
2.6 ms for 750 MB and are 10 s old at least before they are read again, malloc's figures (see
allocator.py) half a second: none of these takes more than a thousandth of the time.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.memory_watch.bounds import Limits, OwnUse, bounds_of
from perf_middleware.memory_watch.control_groups import NO_LIMIT_BYTES
from perf_middleware.memory_watch.figures import families_of, status_of
from perf_middleware.memory_watch.probes import elsewhere
from perf_middleware.memory_watch.probes.allocator import load_allocator
from perf_middleware.memory_watch.probes.files import NoDescriptorLeftError, read_text
from perf_middleware.memory_watch.probes.groups import ControlGroups
from perf_middleware.memory_watch.probes.kept import Kept
from perf_middleware.memory_watch.proc_texts import KIB, sizes, statm
from perf_middleware.memory_watch.reading import (
    GarbageCollector,
    MallocMemory,
    MemoryReading,
    MemorySample,
    ProcessMemory,
    SystemMemory,
    Witness,
)
from perf_middleware.resident import asked_resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.memory_watch.reading import Bound

logger = logging.getLogger("perf_middleware.memory_watch")

LIMITS_EVERY_US: Final = 3_000_000
READ_EVERY_US: Final = 1_000_000  # scrapes cannot hammer the kernel
SHARED_EVERY_US: Final = 10_000_000
# New at each look of the watch, once a second, as long as it takes less than a millisecond: an
# older figure makes stairs of what grows, and stairs hide that growth slows down.
MALLOC_EVERY_US: Final = 500_000
FREE_US_MAX: Final = 1_000

_STATUS: Final = frozenset(
    {"VmHWM", "VmSize", "VmData", "VmSwap", "RssAnon", "RssFile", "RssShmem"}
)
_ROLLUP: Final = frozenset({"Pss", "Private_Clean", "Private_Dirty", "Private_Hugetlb"})
_SYSTEM: Final = frozenset({"MemTotal", "MemAvailable"})
_SWAP: Final = frozenset({"SwapTotal", "SwapFree"})


class MemoryProbe:
    """Reads the process it is asked in.

    `limit_bytes` is a limit on RSS that the settings name; `root` stands before each path of the
    kernel's; `known_bytes` and `requests` are what caches hold and how many requests were served:
    where one raises, that is counted, and logged once.
    """

    def __init__(
        self,
        *,
        limit_bytes: int | None = None,
        root: Path = Path("/"),
        clock: Clock = monotonic_us,
        known_bytes: Callable[[], int] | None = None,
        requests: Callable[[], int] | None = None,
    ) -> None:
        if limit_bytes is not None and limit_bytes < 1:
            raise ValueError(f"limit_bytes must be >= 1: {limit_bytes}")
        self._limit_bytes = limit_bytes
        self._root = str(root).rstrip("/\\")
        self._clock = clock
        self._known_bytes = known_bytes
        self._requests = requests
        self._page_bytes = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4 * KIB
        self._allocator = load_allocator()
        self._failed: set[str] = set()
        self._failures = 0
        self._begin(os.getpid())

    def _begin(self, pid: int) -> None:
        # In a child what is kept is its parent's, and a lock may be held by a thread that it lacks.
        self._pid = pid
        self._groups = ControlGroups(self._root)
        self._limits = Limits(configured_bytes=self._limit_bytes)
        self._limits_due_us: int | None = None
        self._sample: MemorySample | None = None
        self._status: dict[str, int] = {}
        self._reading: MemoryReading | None = None
        self._shared = Kept(self._read_shared, every_us=SHARED_EVERY_US, clock=self._clock)
        figures = self._allocator.figures
        self._malloc = figures and Kept(figures, every_us=MALLOC_EVERY_US, clock=self._clock)
        self._seen_with: tuple[MallocMemory | None, int] = (None, 0)
        self._free = figures and Kept(figures, every_us=0, clock=self._clock)

    def _now_us(self) -> int:
        pid = os.getpid()
        if pid != self._pid:
            self._begin(pid)
        return self._clock()

    # --- cheap looks ------------------------------------------------------------------------

    def sample(self) -> MemorySample:
        """RSS and all bounds now."""
        now_us = self._now_us()
        try:
            own, system, groups = self._look(now_us)
        except NoDescriptorLeftError:
            if self._sample is None:
                return MemorySample(at_us=now_us, rss_bytes=0)
            return replace(self._sample, at_us=now_us)
        bounds = bounds_of(self._limits, own, groups=groups, system=system)
        self._sample = MemorySample(at_us=now_us, rss_bytes=own.rss_bytes, bounds=bounds)
        return self._sample

    def _look(self, now_us: int) -> tuple[OwnUse, SystemMemory | None, list[Bound]]:
        if self._limits_due_us is None or now_us >= self._limits_due_us:
            self._groups.find()
            data_bytes, virtual_bytes = _resource_limits()
            self._limits = replace(self._limits, data_bytes=data_bytes, virtual_bytes=virtual_bytes)
            self._limits_due_us = now_us + LIMITS_EVERY_US
        return self._own_use(), self._system(_SYSTEM), self._groups.bounds()

    def _own_use(self) -> OwnUse:
        found = statm(read_text(f"{self._root}/proc/self/statm"), page_bytes=self._page_bytes)
        if found is None:
            return OwnUse(rss_bytes=max(0, asked_resident_bytes()))
        return OwnUse(
            rss_bytes=found.rss_bytes,
            data_bytes=found.data_bytes,
            virtual_bytes=found.virtual_bytes,
            free_bytes=self._free_bytes(),
        )

    def _free_bytes(self) -> int:
        """What malloc has free, as it is now; 0 where no resource limit asks for it.

        0 too where it is slow to tell: so many holes are no room for what is larger.
        """
        limits, free = self._limits, self._free
        if not free or (limits.data_bytes is None and limits.virtual_bytes is None):
            return 0
        found = free.newest()
        return 0 if found is None or free.took_us > FREE_US_MAX else found.free_bytes

    def _system(self, names: frozenset[str]) -> SystemMemory | None:
        found = sizes(read_text(f"{self._root}/proc/meminfo"), names)
        total, available = found.get("MemTotal"), found.get("MemAvailable")
        if total is None or available is None:
            return elsewhere.system_memory()
        swap, swap_free = found.get("SwapTotal"), found.get("SwapFree")
        return SystemMemory(
            total_bytes=total,
            available_bytes=available,
            swap_total_bytes=swap,
            swap_used_bytes=None if swap is None or swap_free is None else max(0, swap - swap_free),
        )

    # --- leaks ------------------------------------------------------------------------------

    def witness(self) -> Witness:
        """What tells growth from use, now; `malloc_bytes` may be older, where it is dear to read.

        Where caches have changed since malloc was read, malloc is taken to have changed as much:
        beside caches that have shrunk just now, an old figure of malloc's would be a height that
        was never there.
        """
        now_us = self._now_us()
        status = self._read_status()
        anonymous = status.get("RssAnon")
        if anonymous is None:
            anonymous = self.sample().rss_bytes
        malloc = self._malloc.newest() if self._malloc else None
        known = self._asked("known bytes", self._known_bytes) or 0
        if malloc is not self._seen_with[0]:
            self._seen_with = malloc, known
        return Witness(
            at_us=now_us,
            anonymous_bytes=anonymous + status.get("VmSwap", 0),
            blocks=_blocks(),
            malloc_bytes=(
                None if malloc is None else max(0, malloc.used_bytes + known - self._seen_with[1])
            ),
            known_bytes=known,
            requests=self._asked("requests", self._requests),
        )

    def _read_status(self) -> dict[str, int]:
        with contextlib.suppress(NoDescriptorLeftError):  # then what was read last holds
            self._status = sizes(read_text(f"{self._root}/proc/self/status"), _STATUS)
        return self._status

    def _asked(self, name: str, ask: Callable[[], int] | None) -> int | None:
        if ask is None:
            return None
        try:
            answer = max(0, int(ask()))
        except Exception:  # an observer of ours must not end the watch
            self._failures += 1
            if name not in self._failed:
                self._failed.add(name)
                logger.exception("memory probe: asking for the %s failed", name)
            return None
        self._failed.discard(name)
        return answer

    # --- the whole picture ------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the slow figures that are due, for `read`; for a thread that may wait some ms."""
        self._now_us()
        self._shared.newest()
        if self._malloc:
            self._malloc.newest()

    def read(self) -> MemoryReading:
        """Everything, at most a second old; PSS, USS and malloc's figures may be some seconds old.

        Those are read here only where nobody calls `refresh`.
        """
        now_us = self._now_us()
        reading = self._reading
        if reading is None or now_us - reading.at_us >= READ_EVERY_US:
            reading = self._reading = self._read(now_us)
        return reading

    def _read(self, now_us: int) -> MemoryReading:
        sample = self.sample()
        status = self._read_status()
        shared = self._shared.kept() or {}
        try:
            group, pressure = self._groups.tightest(), self._groups.pressure()
            system = self._system(_SYSTEM | _SWAP)
        except NoDescriptorLeftError:
            group = pressure = system = None
        private = [size for name, size in shared.items() if name.startswith("Private_")]
        return MemoryReading(
            at_us=now_us,
            process=ProcessMemory(
                rss_bytes=sample.rss_bytes,
                peak_bytes=status.get("VmHWM"),
                anonymous_bytes=status.get("RssAnon"),
                file_bytes=status.get("RssFile"),
                shared_bytes=status.get("RssShmem"),
                swapped_bytes=status.get("VmSwap"),
                virtual_bytes=status.get("VmSize"),
                data_bytes=status.get("VmData"),
                proportional_bytes=shared.get("Pss"),
                unique_bytes=sum(private) if private else None,
            ),
            bounds=sample.bounds,
            blocks=_blocks(),
            gc=_garbage_collector(),
            group=group,
            pressure=pressure,
            system=system,
            malloc=self._malloc.kept() if self._malloc else None,
        )

    def _read_shared(self) -> dict[str, int]:
        return sizes(read_text(f"{self._root}/proc/self/smaps_rollup"), _ROLLUP)

    def families(self) -> Iterable[Family]:
        """`perf_memory_*` of the whole picture."""
        return families_of(self.read(), failures=self._failures)

    def status(self) -> dict[str, Any]:
        """The whole picture, JSON-able."""
        return status_of(self.read()) | {"failures": self._failures}

    def reset_counts(self) -> None:
        """Own counts back to zero."""
        self._failures = 0

    # --- giving back ------------------------------------------------------------------------

    def trim(self) -> int | None:
        """Let the C library give free memory back to the system: bytes of RSS less.

        None where it has no such call.  Each arena is locked while it is gone through, so call it
        in a thread that may wait: 28 ms for 200 MB in 5,000 holes, 3 ms where nothing is left to
        give, measured.  To fill those holes again took 135 ms then, and 36 ms without.
        """
        trim = self._allocator.trim
        if trim is None:
            return None
        before_bytes = self.sample().rss_bytes
        trim()
        return max(0, before_bytes - self.sample().rss_bytes)


def _resource_limits() -> tuple[int | None, int | None]:
    """RLIMIT_DATA and RLIMIT_AS, bytes: what is in force now; None for no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    found: list[int | None] = []
    for name in ("RLIMIT_DATA", "RLIMIT_AS"):
        try:
            soft, _hard = resource.getrlimit(getattr(resource, name))
        except (AttributeError, OSError, ValueError):
            found.append(None)
        else:
            is_one = soft != resource.RLIM_INFINITY and 0 <= soft < NO_LIMIT_BYTES
            found.append(soft if is_one else None)
    return found[0], found[1]


def _blocks() -> int:
    return sys.getallocatedblocks() if hasattr(sys, "getallocatedblocks") else 0


def _garbage_collector() -> GarbageCollector:
    generations = gc.get_stats()
    return GarbageCollector(
        is_enabled=gc.isenabled(),
        thresholds=gc.get_threshold(),
        pending=gc.get_count(),
        collections=tuple(one["collections"] for one in generations),
        uncollectable=sum(one["uncollectable"] for one in generations),
    )
