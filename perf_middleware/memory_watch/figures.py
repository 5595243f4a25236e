"""A reading as metric families, and as a picture in JSON.

What of memory the metrics have already (RSS, address space, pauses of the collector) is not
repeated.  A worker's own memory is kept apart by worker; what all workers see of the same group and
machine is taken once, also where it is a counter: they would add up to a multiple of the truth.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import NO_LABELS, Across, Family, LabelSet, Value, counter, gauge
from perf_middleware.memory_watch.bounds import tightest_of_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.memory_watch.reading import (
        GroupMemory,
        MemoryReading,
        Pressure,
        ProcessMemory,
        SystemMemory,
    )

US_PER_S: Final = 1_000_000

_BOUND: Final = "the limits that hold for this process; of several control groups the tightest"


def families_of(reading: MemoryReading, *, failures: int) -> Iterator[Family]:
    """The families for a scrape; what the platform does not tell is absent."""
    yield from _bounds(reading)
    yield from _process(reading.process)
    yield gauge(
        "perf_memory_allocated_blocks",
        "Small objects that Python's allocator has given out.",
        [Value(NO_LABELS, reading.blocks)],
        across="each",
    )
    if reading.malloc is not None:
        yield from _one(
            "perf_memory_malloc_used_bytes",
            "Memory that the C library has given out and not got back.",
            reading.malloc.used_bytes,
        )
        yield from _one(
            "perf_memory_malloc_free_bytes",
            "Memory that the C library got back and keeps for later.",
            reading.malloc.free_bytes,
        )
    if reading.group is not None:
        yield from _group(reading.group)
    if reading.pressure is not None:
        yield from _pressure(reading.pressure)
    if reading.system is not None:
        yield from _system(reading.system)
    yield counter(
        "perf_memory_probe_failures",
        "Answers of caches and counters that raised when the memory probe asked them.",
        [Value(NO_LABELS, failures)],
    )


def _one(name: str, help: str, value: int | None, *, across: Across = "each") -> Iterable[Family]:
    if value is not None:
        yield gauge(name, help, [Value(NO_LABELS, value)], unit="bytes", across=across)


def _bounds(reading: MemoryReading) -> Iterator[Family]:
    bounds = tightest_of_each(reading.bounds)
    labels = {name: LabelSet([("bound", name)]) for name in bounds}
    if not bounds:
        return
    yield gauge(
        "perf_memory_bound_used_bytes",
        f"What is used of {_BOUND}.",
        [Value(labels[name], bound.used_bytes) for name, bound in bounds.items()],
        unit="bytes",
        across="max",
    )
    yield gauge(
        "perf_memory_bound_limit_bytes",
        f"How much is allowed by {_BOUND}.",
        [Value(labels[name], bound.limit_bytes) for name, bound in bounds.items()],
        unit="bytes",
        across="max",
    )
    yield gauge(
        "perf_memory_used_share",
        "Used of the tightest limit that holds for this process, from 0 to 1.",
        [Value(NO_LABELS, max(bound.share for bound in bounds.values()))],
        across="max",
    )


def _process(process: ProcessMemory) -> Iterator[Family]:
    kinds = {
        "anonymous": process.anonymous_bytes,
        "file": process.file_bytes,
        "shared": process.shared_bytes,
    }
    points = [
        Value(LabelSet([("kind", kind)]), size) for kind, size in kinds.items() if size is not None
    ]
    if points:
        yield gauge(
            "perf_memory_resident_bytes",
            "Memory of this process that is in RAM: written by itself, mapped files, shared.",
            points,
            unit="bytes",
            across="each",
        )
    yield from _one(
        "perf_memory_peak_bytes",
        "The most memory that this process ever had in RAM.",
        process.peak_bytes,
    )
    yield from _one(
        "perf_memory_swapped_bytes",
        "Memory of this process that was swapped out.",
        process.swapped_bytes,
    )
    yield from _one(
        "perf_memory_proportional_bytes",
        "Memory of this process, pages that n processes share as an n-th (PSS).",
        process.proportional_bytes,
    )
    yield from _one(
        "perf_memory_unique_bytes",
        "Memory that no other process shares (USS): what would be free without this one.",
        process.unique_bytes,
    )


def _group(group: GroupMemory) -> Iterator[Family]:
    for figure, help_text, size in (
        ("usage", "All that the tightest control group is charged for, with its page cache.",
         group.usage_bytes),
        ("max", "From where on the tightest control group's processes are killed.",
         group.max_bytes),
        ("high", "From where on the tightest control group's processes are slowed down.",
         group.high_bytes),
        ("peak", "The most that the tightest control group was ever charged for.",
         group.peak_bytes),
        ("swapped", "What of the tightest control group was swapped out.", group.swap_bytes),
    ):  # fmt: skip
        yield from _one(f"perf_memory_group_{figure}_bytes", help_text, size, across="max")
    if group.events:
        yield Family(
            name="perf_memory_group_events",
            kind="counter",
            help="How often the tightest control group ran into a limit, and lost a process by it.",
            points=[Value(LabelSet([("event", name)]), number) for name, number in group.events],
            across="max",
        )


def _pressure(pressure: Pressure) -> Iterator[Family]:
    kinds = {"some": pressure.some, "full": pressure.full}
    known = [(kind, stalls) for kind, stalls in kinds.items() if stalls is not None]
    yield Family(
        name="perf_memory_pressure_seconds",
        kind="counter",
        help="Time in which some tasks, or all that had work, waited for memory.",
        points=[
            Value(LabelSet([("kind", kind)]), stalls.total_us / US_PER_S) for kind, stalls in known
        ],
        unit="seconds",
        across="max",
    )
    yield gauge(
        "perf_memory_pressure_share",
        "The same as a share of the last 10 and 60 seconds, from 0 to 1.",
        [
            Value(LabelSet([("kind", kind), ("window", window)]), share)
            for kind, stalls in known
            for window, share in (("10s", stalls.share_10s), ("60s", stalls.share_60s))
        ],
        across="max",
    )


def _system(system: SystemMemory) -> Iterator[Family]:
    for figure, help_text, size in (
        ("total", "Memory of the machine.", system.total_bytes),
        ("available", "Memory of the machine that new work may get without swapping.",
         system.available_bytes),
        ("swap_total", "Swap space of the machine.", system.swap_total_bytes),
        ("swap_used", "Swap space of the machine that is used.", system.swap_used_bytes),
    ):  # fmt: skip
        yield from _one(f"perf_memory_system_{figure}_bytes", help_text, size, across="max")


def status_of(reading: MemoryReading) -> dict[str, Any]:
    """The picture as JSON-able values: bytes, microseconds and shares as their names say."""
    tightest = reading.sample.tightest
    picture = asdict(reading)
    del picture["at_us"]  # an arbitrary start: of no use to a reader
    picture["bounds"] = [asdict(bound) | {"share": bound.share} for bound in reading.bounds]
    picture["share"] = reading.sample.share
    picture["tightest"] = None if tightest is None else tightest.name
    if reading.group is not None:
        picture["group"]["events"] = dict(reading.group.events)
    return picture
