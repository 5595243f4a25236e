"""A new file that several processes open at once: who is refused at once, tries again."""

import asyncio
import sqlite3

import pytest
from sqlalchemy.util import greenlet_spawn

from perf_middleware.database.runtime.engines import execute_when_free

LOCKED = sqlite3.OperationalError("database is locked")


class Cursor:
    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def execute(self, _statement):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else LOCKED
        if answer is not None:
            raise answer


def execute(cursor, *, within_s):
    asyncio.run(
        greenlet_spawn(execute_when_free, cursor, "PRAGMA journal_mode = WAL", within_s=within_s)
    )


def test_a_statement_that_is_refused_for_a_lock_is_tried_again():
    cursor = Cursor(LOCKED, LOCKED, None)
    execute(cursor, within_s=60)
    assert cursor.asked == 3


def test_it_is_told_when_the_busy_time_is_over():
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        execute(Cursor(), within_s=0.05)


def test_any_other_error_is_told_at_once():
    cursor = Cursor(sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(sqlite3.OperationalError, match="disk"):
        execute(cursor, within_s=60)
    assert cursor.asked == 1
