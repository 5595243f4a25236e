r"""Which lines of code hold more and more memory: what tracemalloc saw, as values.

    tracing on         middle             end      alive = allocated since `on`, not freed yet
        |--- first half ---|--- second half ---|
    a leak       +500 kB          +500 kB          steady: it comes first
    in flight    +500 kB            +0 kB          requests that were running when it was looked
    a burst        +0 kB          +500 kB          something loaded once

A site is named by the app's own line nearest to the allocation, as the author can change that one:
`json.loads` allocates in json/decoder.py, and what is kept is kept by whoever called it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from perf_middleware.code_roots import INSTALLED_UNDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf_middleware.code_roots import CodeRoots
    from perf_middleware.memory_watch.tracing.counts import GrownContainer

Frames: TypeAlias = tuple[tuple[str, int], ...]
"""File and line of an allocation and of its callers, the innermost first."""

Alive: TypeAlias = Mapping[Frames, tuple[int, int]]
"""Bytes and number of the blocks that are alive, by where they were allocated."""

STEADY_COUNT_MIN: Final = 8  # fewer blocks are chance: three and one are no trend
STEADY_RATIO_MAX: Final = 2.0
STACK_LINES_MAX: Final = 8
# The import system allocates what a module is; a lookup of source lines is a debugger's.
NEVER_GUILTY: Final = ("<frozen importlib", "<frozen zipimport")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingSite:
    """One line of code, and what it allocated while it was traced and had not freed at the end.

    `where` is "path/to/file.py:123"; `allocated_at` the line that allocated most of it, the same
    where the app's own line did.  `is_steady` says whether both halves of the time grew about
    alike, None where that cannot be told; `sure_bytes_per_s` is the rate of the slower half: what
    is merely alive when one looks, as a list that each request makes anew, has none.  `stack` leads
    from the allocation outwards.  `is_own`: the line is the app's own, and not the library's that
    allocated for it.
    """

    where: str
    bytes: int
    count: int
    bytes_per_s: float
    sure_bytes_per_s: float
    is_steady: bool | None = None
    allocated_at: str = ""
    stack: tuple[str, ...] = ()
    is_own: bool = False

    def __str__(self) -> str:
        steady = {True: ", steadily", False: ", not steadily", None: ""}[self.is_steady]
        through = f" (through {self.allocated_at})" if self.allocated_at != self.where else ""
        return (
            f"{self.where}{through}: {self.bytes_per_s:+,.0f} bytes/s{steady}, "
            f"{self.bytes:,} bytes in {self.count:,} blocks"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReport:
    """What one trace saw, the site that grew most and steadily first.

    `bytes` and `count` are those of all sites.  `held_s` is the longest time that a snapshot kept
    every thread from running.  `ended_early` is a sentence, empty where the time was used.
    `was_on` says that tracing was on before, for which reason frees of older blocks count too.
    """

    seconds: float
    sites: tuple[GrowingSite, ...] = ()
    bytes: int = 0
    count: int = 0
    frames: int = 1
    held_s: float = 0.0
    ended_early: str = ""
    was_on: bool = False
    containers: tuple[GrownContainer, ...] = ()

    def __str__(self) -> str:
        early = f"; ended early: {self.ended_early}" if self.ended_early else ""
        grown = f"{self.bytes:,} bytes more in {self.count:,} blocks"
        lines = [f"traced for {self.seconds:.1f} s: {grown}{early}"]
        lines += [f"  {site}" for site in self.sites]
        lines += [f"  {container}" for container in self.containers]
        return "\n".join(lines)


@dataclass(slots=True)
class _Group:
    """What is named alike: its bytes and blocks in each half, and its largest allocation."""

    first_bytes: int = 0
    second_bytes: int = 0
    count: int = 0
    most_bytes: int = 0
    frames: Frames = ()
    is_own: bool = False


def growing_sites(
    begin: Alive,
    middle: Alive | None,
    end: Alive,
    *,
    halves_s: tuple[float, float],
    roots: CodeRoots,
    ignored: Sequence[str] = (),
    sites_max: int,
) -> tuple[tuple[GrowingSite, ...], int, int]:
    """The sites that grew between `begin` and `end`, and the bytes and blocks of all of them.

    `ignored` are beginnings of file names: what was allocated below one of them is left out.
    Without `middle` nothing is said about steadiness, and the larger site comes first.
    """
    groups: dict[str, _Group] = {}
    grown_bytes = grown_count = 0
    for frames, first, second, count in _grown(begin, middle, end):
        if not frames or _is_ignored(frames, ignored):
            continue
        grown_bytes += first + second
        grown_count += count
        named = named_frame(frames, roots)
        group = groups.setdefault(_line(*named, roots), _Group())
        group.is_own = roots.role_of(named[0]) == "own"
        group.first_bytes += first
        group.second_bytes += second
        group.count += count
        if first + second > group.most_bytes:
            group.most_bytes, group.frames = first + second, frames
    seconds = max(sum(halves_s), 1e-6)
    ranked = sorted(
        (
            (_sure_bytes(group, halves_s, told=middle is not None), where, group)
            for where, group in groups.items()
            if group.first_bytes + group.second_bytes > 0 and group.count > 0
        ),
        key=lambda row: (-row[0], -(row[2].first_bytes + row[2].second_bytes), row[1]),
    )
    sites = tuple(
        GrowingSite(
            where=where,
            bytes=group.first_bytes + group.second_bytes,
            count=group.count,
            bytes_per_s=(group.first_bytes + group.second_bytes) / seconds,
            sure_bytes_per_s=sure_bytes / seconds,
            is_steady=_is_steady(group, halves_s) if middle is not None else None,
            allocated_at=_line(*group.frames[0], roots),
            stack=tuple(_line(*frame, roots) for frame in group.frames[:STACK_LINES_MAX]),
            is_own=group.is_own,
        )
        for sure_bytes, where, group in ranked[:sites_max]
    )
    return sites, grown_bytes, grown_count


def named_frame(frames: Frames, roots: CodeRoots) -> tuple[str, int]:
    """The frame that names an allocation: the app's own nearest to it, else what allocated."""
    return next((frame for frame in frames if roots.role_of(frame[0]) == "own"), frames[0])


def short_path(file: str, roots: CodeRoots) -> str:
    """`file` from the innermost known directory on, with `/` between names."""
    file = file.replace("\\", "/")
    for marker in INSTALLED_UNDER:
        _, found, rest = file.rpartition(marker)
        if found and rest:
            return rest
    known = (*roots.own, *roots.projects, *roots.machinery)
    length = max((len(root) for root in known if file.startswith(root)), default=0)
    return file[length:] or file


def _line(file: str, number: int, roots: CodeRoots) -> str:
    # A name that is no UTF-8 is decoded to what no JSON may hold (surrogateescape).
    readable = short_path(file, roots).encode("utf-8", "backslashreplace").decode()
    return f"{readable}:{number}"


def _grown(
    begin: Alive, middle: Alive | None, end: Alive
) -> Iterator[tuple[Frames, int, int, int]]:
    """Frames with the bytes of both halves and the number of blocks; also what became less."""
    nothing = (0, 0)
    for frames in begin.keys() | end.keys():
        before_bytes, before_count = begin.get(frames, nothing)
        after_bytes, after_count = end.get(frames, nothing)
        between = before_bytes if middle is None else middle.get(frames, nothing)[0]
        count = after_count - before_count
        if after_bytes != before_bytes or count:
            yield frames, between - before_bytes, after_bytes - between, count


def _is_ignored(frames: Frames, ignored: Sequence[str]) -> bool:
    beginnings = tuple(ignored)
    return frames[0][0].startswith(NEVER_GUILTY) or any(
        file.replace("\\", "/").startswith(beginnings) for file, _ in frames
    )


def _sure_bytes(group: _Group, halves_s: tuple[float, float], *, told: bool) -> float:
    """Bytes that grew at the slower rate of both halves, over all the time."""
    if not told:
        return group.first_bytes + group.second_bytes
    return max(0.0, min(_rates(group, halves_s))) * sum(halves_s)


def _is_steady(group: _Group, halves_s: tuple[float, float]) -> bool | None:
    if group.count < STEADY_COUNT_MIN:
        return None
    slower, faster = sorted(_rates(group, halves_s))
    return slower > 0 and faster <= slower * STEADY_RATIO_MAX


def _rates(group: _Group, halves_s: tuple[float, float]) -> tuple[float, float]:
    first_s, second_s = halves_s
    return group.first_bytes / max(first_s, 1e-6), group.second_bytes / max(second_s, 1e-6)
