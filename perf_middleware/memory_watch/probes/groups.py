"""The control groups of this process: found anew every few seconds, used memory at each look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.control_groups import Group, groups
from perf_middleware.memory_watch.control_groups import (
    CONTROLLER,
    FILES,
    group_limit_bytes,
    group_memory,
    used_bytes,
)
from perf_middleware.memory_watch.probes.files import read_text
from perf_middleware.memory_watch.proc_texts import pressure
from perf_middleware.memory_watch.reading import Bound

if TYPE_CHECKING:
    from perf_middleware.memory_watch.reading import GroupMemory, Pressure

CGROUP_OF_SELF = "/proc/self/cgroup"
MOUNTS_OF_SELF = "/proc/self/mountinfo"
PRESSURE_OF_SYSTEM = "/proc/pressure/memory"


@dataclass(frozen=True, slots=True)
class _Watched:
    """A group whose files are there."""

    group: Group
    limit_bytes: int | None
    usage_file: str
    stat_file: str
    is_top: bool


class ControlGroups:
    """Every memory control group that holds this process; `root` stands before each path.

    Its methods raise NoDescriptorLeftError.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._watched: tuple[_Watched, ...] = ()
        self._pressures: tuple[Group, ...] = ()

    def find(self) -> None:
        """Find the groups and their limits: both may change while the process runs."""
        root = self._root
        texts = (read_text(root + CGROUP_OF_SELF), read_text(root + MOUNTS_OF_SELF))
        places = groups(*texts, CONTROLLER)
        there: dict[tuple[int, str], Group] = {}  # a tree may be mounted twice
        for group in places:
            if read_text(f"{root}{group.directory}/{FILES[group.version].usage}"):
                there.setdefault((group.version, group.path), group)
        last = len(there) - 1
        self._watched = tuple(
            self._watch(group, is_top=at == last) for at, group in enumerate(there.values())
        )
        # Version 2 measures pressure also where version 1 has the limits.
        self._pressures = tuple(group for group in places if group.version == 2)

    def _watch(self, group: Group, *, is_top: bool) -> _Watched:
        files = FILES[group.version]
        directory = f"{self._root}{group.directory}/"
        names = [name for name in (files.limit, files.high, files.both_limit) if name is not None]
        if files.both_limit is not None:  # v1: what was swapped out, and limits above the top
            names.append(files.stat)
        texts = {name: read_text(directory + name) for name in names}
        return _Watched(
            group=group,
            limit_bytes=group_limit_bytes(group.version, texts, is_top=is_top),
            usage_file=directory + files.usage,
            stat_file=directory + files.stat,
            is_top=is_top,
        )

    def bounds(self) -> list[Bound]:
        """Each group with a limit, own group first; one whose files have gone is left out."""
        return [
            Bound(
                name="cgroup",
                used_bytes=used,
                limit_bytes=watched.limit_bytes,
                where=watched.group.path,
            )
            for watched in self._watched
            if watched.limit_bytes is not None and (used := _used(watched)) is not None
        ]

    def tightest(self) -> GroupMemory | None:
        """All figures of the group with the tightest limit; of the own one where none has any."""
        watched = self._tightest()
        if watched is None:
            return None
        directory = f"{self._root}{watched.group.directory}/"
        names = FILES[watched.group.version].all_names()
        texts = {name: read_text(directory + name) for name in names}
        return group_memory(watched.group, texts, is_top=watched.is_top)

    def _tightest(self) -> _Watched | None:
        shares = {
            watched: used / watched.limit_bytes
            for watched in self._watched
            if watched.limit_bytes is not None and (used := _used(watched)) is not None
        }
        if shares:
            return max(shares, key=lambda watched: shares[watched])
        return self._watched[0] if self._watched else None

    def pressure(self) -> Pressure | None:
        """Pressure on the tightest group; else on the own group of version 2, else the system's."""
        tightest = self._tightest()
        first = [tightest.group] if tightest is not None and tightest.group.version == 2 else []
        for group in (*first, *self._pressures):
            name = FILES[group.version].pressure
            text = read_text(f"{self._root}{group.directory}/{name}")
            found = pressure(text, where=group.path)
            if found is not None:
                return found
        return pressure(read_text(self._root + PRESSURE_OF_SYSTEM), where="")


def _used(watched: _Watched) -> int | None:
    usage = read_text(watched.usage_file)
    return used_bytes(watched.group.version, usage, read_text(watched.stat_file)) if usage else None
