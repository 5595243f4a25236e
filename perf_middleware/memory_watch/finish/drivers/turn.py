"""Whose turn it is to finish: one worker of a service on this host, then a pause.

    <directory>/<service>.turn     "1234567890"  when the last one was asked to end, microseconds

The turn is an exclusive flock on that file.  It is never given back by hand: the kernel does that
when the worker is gone, however it ended.  Who waits for it sees it held until then, so the pause
counts from the end for him, and for a worker that comes later from the time in the file.

Times are of the monotonic clock, which all processes of a host share (CLOCK_MONOTONIC on Linux).
Calls are short (open, flock, read) and may raise OSError.
"""

from __future__ import annotations

import os
import stat
import tempfile
import weakref
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from perf_middleware.memory_watch.finishing import gap_left_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.memory_watch.finishing import Reason

TIME_CHARS_MAX: Final = 32
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - the directory within is checked for its owner
_O_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_O_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_O_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)


class Turn(Protocol):
    """Who may finish now."""

    def take(self, now_us: int) -> Reason | None:
        """None: it is this worker's turn until it is gone.  Else why it is not."""

    def give_back(self) -> None:
        """The worker goes on after all."""


def turn_of(service: str, *, directory: str | os.PathLike[str] | None, gap_us: int) -> Turn:
    """The turn of the workers of `service`; without a directory, in one of this user's own."""
    try:
        import fcntl  # noqa: F401 - is it there?
    except ImportError:  # Windows
        return DrawnTurn(gap_us=gap_us)
    place = None if directory is None else Path(directory)
    return LockedTurn(service, directory=place, gap_us=gap_us)


class LockedTurn:
    """A lock of the kernel's on a file of the service."""

    def __init__(self, service: str, *, directory: Path | None, gap_us: int) -> None:
        self._directory = directory
        self._name = file_name_of(service)
        self._gap_us = gap_us
        self._fd: int | None = None
        self._held_us: int | None = None  # when somebody else was last seen to have it

    def take(self, now_us: int) -> Reason | None:
        """Raises OSError where the file cannot be used, PermissionError where it is not ours."""
        import fcntl

        if self._fd is not None:
            return None
        fd = _open_own(self._path())
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._held_us = now_us
                return "turn"
            for ended_us in (_read_time(fd), self._held_us):
                if gap_left_us(now_us=now_us, ended_us=ended_us, gap_us=self._gap_us):
                    return "gap"
            _write_time(fd, now_us)
            self._keep(fd)
            fd = -1
            return None
        finally:
            if fd >= 0:
                os.close(fd)

    def give_back(self) -> None:
        import fcntl

        fd, self._fd = self._fd, None
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _keep(self, fd: int) -> None:
        self._fd = fd
        if hasattr(os, "register_at_fork"):
            # A child inherits the lock with the descriptor: it would finish for its dead parent.
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _let_go(this()))

    def let_go(self) -> None:
        """In a forked child: the lock stays the parent's."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _path(self) -> Path:
        if self._directory is not None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._directory / self._name
        base = own_directory()
        base.mkdir(mode=0o700, exist_ok=True)
        status = base.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(f"{base} is not a directory of this user's own")
        if stat.S_IMODE(status.st_mode) & 0o022:
            raise PermissionError(f"{base} is writable for other users")
        return base / self._name


class DrawnTurn:
    """Where no lock frees itself (Windows): each worker waits for a time that it has drawn.

    Two may finish at once, which a longer gap makes less likely.
    """

    def __init__(self, *, gap_us: int, random: Callable[[], float] | None = None) -> None:
        self._gap_us = gap_us
        self._random = Random().random if random is None else random  # noqa: S311 - no secret
        self._due_us: int | None = None

    def take(self, now_us: int) -> Reason | None:
        if self._due_us is None:
            self._due_us = now_us + int(self._random() * self._gap_us)
        return None if now_us >= self._due_us else "gap"

    def give_back(self) -> None:
        self._due_us = None


def own_directory() -> Path:
    """Where this user's workers meet on this host; in a container, in this one."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), _SHARED_MEMORY):
        if Path(candidate).is_absolute() and os.access(candidate, os.W_OK | os.X_OK):
            return Path(candidate, f"perf_middleware-{os.geteuid()}")
    return Path(tempfile.gettempdir(), f"perf_middleware-{os.geteuid()}")


def file_name_of(service: str) -> str:
    """`service` where it may be a file's name, else its letters that may and a hash of all."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in service)[:64]
    if safe != service or not safe:
        safe = f"{safe}_{sha256(service.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return f"{safe}.turn"


def _open_own(path: Path) -> int:
    """A plain file of this user's, made where it is missing; nobody's link is followed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | _O_NOFOLLOW | _O_CLOEXEC | _O_NONBLOCK, 0o600)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(f"{path} is not a file of this user's own")
    return fd


def _read_time(fd: int) -> int | None:
    text = os.pread(fd, TIME_CHARS_MAX, 0).strip()
    return int(text) if text.isdigit() else None


def _write_time(fd: int, now_us: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(now_us).encode(), 0)


def _let_go(turn: LockedTurn | None) -> None:
    if turn is not None:
        turn.let_go()
