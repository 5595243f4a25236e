"""How much memory a control group uses and may use, from the texts of its files.

Used is what cannot be taken back: all that the group is charged for (its processes' pages, its
page cache, tmpfs and kernel memory) without what the kernel drops at the limit, before it calls the
OOM killer: page cache that nobody asked for lately (`inactive_file`), and of cache that was
(`active_file`, a file that was read twice; kernel objects of files) all but a hot part.  Without
that part a program's own code and libraries would count as free, and it crawls while they are read
anew.  So the kernel itself counts for MemAvailable: it keeps half of the cache, and no more than a
fixed amount.  The working set of the kubelet keeps all of `active_file`; by that a group of 200 MB
that had read 130 MB twice was 97 % full, and 110 MB more were had at once, measured.

The limit is the smallest one of `memory.max` and `memory.high`, or of v1's limit and what its limit
on memory and swap together leaves beside what was swapped out.  Above `memory.high` nobody is
killed, but each process of the group that asks for memory is put to sleep until some was taken
back: a server is then alive and answers nobody, so it counts as the end as well.

"max" and the huge numbers of v1 are no limit; nor is 0, by which operators only ask the kernel to
take back what it can.
Sources: Linux Documentation/admin-guide/cgroup-v2.rst (Memory), cgroup-v1/memory.rst,
filesystems/proc.rst (MemAvailable).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from perf_middleware.memory_watch.proc_texts import count, counts, whole
from perf_middleware.memory_watch.reading import GroupMemory

if TYPE_CHECKING:
    from perf_middleware.control_groups import Group, Version

CONTROLLER: Final = "memory"
# v1 says 2**63 less a page where there is no limit; no machine has an exbibyte.
NO_LIMIT_BYTES: Final = 1 << 60
HOT_PART: Final = 16  # of the usage, which warm cache that is needed again at once is at most

Texts: TypeAlias = Mapping[str, str]
"""Texts of a group by file name; a file that is not there is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The names that one version gives to the same figures; None is what it does not have."""

    usage: str
    limit: str
    peak: str
    stat: str
    idle_cache: str  # a line of `stat`, as those below
    warm_caches: tuple[str, ...]
    above_limit: str | None
    above_both_limit: str | None
    swapped: str | None
    both_limit: str | None  # of memory and swap together
    high: str | None
    swap: str | None
    swap_limit: str | None
    events: Mapping[str, tuple[str, str | None]]  # event -> file, its line or None for all of it
    pressure: str | None

    def all_names(self) -> tuple[str, ...]:
        """Every file to read for the whole picture, each once."""
        names = (self.usage, self.limit, self.high, self.both_limit, self.peak, self.stat,
                 self.swap, self.swap_limit, *(at for at, _ in self.events.values()))  # fmt: skip
        return tuple(dict.fromkeys(name for name in names if name is not None))


FILES: Final[Mapping[Version, Files]] = {
    2: Files(
        usage="memory.current", limit="memory.max", high="memory.high", peak="memory.peak",
        stat="memory.stat", idle_cache="inactive_file",
        warm_caches=("active_file", "slab_reclaimable"),
        above_limit=None, above_both_limit=None, both_limit=None, swapped=None,
        swap="memory.swap.current", swap_limit="memory.swap.max",
        events={name: ("memory.events", name) for name in ("high", "max", "oom", "oom_kill")},
        pressure="memory.pressure",
    ),
    # A v1 group counts what is below it in the lines `total_…` alone.
    1: Files(
        usage="memory.usage_in_bytes", limit="memory.limit_in_bytes", high=None,
        peak="memory.max_usage_in_bytes", stat="memory.stat", idle_cache="total_inactive_file",
        warm_caches=("total_active_file",),
        above_limit="hierarchical_memory_limit", above_both_limit="hierarchical_memsw_limit",
        both_limit="memory.memsw.limit_in_bytes", swapped="total_swap", swap=None, swap_limit=None,
        events={
            "max": ("memory.failcnt", None), "oom_kill": ("memory.oom_control", "oom_kill"),
        },
        pressure=None,
    ),
}  # fmt: skip


def limit_bytes(text: str) -> int | None:
    """The limit that a file holds; None for no limit or another text."""
    limit = whole(text)
    return limit if limit is not None and 0 < limit < NO_LIMIT_BYTES else None


def group_limit_bytes(version: Version, texts: Texts, *, is_top: bool) -> int | None:
    """What the group may use, or None for no limit; `is_top`: no group above it can be seen.

    In a container of v1 the top tells of limits above it, which hold as well.
    """
    files = FILES[version]
    stat = texts.get(files.stat, "")
    limits = [limit_bytes(texts.get(files.limit, ""))]
    both = [limit_bytes(texts.get(files.both_limit or "", ""))]
    if files.high is not None:
        limits.append(limit_bytes(texts.get(files.high, "")))
    if is_top and files.above_limit is not None and files.above_both_limit is not None:
        limits.append(limit_bytes(str(count(stat, files.above_limit))))
        both.append(limit_bytes(str(count(stat, files.above_both_limit))))
    # What was swapped out counts against the limit of both still, and leaves less to memory.
    swapped = 0 if files.swapped is None else count(stat, files.swapped) or 0
    limits += [max(1, limit - swapped) for limit in both if limit is not None]
    return min((limit for limit in limits if limit is not None), default=None)


def used_bytes(version: Version, usage_text: str, stat_text: str) -> int | None:
    """What of the group's memory cannot be taken back; None where it does not tell."""
    usage = whole(usage_text)
    if usage is None:
        return None
    files = FILES[version]
    warm = sum(count(stat_text, line) or 0 for line in files.warm_caches)
    hot = min((warm + 1) // 2, usage // HOT_PART)
    # Both files are read one after the other: the cache may have grown in between.
    return max(0, usage - (count(stat_text, files.idle_cache) or 0) - (warm - hot))


def group_memory(group: Group, texts: Texts, *, is_top: bool) -> GroupMemory | None:
    """All that the files tell of the group; None where they do not tell its usage."""
    files = FILES[group.version]

    def text(name: str | None) -> str:
        return "" if name is None else texts.get(name, "")

    usage = whole(text(files.usage))
    used = used_bytes(group.version, text(files.usage), text(files.stat))
    if usage is None or used is None:
        return None
    swap = whole(text(files.swap))
    if swap is None and files.swapped is not None:
        swap = count(text(files.stat), files.swapped)
    return GroupMemory(
        version=group.version,
        path=group.path,
        usage_bytes=usage,
        used_bytes=used,
        limit_bytes=group_limit_bytes(group.version, texts, is_top=is_top),
        max_bytes=limit_bytes(text(files.limit)),
        high_bytes=limit_bytes(text(files.high)),
        peak_bytes=whole(text(files.peak)),
        swap_bytes=swap,
        swap_limit_bytes=_swap_limit_bytes(text(files.swap_limit)),
        events=_events(files, texts),
    )


def _swap_limit_bytes(text: str) -> int | None:
    limit = whole(text)  # 0 is a limit here: nothing is swapped
    return limit if limit is not None and limit < NO_LIMIT_BYTES else None


def _events(files: Files, texts: Texts) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for event, (file, line) in files.events.items():
        text = texts.get(file, "")
        number = whole(text) if line is None else counts(text).get(line)
        if number is not None:
            found.append((event, number))
    return tuple(found)
