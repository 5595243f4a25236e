"""The tables of a journal's file, and how its rows are read."""

from __future__ import annotations

import sqlite3
from typing import Final

from perf_middleware.tasks.journal.entries import ENTRY_BYTES

APPLICATION_ID: Final = 0x706D6A31  # "pmj1": which database this is
VERSION: Final = 1  # of the schema
SCHEMA: Final = (
    """CREATE TABLE entries (
        number INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, arguments BLOB NOT NULL,
        made_by TEXT NOT NULL, owner TEXT NOT NULL, state INTEGER NOT NULL,
        starts INTEGER NOT NULL, accepted_us INTEGER NOT NULL, reason TEXT NOT NULL)""",
    "CREATE INDEX by_owner ON entries (owner, state)",
    "CREATE TABLE room (entries INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "INSERT INTO room VALUES (0, 0)",
    f"""CREATE TRIGGER taken AFTER INSERT ON entries BEGIN UPDATE room SET entries = entries + 1,
        bytes = bytes + {ENTRY_BYTES} + length(new.task) + length(new.arguments); END""",  # noqa: S608
    f"""CREATE TRIGGER given AFTER DELETE ON entries BEGIN UPDATE room SET entries = entries - 1,
        bytes = bytes - {ENTRY_BYTES} - length(old.task) - length(old.arguments); END""",  # noqa: S608
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
# SQLite keeps any value in any column: whatever somebody has written there, an entry is made of it.
COLUMNS: Final = (
    "number, CAST(task AS TEXT) AS task, CAST(arguments AS BLOB) AS arguments, "
    "CAST(made_by AS TEXT) AS made_by, CAST(owner AS TEXT) AS owner, "
    "CAST(state AS INTEGER) AS state, CAST(starts AS INTEGER) AS starts, "
    "CAST(accepted_us AS INTEGER) AS accepted_us, CAST(reason AS TEXT) AS reason"
)
# Whatever an entry touches; a number that none ever has.
TRIAL: Final = "INSERT INTO entries VALUES (-1, '', zeroblob(4096), '', '', 2, 0, 0, '')"
BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def readable(text: bytes) -> str:
    """Text, also where somebody has written what is none."""
    return text.decode(errors="replace")


def is_broken(exc: sqlite3.Error) -> bool:
    """Whether the file is no whole database."""
    code = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in BROKEN  # the low byte of an extended code
