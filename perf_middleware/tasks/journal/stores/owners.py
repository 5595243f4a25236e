"""Who owns entries, and whether they live: each owner keeps a lock on a file of its own.

    tasks.db   tasks.db-owner-9f86d081884c7d65   tasks.db-owner-1b4f0e9851971998

The kernel lets go of an flock however the process ends, and keeps it however long the process is
paused: no pid that was given again passes for its owner, no lease runs out, and containers that
share the file's folder see each other.

Calls are short and may raise OSError.
"""

from __future__ import annotations

import os
import re
import secrets
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK: Final = "-owner-"
TOKEN_BYTES: Final = 8
TOKEN: Final = re.compile(f"[0-9a-f]{{{2 * TOKEN_BYTES}}}")
TRIES_MAX: Final = 10
SETUP_S: Final = 10.0  # how long another process may look through the file as it opens it
SETUP_LOOK_S: Final = 0.02


class Owner:
    """One owner: `token` is what its entries name it by, from `take` until `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._file = path
        self._known: os.stat_result
        self.token = ""

    def take(self) -> str:
        """A token that nobody else has, locked.  Raises OSError."""
        return self._lock(None)

    def renew(self) -> None:
        """Its file anew, where somebody has deleted it: a living owner would pass for a dead one.

        Raises OSError.
        """
        fd = self._fd
        if fd is None:
            return
        try:  # for each transaction: as little as tells it
            is_there = os.path.samestat(self._file.stat(), self._known)
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self._lock(self.token)
            os.close(fd)

    def _lock(self, known: str | None) -> str:
        if fcntl is None:
            raise OSError("durable tasks need flock, which this system does not have")
        for _ in range(TRIES_MAX):
            token = known or secrets.token_hex(TOKEN_BYTES)
            file = _file_of(self._path, token)
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = _is_same(fd, file)
            except BlockingIOError:
                is_ours = False
            except BaseException:
                os.close(fd)
                raise
            if is_ours:
                if known is None:
                    _forget_in_forks(self)
                self._fd, self.token = fd, token
                self._file, self._known = file, os.fstat(fd)
                return token
            os.close(fd)  # whoever sweeps was faster: between the opening and the lock
        raise OSError(f"no owner's file beside {self._path} could be locked")

    def release(self) -> None:
        """Whoever asks hears that this owner is gone."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _file_of(self._path, self.token).unlink(missing_ok=True)
            os.close(fd)

    def forget(self) -> None:
        """In a child that was forked: it must not keep its parent's lock when that has died."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Lock:
    """A lock of a file that stays where it is: whoever has it, has it alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd: int | None = None

    def take(self) -> bool:
        """Whether it is ours now.  Raises OSError."""
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def release(self) -> None:
        """Somebody else may have it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


@contextmanager
def setup_lock(path: Path) -> Iterator[None]:
    """One process at a time looks whether the file is whole.  Raises OSError."""
    lock = Lock(path.with_name(f"{path.name}-setup"))
    until_s = time.monotonic() + SETUP_S
    while not lock.take():
        if time.monotonic() > until_s:
            raise OSError(f"another process has been opening it for {SETUP_S:g} s")
        time.sleep(SETUP_LOOK_S)
    try:
        yield
    finally:
        lock.release()


def lives(path: Path, token: str) -> bool:
    """Whether the owner with this token does; the file of one that does not is removed.

    One that cannot be asked (too many open files, say) may live.
    """
    if not _is_token(token):
        return False  # nobody has ever had it
    file = _file_of(path, token)
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def has_been_killed(path: Path, token: str) -> bool:
    """Whether the owner with this token has left its file, unlocked: nobody else has deleted it.

    The file stays: whoever asks may fail to carry over what it has, and has to ask again.
    """
    if not _is_token(token):
        return False
    try:
        fd = os.open(_file_of(path, token), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # one without a file, or that cannot be asked, may live
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def sweep(path: Path) -> None:
    """Remove the files of owners that are gone."""
    prefix = path.name + MARK
    for file in path.parent.glob(f"{_escaped(prefix)}*"):
        lives(path, file.name.removeprefix(prefix))


def _is_token(token: object) -> bool:
    """Whether it can be one: a file that others write to may say anything."""
    return isinstance(token, str) and TOKEN.fullmatch(token) is not None


def _escaped(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _file_of(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}{MARK}{token}")


def _is_same(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), file.stat())
    except FileNotFoundError:
        return False


def _forget_in_forks(owner: Owner) -> None:
    known = weakref.ref(owner)

    def in_child() -> None:
        owner = known()
        if owner is not None:
            owner.forget()

    os.register_at_fork(after_in_child=in_child)
