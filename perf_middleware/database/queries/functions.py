"""What in the text of a statement makes its answer another one each time, or for each connection.

The names are looked for in the SQL as it is rendered: one inside of a quoted text counts too, which
costs a hit and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOLATILE: Final = """
    now statement_timestamp transaction_timestamp clock_timestamp timeofday age random
    random_normal gen_random_uuid uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7
    gen_random_bytes randomblob rand newid sysdate getdate system bernoulli
"""
_VOLATILE_WORDS: Final = "current_timestamp current_date current_time localtime localtimestamp"
_SESSION: Final = """
    set_config current_setting pg_backend_pid pg_sleep nextval currval lastval setval
    last_insert_rowid changes total_changes txid_current pg_current_xact_id
    pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
    pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock
    pg_try_advisory_xact_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_notify
    pg_cancel_backend pg_terminate_backend inet_client_addr inet_client_port current_schemas
    txid_current_if_assigned txid_current_snapshot pg_current_snapshot current_schema
    last_insert_id connection_id found_rows row_count
"""
_SESSION_WORDS: Final = "current_user session_user current_role current_schema system_user"
_OF_A_MOMENT: Final = "date time datetime julianday unixepoch strftime timediff"  # of SQLite


def _calls(names: str) -> str:
    return rf"\b(?:{'|'.join(names.split())})\b\s*\("


def _words(names: str) -> str:
    return rf"(?<![.\w\"])(?:{'|'.join(names.split())})\b(?!\s*\.)"


_IS_VOLATILE: Final = re.compile(
    rf"{_calls(_VOLATILE)}|{_words(_VOLATILE_WORDS)}|\btablesample\b", re.IGNORECASE
)
_IS_SESSIONS: Final = re.compile(rf"{_calls(_SESSION)}|{_words(_SESSION_WORDS)}", re.IGNORECASE)
_TAKES_A_MOMENT: Final = re.compile(
    rf"{_calls(_OF_A_MOMENT)}|::\s*(?:date|time)|\b(?:date|time|timestamp|timestamptz|cast)\b",
    re.IGNORECASE,
)
_NAMES_NOW: Final = re.compile(
    r"'\s*(?:now|today|tomorrow|yesterday|localtime)\s*'|\b(?:date|time|datetime|julianday|"
    r"unixepoch)\s*\(\s*\)|\bstrftime\s*\(\s*(?:'[^']*'|\S)\s*\)",
    re.IGNORECASE,
)
_MOMENTS: Final = frozenset({"now", "today", "tomorrow", "yesterday"})

_LOCKS: Final = re.compile(
    r"\bfor\s+(?:no\s+key\s+update|update|key\s+share|share)\b|\block\s+in\s+share\s+mode\b",
    re.IGNORECASE,
)
_COMMENTS: Final = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_READS: Final = re.compile(r"(?:select|with|values|table)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Whether the same statement and parameters have the same answer while no table is written.

    `takes_a_moment`: only where no parameter says `now`.
    """

    is_volatile: bool
    is_of_a_session: bool
    takes_a_moment: bool

    def moves_with(self, values: Iterable[object]) -> bool:
        """Whether one of the parameters means another moment each time."""
        return self.takes_a_moment and any(
            isinstance(value, str) and value.strip().lower() in _MOMENTS for value in values
        )


def steadiness(sql: str) -> Steadiness:
    """What the SQL of a statement says of it."""
    return Steadiness(
        is_volatile=bool(_IS_VOLATILE.search(sql) or _NAMES_NOW.search(sql)),
        is_of_a_session=bool(_IS_SESSIONS.search(sql)),
        takes_a_moment=bool(_TAKES_A_MOMENT.search(sql)),
    )


def locks_rows(sql: str) -> bool:
    """Whether a text asks for locks (FOR UPDATE), as far as its words say."""
    return bool(_LOCKS.search(sql))


def begins_as_a_read(sql: str) -> bool:
    """Whether the first word of a text is one of a query; WITH may still write."""
    begin = _COMMENTS.match(sql)
    return bool(_READS.match(sql, begin.end() if begin else 0))
