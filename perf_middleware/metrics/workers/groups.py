"""Which worker processes belong together, and where they meet, decided from what one of them sees.

First match wins: a directory named by the operator; the process that spawned this one through
`multiprocessing` (uvicorn, hypercorn, granian); the arbiter that forked it (gunicorn marks its
workers' environment with SERVER_SOFTWARE).  Otherwise the process is alone.

A group is named after its parent: pid, start time, boot and pid namespace, because a pid comes
back, and means nothing in another container.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.metrics.workers.snapshot import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_CHARS_MAX = 64
UNTOUCHED_MAX_S = (
    86_400.0  # a directory whose parent cannot be judged from here is litter after a day
)

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_MARK = re.compile(r"-([0-9]{1,10})-([0-9]{1,20})-([0-9a-f]{1,16})-([0-9a-z]{1,20})\.v[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process, never taken for another: `start` in the system's own ticks."""

    pid: int
    start: int
    boot: str
    namespace: str

    @property
    def text(self) -> str:
        return f"{self.pid}-{self.start}-{self.boot}-{self.namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a process sees of itself at start."""

    directory: str | None = None
    spawned_by: ProcessMark | None = None
    child_of: ProcessMark | None = None
    server_software: str = ""
    uid: int = 0
    runtime_dir: str = "/tmp"  # noqa: S108 - the directories within are checked for their owner


@dataclass(frozen=True, slots=True)
class Place:
    """The group's directory is `name` within `base`; `base` is ours alone, or the operator's."""

    base: str
    name: str
    private_base: bool


def place_of(surroundings: Surroundings, *, service: str) -> Place | None:
    """Where the workers of `service` meet, or None for a process that has no siblings."""
    label = file_name_of(service)
    if surroundings.directory is not None:
        return Place(surroundings.directory, f"{label}.v{VERSION}", private_base=False)
    parent = surroundings.spawned_by
    if parent is None and surroundings.server_software.startswith("gunicorn"):
        parent = surroundings.child_of
    if parent is None:
        return None
    base = f"{surroundings.runtime_dir}/perf_middleware-{surroundings.uid}"
    # The version in the name keeps releases with different snapshots out of each other's files.
    return Place(base, f"{label}-{parent.text}.v{VERSION}", private_base=True)


def worker_names(pids: Mapping[str, str]) -> dict[str, str]:
    """What the worker of each file is called: its pid, or where two have one, its file's name.

    Containers that share a directory all begin their pids at 1.
    """
    alike = Counter(pids.values())
    return {
        file: pid if alike[pid] == 1 else file.removesuffix(".snap") for file, pid in pids.items()
    }


def file_name_of(service: str) -> str:
    """`service` where it may stand in a file name, else its safe letters and a hash of all."""
    safe = _UNSAFE.sub("_", service)[:SERVICE_CHARS_MAX].lstrip(".")
    if safe and safe == service:
        return safe
    digest = hashlib.sha256(service.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{safe}_{digest}"


def parent_of(name: str) -> ProcessMark | None:
    """The parent after which a group's directory is named, None for any other name."""
    match = re.search(_MARK.pattern + r"\Z", name)
    if match is None:
        return None
    return ProcessMark(int(match[1]), int(match[2]), match[3], match[4])


def is_over(
    parent: ProcessMark, *, here: ProcessMark, start_now: int | None, untouched_s: float
) -> bool:
    """Whether a group without a living worker has ended, seen from the process `here`.

    `start_now` is the start time of the process that has the parent's pid now, None for none.
    """
    if parent.boot != here.boot:
        return True
    if parent.namespace != here.namespace:
        return untouched_s > UNTOUCHED_MAX_S  # its pids mean nothing here
    return start_now != parent.start
