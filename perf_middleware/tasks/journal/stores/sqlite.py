"""The journal's file: SQLite, in WAL mode, used by one thread.

Several processes of one host may share it (WAL needs memory that all of them see: no network file
system).  A transaction that accepts is synced to the disk before it is told (`is_synced`), unless
that is switched off; what others write survives the end of the process, and a power cut that takes
it makes a task run once more.  One sync serves every step of its transaction.

Every call may wait for another process that writes, up to BUSY_S.
Sources: sqlite.org/wal.html, sqlite.org/pragma.html (synchronous, application_id, user_version).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.task_errors import JournalFullError, JournalUnavailableError
from perf_middleware.tasks.journal.entries import (
    ACCEPTED,
    DEAD,
    NOBODY,
    REASON_CHARS_MAX,
    RUNNING,
    Entry,
    entry_bytes,
    has_room,
    may_claim,
    starts_when_handed_back,
)
from perf_middleware.tasks.journal.stores import owners, schema
from perf_middleware.tasks.journal.stores.moving import Whereabouts, carry_over, remove_orphans
from perf_middleware.tasks.journal.stores.schema import COLUMNS, is_broken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from perf_middleware.tasks.journal.entries import JournalLimits

logger = logging.getLogger("perf_middleware.tasks")

US_PER_S: Final = 1_000_000
BUSY_S: Final = 5.0
UNCLAIMED_MAX: Final = 100  # names of tasks that are not registered here
WAL_BYTES_MAX: Final = 4 << 20  # what is kept of it after it was larger

Step: TypeAlias = "Callable[[SqliteJournal], Any]"


class SqliteJournal:
    """One process's end of the file.  The steps are called within `run` alone."""

    def __init__(self, path: Path, limits: JournalLimits, *, is_synced: bool = True) -> None:
        self._path = path
        self._limits = limits
        self._is_synced = is_synced
        self._syncs = False
        self._file: sqlite3.Connection | None = None
        self._whereabouts: Whereabouts | None = None
        self._owner = owners.Owner(path)

    @property
    def owner(self) -> str:
        """What the entries of this process name it by; another after each opening."""
        return self._owner.token

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self) -> None:
        """Raises JournalUnavailableError.  A broken file is set aside, and a new one begun."""
        try:
            self._file, self._whereabouts = self._opened_whole()
            self._owner.take()
            owners.sweep(self._path)
        except (sqlite3.Error, OSError) as exc:
            self.close()
            raise JournalUnavailableError(f"{self._path}: {exc}") from exc

    def close(self, *, keep_owner: bool = False) -> None:
        """`keep_owner`: some entries are not over; they are its own until the process ends."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(sqlite3.Error):
                file.close()
        if keep_owner:
            _KEPT.append(self._owner)
            self._owner = owners.Owner(self._path)
        else:
            self._owner.release()

    def run(self, steps: Sequence[Step], *, is_synced: bool) -> list[Any]:
        """What each step gave, all in one transaction; JournalFullError stands for its own step.

        Raises JournalUnavailableError, or what a step raised: then nothing of it is kept.
        """
        if self._file is None:
            self.open()
        else:
            self._look_where_it_is()
        file = self._file
        assert file is not None  # noqa: S101 - open() raises where there is none
        given: list[Any] = []
        try:
            if self._syncs is not is_synced and self._is_synced:
                file.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
                self._syncs = is_synced
            file.execute("BEGIN IMMEDIATE")
            for step in steps:
                try:
                    given.append(step(self))
                except JournalFullError as exc:
                    given.append(exc)
            file.execute("COMMIT")
        except BaseException as exc:
            with suppress(sqlite3.Error):
                if file.in_transaction:
                    file.execute("ROLLBACK")
            if not isinstance(exc, sqlite3.Error):
                raise
            if is_broken(exc):  # looked at, and set aside, by the next call
                # Should it be whole after all: what runs here is nobody else's.
                self.close(keep_owner=True)
            raise JournalUnavailableError(f"{self._path}: {exc}") from exc
        return given

    def _look_where_it_is(self) -> None:
        """Go on in a new file where somebody took this one away.  Raises JournalUnavailableError:
        then it stays open, with all that it has, and the next call looks again.
        """
        try:
            self._owner.renew()
            if self._whereabouts is not None and (lost := self._whereabouts.lost()) is not None:
                self._move(lost, self._whereabouts)
        except (sqlite3.Error, OSError) as exc:
            raise JournalUnavailableError(f"{self._path}: {exc}") from exc

    def _move(self, lost: Path, whereabouts: Whereabouts) -> None:
        old = self._file
        assert old is not None  # noqa: S101 - what is open is looked at
        with suppress(sqlite3.Error):  # should the file be kept under another name: all is in it
            old.execute("PRAGMA wal_checkpoint(PASSIVE)")
        file, whereabouts = self._opened_whole(whereabouts)
        try:
            if self._is_synced:
                file.execute("PRAGMA synchronous = FULL")
            told = str(carry_over(old, file, [self.owner, NOBODY, *self._gone_in(old)]))
        except sqlite3.Error as exc:
            if not is_broken(exc):
                file.close()
                raise
            told = f"none, what is open is broken ({exc})"
        with suppress(sqlite3.Error):
            old.close()
        self._file, self._whereabouts, self._syncs = file, whereabouts, self._is_synced
        logger.error(
            "%s was deleted, moved or replaced while the journal of tasks was open; another file "
            "is used from now on; carried over to it: %s of the accepted tasks and dead letters",
            lost, told,
        )  # fmt: skip

    def _gone_in(self, file: sqlite3.Connection) -> list[str]:
        """The owners of entries there that have certainly ended."""
        found = file.execute("SELECT DISTINCT owner FROM entries").fetchall()
        return [owner for (owner,) in found if owners.has_been_killed(self._path, owner)]

    # --- steps ----------------------------------------------------------------------------------

    def accept(self, task: str, arguments: bytes, made_by: str) -> Entry:
        """A new entry of this process.  Raises JournalFullError."""
        entries, kept_bytes = self._execute("SELECT entries, bytes FROM room").fetchone()
        size = entry_bytes(task, arguments)
        if not has_room(self._limits, entries=entries, kept_bytes=kept_bytes, size=size):
            raise JournalFullError(entries, kept_bytes)
        now_us = time.time_ns() // 1_000
        row = self._execute(
            "INSERT INTO entries (task, arguments, made_by, owner, state, starts, accepted_us, "
            "reason) VALUES (?, ?, ?, ?, ?, 0, ?, '')",
            (task, arguments, made_by, self.owner, ACCEPTED, now_us),
        )
        return Entry(
            number=row.lastrowid or 0, task=task, arguments=arguments, made_by=made_by,
            owner=self.owner, starts=0, accepted_us=now_us,
        )  # fmt: skip

    def begin(self, entry: Entry) -> None:
        """It runs from now on."""
        self._execute(
            "UPDATE entries SET state = ?, starts = starts + 1 WHERE number = ? AND owner = ?",
            (RUNNING, entry.number, entry.owner),
        )

    def remove(self, entry: Entry) -> None:
        """It has run.  The owner is asked for: a file that was begun anew counts from 1 again."""
        self._execute(
            "DELETE FROM entries WHERE number = ? AND owner = ?", (entry.number, entry.owner)
        )

    def bury(self, entry: Entry, reason: str) -> None:
        """It is a dead letter, for this reason."""
        # An error may repeat what a client sent: JSON can say "\ud800", which is no UTF-8.
        readable = reason[:REASON_CHARS_MAX].encode("utf-8", "backslashreplace").decode()
        self._execute(
            "UPDATE entries SET state = ?, owner = ?, reason = ? WHERE number = ? AND owner = ?",
            (DEAD, NOBODY, readable, entry.number, entry.owner),
        )

    def claim(self, limit: int, tasks: Sequence[str] | None = None) -> list[Entry]:
        """Entries without a living owner, the oldest first: this process's from now on.

        With `tasks` those of these alone, and what nobody can ever register.
        """
        claimed: list[Entry] = []
        names = None if tasks is None else json.dumps(list(tasks))
        for owner in self._without_life():
            if len(claimed) < limit:
                claimed += self._entries(
                    "UPDATE entries SET owner = ?, state = ? WHERE number IN (SELECT number FROM "  # noqa: S608
                    "entries WHERE owner = ? AND state != ? AND (? IS NULL OR typeof(task) != "
                    "'text' OR task IN (SELECT value FROM json_each(?))) ORDER BY number LIMIT ?) "
                    f"RETURNING {COLUMNS}",
                    (self.owner, ACCEPTED, owner, DEAD, names, names, limit - len(claimed)),
                )
        return sorted(claimed, key=lambda entry: entry.number)

    def unclaimed(self, tasks: Sequence[str]) -> dict[str, int]:
        """How many entries without a living owner are of other tasks, by their names."""
        counts: dict[str, int] = {}
        for owner in self._without_life():
            for task, count in self._execute(
                "SELECT task, count(*) FROM entries WHERE owner = ? AND state != ? AND "
                "task NOT IN (SELECT value FROM json_each(?)) GROUP BY 1 LIMIT ?",
                (owner, DEAD, json.dumps(list(tasks)), UNCLAIMED_MAX),
            ):
                counts[task] = counts.get(task, 0) + count
        return counts

    def _without_life(self) -> list[str]:
        rows = self._execute(
            "SELECT DISTINCT owner FROM entries WHERE state != ? AND owner != ?", (DEAD, self.owner)
        ).fetchall()
        path = self._path
        return [
            owner
            for (owner,) in rows
            if may_claim(ACCEPTED, owner, owner_lives=owners.lives(path, owner))
        ]

    def own_after(self, number: int, limit: int) -> list[Entry]:
        """Entries of this process that it has not begun, after this one, the oldest first."""
        return self._entries(
            f"SELECT {COLUMNS} FROM entries WHERE owner = ? AND state = ? AND number > ? "  # noqa: S608
            "ORDER BY number LIMIT ?",
            (self.owner, ACCEPTED, number, limit),
        )

    def hand_back(self, but: Sequence[int] = ()) -> int:
        """How many entries of this process are nobody's now; what it has begun does not count.

        `but` are numbers of those that go on in threads.
        """
        return self._execute(
            "UPDATE entries SET owner = ?, starts = starts_when_handed_back(state, "
            "CAST(starts AS INTEGER)), "
            "state = ? WHERE owner = ? AND state != ? AND number NOT IN "
            "(SELECT value FROM json_each(?))",
            (NOBODY, ACCEPTED, self.owner, DEAD, json.dumps(list(but))),
        ).rowcount

    def dead_letters(self, limit: int) -> list[Entry]:
        """Those that will not run by themselves, the oldest first."""
        return self._entries(
            f"SELECT {COLUMNS} FROM entries WHERE state = ? ORDER BY number LIMIT ?",  # noqa: S608
            (DEAD, limit),
        )

    def revive(self, number: int) -> bool:
        """Whether there was this dead letter: it is nobody's, and was never begun."""
        return bool(
            self._execute(
                "UPDATE entries SET state = ?, starts = 0, reason = '' WHERE number = ? AND "
                "state = ?",
                (ACCEPTED, number, DEAD),
            ).rowcount
        )

    def discard(self, number: int) -> bool:
        """Whether there was this dead letter: it is gone."""
        return bool(
            self._execute(
                "DELETE FROM entries WHERE number = ? AND state = ?", (number, DEAD)
            ).rowcount
        )

    def picture(self) -> tuple[int, int, int]:
        """Entries, their bytes, and how many of them are dead."""
        entries, kept_bytes = self._execute("SELECT entries, bytes FROM room").fetchone()
        (dead,) = self._execute(
            "SELECT count(*) FROM entries WHERE owner = ? AND state = ?", (NOBODY, DEAD)
        ).fetchone()
        return entries, kept_bytes, dead

    def tried(self) -> tuple[int, int, int]:
        """As `picture`, where an entry can be written: one is, and removed."""
        for step in (schema.TRIAL, "DELETE FROM entries WHERE number < 0"):
            self._execute(step)
        return self.picture()

    # --- the file -------------------------------------------------------------------------------

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        assert self._file is not None  # noqa: S101 - steps run within `run`
        return self._file.execute(sql, values)

    def _entries(self, sql: str, values: tuple[Any, ...]) -> list[Entry]:
        found = self._execute(sql, values)
        names = [name for name, *_ in found.description]
        return [Entry(**dict(zip(names, row, strict=True))) for row in found.fetchall()]

    def _opened_whole(
        self, lost: Whereabouts | None = None
    ) -> tuple[sqlite3.Connection, Whereabouts]:
        with owners.setup_lock(self._path):
            if lost is not None:
                lost.put_away(self._aside("left"))
            remove_orphans(self._path)
            try:
                file = self._opened()
            except sqlite3.DatabaseError as exc:
                if not is_broken(exc):
                    raise
                self._set_aside(exc)
                file = self._opened()
            return file, Whereabouts(self._path)

    def _opened(self) -> sqlite3.Connection:
        # Used by one thread, and closed by another where that is asked for last.
        file = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._check(file)
            file.execute("PRAGMA synchronous = NORMAL")
            file.create_function("starts_when_handed_back", 2, starts_when_handed_back)
            file.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        except BaseException:
            file.close()
            raise
        self._syncs = False
        file.text_factory = schema.readable
        return file

    def _check(self, file: sqlite3.Connection) -> None:
        """That it is a journal, of this version, and whole; an empty file becomes one."""
        (application,) = file.execute("PRAGMA application_id").fetchone()
        (version,) = file.execute("PRAGMA user_version").fetchone()
        (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) == (0, 0, 0):
            (mode,) = file.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise OSError(f"its file system allows no write-ahead log (journal_mode {mode})")
            file.execute("BEGIN IMMEDIATE")
            for statement in schema.SCHEMA:
                file.execute(statement)
            file.execute("COMMIT")
            return
        if application != schema.APPLICATION_ID:
            raise OSError("it is another database, no journal of tasks")
        if version != schema.VERSION:
            raise OSError(
                f"its schema is version {version}, and this program knows {schema.VERSION}"
            )
        (told,) = file.execute("PRAGMA quick_check(1)").fetchone()
        if told != "ok":
            broken = sqlite3.DatabaseError(told)
            broken.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise broken

    def _aside(self, why: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{why}-{time.time_ns() // US_PER_S}")

    def _set_aside(self, why: Exception) -> None:
        """Raises OSError."""
        aside = self._aside("broken")
        Whereabouts(self._path).put_away(aside)
        logger.error(
            "the journal of tasks %s is broken (%s): it was set aside as %s, with the tasks that "
            "had not run, and a new one was begun",
            self._path, why, aside.name,
        )  # fmt: skip


_KEPT: Final[list[owners.Owner]] = []
"""Owners that live until the process ends: what they have begun may go on, whatever was closed."""
