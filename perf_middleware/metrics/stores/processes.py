"""What this process can see of itself and of its parent."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

from perf_middleware.metrics.workers.groups import ProcessMark, Surroundings

_PROC = Path("/proc")
_MEMORY = "/dev/shm"  # noqa: S108 - the directories within are checked for their owner
_LAST = "/tmp"  # noqa: S108 - as above


def surroundings(directory: Path | None) -> Surroundings:
    """The process as it is now: ask only in the worker itself, after every fork."""
    spawned_by = multiprocessing.parent_process()
    return Surroundings(
        directory=str(directory) if directory is not None else None,
        spawned_by=mark_of(spawned_by.pid) if spawned_by and spawned_by.pid else None,
        child_of=mark_of(os.getppid()),
        server_software=os.environ.get("SERVER_SOFTWARE", ""),
        uid=os.geteuid(),
        runtime_dir=_runtime_dir(),
    )


def mark_of(pid: int) -> ProcessMark | None:
    """The mark of the process that has `pid` now, None where there is none."""
    start = start_of(pid)
    return None if start is None else ProcessMark(pid, start, _boot(), _namespace())


def start_of(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (Linux) or microseconds (elsewhere)."""
    try:
        # psutil adds the boot time, which moves when the clock is set; the ticks do not.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in b"ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        if (_PROC / "self" / "stat").exists():
            return None
    import psutil

    try:
        return int(psutil.Process(pid).create_time() * 1_000_000)
    except psutil.Error:
        return None


def _runtime_dir() -> str:
    # In memory where there is such a place: on a disk each snapshot would be written out, because
    # file systems flush a file that is renamed over another one.
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), _MEMORY):
        if Path(candidate).is_absolute() and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # nothing can be written anywhere: whoever needs it will say so
        return _LAST


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii")[:8]
    except OSError:
        return "0"


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").stat().st_ino)
    except OSError:
        return "0"
