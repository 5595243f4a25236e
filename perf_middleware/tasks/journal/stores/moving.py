"""A journal whose files are deleted, moved or replaced while it is open: SQLite would write on.

    tasks.db, tasks.db-wal, tasks.db-shm      one of them is gone, or another
        -> what is left of them is put away, a new file is begun (or that which was put there is
           opened), and each process carries over what it has in the old one, which it has open

What is written to a file that has no name any more is lost with the process.  Only the three
together are a journal: a new one beside an old `-wal` would be broken at once.  Looking costs a
`stat` of each for every transaction, which serves all that was asked meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.tasks.journal.entries import ACCEPTED, DEAD, NOBODY, starts_when_handed_back

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

ENDS: Final = ("-wal", "-shm")
# Other processes may accept into the new file before the rest of the old one comes: its numbers
# are left to it.
NUMBERS_APART: Final = 1 << 20


class Whereabouts:
    """Which files were open, by device and inode."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {
            part: known for part in parts_of(path) if (known := _identity(part)) is not None
        }

    def lost(self) -> Path | None:
        """The first file that is no longer where it was, is another, or was emptied."""
        for part, known in self._known.items():
            try:
                told = part.stat()
            except OSError:
                return part
            if (told.st_dev, told.st_ino) != known or (part is self._path and not told.st_size):
                return part
        return None

    def put_away(self, aside: Path) -> None:
        """None of these files has its name any more: others may have them.  Raises OSError.

        They are renamed, or removed where the file that has the entries is gone already: without
        it they are nothing, and whoever has them open keeps them.
        """
        left = [part for part, known in self._known.items() if _identity(part) == known]
        for part in left:
            if self._path in left:
                part.rename(part.with_name(part.name.replace(self._path.name, aside.name, 1)))
            else:
                part.unlink()


def parts_of(path: Path) -> list[Path]:
    """The files that are one database in WAL mode, `path` itself first."""
    return [path, *(path.with_name(path.name + end) for end in ENDS)]


def remove_orphans(path: Path) -> None:
    """What a database that was deleted has left beside it is not for the one that is begun now.

    Raises OSError.
    """
    main, *others = parts_of(path)
    if not main.exists():
        for part in others:
            part.unlink(missing_ok=True)


def carry_over(old: sqlite3.Connection, new: sqlite3.Connection, owners: Sequence[str]) -> int:
    """How many entries of `old` are in `new` now: those of these owners.

    They keep their numbers, which this process knows them by.  The entries of others are theirs to
    carry over: they look as often.  Raises sqlite3.Error: then nothing is lost.
    """
    those = f"owner IN ({', '.join('?' * len(owners))})"
    old.execute("BEGIN IMMEDIATE")
    try:
        found = old.execute(
            f"SELECT * FROM entries WHERE {those} ORDER BY number",  # noqa: S608
            owners,
        )
        names = [name for name, *_ in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        last = old.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0] or 0
        new.execute("BEGIN IMMEDIATE")
        try:
            _leave_numbers(new, last)
            for row in rows:
                _add(new, row)
            new.execute("COMMIT")  # first: what is in both runs twice, what is in none never
        except BaseException:
            if new.in_transaction:
                new.execute("ROLLBACK")
            raise
        old.execute(f"DELETE FROM entries WHERE {those}", owners)  # noqa: S608
        old.execute("COMMIT")
    except BaseException:
        if old.in_transaction:
            old.execute("ROLLBACK")
        raise
    return len(rows)


def _leave_numbers(new: sqlite3.Connection, last: int) -> None:
    """New entries of the new file count from far above those that come from the old one."""
    (known,) = new.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    if known is None:
        new.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('entries', ?)", (last + NUMBERS_APART,)
        )
    elif known < last + NUMBERS_APART // 2:  # else another process has done it
        new.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'entries'", (last + NUMBERS_APART,)
        )


def _add(new: sqlite3.Connection, row: dict[str, Any]) -> None:
    taken = new.execute(
        "SELECT task, arguments, accepted_us FROM entries WHERE number = ?", (row["number"],)
    ).fetchone()
    if taken is not None:
        if taken == (row["task"], row["arguments"], row["accepted_us"]):
            return  # a copy of the same file was put in its place
        # Its number is another's here: it has nobody who knows it by that.
        del row["number"]
        if row["state"] != DEAD:
            row["starts"] = starts_when_handed_back(row["state"], row["starts"])
            row["state"] = ACCEPTED
        row["owner"] = NOBODY
    columns = ", ".join(row)
    new.execute(
        f"INSERT INTO entries ({columns}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608
        tuple(row.values()),
    )


def _identity(part: Path) -> tuple[int, int] | None:
    try:
        told = part.stat()
    except OSError:
        return None
    return told.st_dev, told.st_ino
