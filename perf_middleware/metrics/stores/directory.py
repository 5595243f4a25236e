"""The exchange directory: a file per worker, one for all dead workers, locks held by the kernel.

    4711-9f86d081884c7d65.snap   figures of worker 4711; replaced by rename, never seen half written
    retired                      figures of dead workers, and the names of the workers within it

Who lives is no question of pids: a worker keeps an exclusive flock on its file as long as it lives,
and the kernel lets go of it however the worker ends.  Whoever gets a shared lock on the file knows
that its owner is gone, in whatever pid namespace it was, and no reused pid can pass for it.

Figures move from a file into `retired` under an exclusive lock of the directory itself:

    1. a new `retired`, with the figures and the name, is renamed into place
    2. the file is removed

A crash before 1 changes nothing; after 1 the file's name is in `retired`, so that readers leave the
file out and the next fold removes it.  Readers take no lock: they read the files first, `retired`
last, and begin again when a file they have read is gone without its name being there.

Calls block on the file system: make them in a thread.  They raise OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.metrics.workers.snapshot import PREAMBLE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.metrics.workers.groups import Place

RETIRED = "retired"
MEMBERS_MAX = 1_024
SNAPSHOT_BYTES_MAX = 64 * 1024 * 1024
LITTER_AFTER_S = 60.0  # a temporary file this old belongs to a write that was cut off

_MEMBER = re.compile(r"([0-9]{1,10})-[0-9a-f]{16}\.snap")
_TEMPORARY = re.compile(r"(?:[0-9]{1,10}-[0-9a-f]{16}\.snap|retired)\.tmp")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Member:
    """A worker's file: `worker` is its pid, `data` its snapshot where it was read."""

    name: str
    worker: str
    alive: bool
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Look:
    """Who is there beside this worker; `litter` is what cut-off writes have left."""

    alive: tuple[str, ...]
    dead: tuple[str, ...]
    litter: tuple[str, ...]


class SnapshotDirectory:
    """One worker's door to the directory of its group."""

    def __init__(self, place: Place) -> None:
        """Open the directory, creating what is missing.

        Raises PermissionError where it is a symbolic link, somebody else's or writable for others.
        """
        self.name = f"{os.getpid()}-{secrets.token_hex(8)}.snap"
        self._own: int | None = None
        self._next: int | None = None  # what is being published, on its way to be `_own`
        self._lock: int | None = None
        # A cancelled caller does not stop the thread that works for it: the next call waits.
        self._using = threading.Lock()
        base = _open_directory(place.base, None, private=place.private_base)
        try:
            self._fd = _open_directory(place.name, base, private=True)
        finally:
            os.close(base)
        if hasattr(os, "register_at_fork"):
            # A child inherits the locks with the descriptors: it would keep its dead parent alive.
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _let_go(this()))

    def close(self) -> None:
        """Let go of the own file, which stays, and of the directory."""
        with self._using:
            self.leave()
            self.unlock()
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1  # a call that comes too late fails, and hits nobody else's descriptor

    def leave(self) -> None:
        """Declare the own file abandoned: from now on anybody may fold it."""
        fd, self._own = self._own, None
        _release(fd)

    def let_go(self) -> None:
        """In a forked child: close what holds locks, which stay the parent's."""
        for fd in {self._own, self._next, self._lock}:
            if fd is not None:
                os.close(fd)
        self._own = self._next = self._lock = None

    def publish(self, data: bytes) -> None:
        """Make `data` the own snapshot.  Readers see the one before it or all of this one."""
        temporary = f"{self.name}.tmp"
        with self._using:
            self._next = self._create(temporary, data)
            try:
                self._fill(self._next, temporary, data)
                fcntl.flock(self._next, fcntl.LOCK_EX)
                os.rename(temporary, self.name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                fd, self._next = self._next, None
                _release(fd)
                raise
            # Only now: the name has had an owner all the time.
            self.leave()
            self._own, self._next = self._next, None

    def look(self) -> Look:
        """Who is there, without reading any figures."""
        with self._using:
            temporary = [name for name in self._names() if _TEMPORARY.fullmatch(name)]
            litter = tuple(name for name in temporary if self._age_s(name) > LITTER_AFTER_S)
            found = [m for n in self._members() if (m := self._member(n, read=False)) is not None]
        alive = tuple(member.name for member in found if member.alive)
        dead = tuple(member.name for member in found if not member.alive)
        return Look(alive, dead, litter)

    def read(self) -> tuple[list[Member], bytes]:
        """The snapshots of all others and `retired` (empty for none), fitting together.

        A worker whose name is in `retired` may still be among the members: leave it out.
        """
        with self._using:
            for _ in range(3):  # only a fold within these very microseconds makes a second turn
                members = [m for name in self._members() if (m := self._member(name)) is not None]
                retired = self.read_retired()
                if all(self._exists(m.name) or m.name.encode() in retired for m in members):
                    break
        return members, retired

    def read_dead(self, names: Iterable[str]) -> list[Member]:
        """The snapshots of those among `names` who are there and dead; only with the lock."""
        members = [member for name in names if (member := self._member(name)) is not None]
        return [member for member in members if not member.alive]

    def read_retired(self, bytes_max: int = SNAPSHOT_BYTES_MAX) -> bytes:
        """The figures of dead workers, empty where no worker has died."""
        try:
            fd = os.open(RETIRED, _OPEN_FILE, dir_fd=self._fd)
        except FileNotFoundError:
            return b""
        try:
            return _read_all(fd, bytes_max)
        finally:
            os.close(fd)

    def read_retired_preamble(self) -> bytes:
        """The first bytes of `retired`: enough for the epoch."""
        return self.read_retired(PREAMBLE_BYTES)

    def try_lock(self) -> bool:
        """Take the right to fold, unless another one has it.  Never blocks: no thread is needed."""
        if self._lock is not None:
            return False
        fd = os.open(".", _OPEN_DIRECTORY, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._lock = fd
        return True

    def unlock(self) -> None:
        """Give the right to fold back; does nothing without it."""
        fd, self._lock = self._lock, None
        _release(fd)

    def replace_retired(self, data: bytes) -> None:
        """Make `data` the figures of the dead; only with the lock."""
        temporary = f"{RETIRED}.tmp"
        fd = self._create(temporary, data)
        try:
            self._fill(fd, temporary, data)
        finally:
            os.close(fd)
        os.rename(temporary, RETIRED, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, names: tuple[str, ...]) -> None:
        """Remove files of dead workers and what they left half written; only with the lock."""
        for name in names:
            for file in (name, f"{name}.tmp"):
                try:
                    os.unlink(file, dir_fd=self._fd)
                except FileNotFoundError:
                    continue

    def _create(self, name: str, data: bytes) -> int:
        """A new empty file for `data`, open."""
        if len(data) > SNAPSHOT_BYTES_MAX:
            raise OSError(errno.EFBIG, f"a snapshot of {len(data)} bytes")
        self.remove((name,))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._fd)

    def _fill(self, fd: int, name: str, data: bytes) -> None:
        """Write `data`; the file is removed where that fails."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except BaseException:
            self.remove((name,))
            raise

    def _names(self) -> list[str]:
        """The names of all snapshots but the own one, in an order that does not change."""
        names = sorted(os.listdir(self._fd))  # noqa: PTH208 - a descriptor
        ours = [n for n in names if _MEMBER.fullmatch(n) or _TEMPORARY.fullmatch(n)]
        return [n for n in ours if not n.startswith(self.name)][: 2 * MEMBERS_MAX]

    def _members(self) -> list[str]:
        # A listing may name the temporary file alone where a rename falls into it: the snapshot it
        # becomes is meant as well, and one that is not there is passed over when it is opened.
        members = {name.removesuffix(".tmp") for name in self._names()}
        return sorted(members - {RETIRED})[:MEMBERS_MAX]

    def _member(self, name: str, *, read: bool = True) -> Member | None:
        match = _MEMBER.fullmatch(name)
        if match is None:
            return None
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        try:
            alive = not _has_no_owner(fd)
            data = _read_all(fd, SNAPSHOT_BYTES_MAX) if read else b""
            if not alive and not self._is(name, fd):
                # Replaced between open and lock: the owner lives, and what we hold was its word
                # a moment ago.
                alive = self._exists(name)
        finally:
            os.close(fd)
        return Member(name, match[1], alive, data)

    def _is(self, name: str, fd: int) -> bool:
        try:
            now, held = os.stat(name, dir_fd=self._fd, follow_symlinks=False), os.fstat(fd)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _age_s(self, name: str) -> float:
        try:
            modified_s = os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return 0.0
        return time.time() - modified_s


def _let_go(directory: SnapshotDirectory | None) -> None:
    if directory is not None:
        directory.let_go()


def _release(fd: int | None) -> None:
    """Unlock and close.  The lock ends even where a child of just this moment has the descriptor
    as well: it belongs to the open file, which closing alone would leave to the child.
    """
    if fd is not None:
        try:
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)


def _has_no_owner(fd: int) -> bool:
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_directory(path: str, parent: int | None, *, private: bool) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=parent)
    flags = _OPEN_DIRECTORY if private else _OPEN_DIRECTORY & ~os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise PermissionError(errno.EACCES, "not a directory of its own", path) from error
        raise
    status = os.fstat(fd)
    if private and status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(errno.EACCES, "belongs to another user", path)
    if private and stat.S_IMODE(status.st_mode) & 0o022:
        os.close(fd)
        raise PermissionError(errno.EACCES, "is writable for other users", path)
    return fd


def _read_all(fd: int, bytes_max: int) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return b""
    parts = []
    while bytes_max > 0 and (part := os.read(fd, min(bytes_max, 1 << 20))):
        parts.append(part)
        bytes_max -= len(part)
    return b"".join(parts)
