"""What the parts of one namespace are called in PostgreSQL, and the mark of our own writes.

    a service "shop"    channel, function, triggers   perf_middleware_written_shop
                        advisory lock                 64 bits of the namespace's hash
    its own writes      /*perf_middleware=shop:<writer>*/ insert into …

A statement that dependency tracking has looked at bears the mark, and the trigger function reads it
with `current_query()`: no state of a connection, so it holds behind pgbouncer and for no statement
that went past the tracking.  The writer is `fleet` where the purge reaches all by itself (nothing
is told then), else the process: all but that one purge.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

FUNCTION_PREFIX: Final = "perf_middleware_written_"
MARK_PREFIX: Final = "/*perf_middleware="
FLEET: Final = "fleet"
NAME_CHARS_MAX: Final = 32  # with the prefix below the 63 bytes of a name (NAMEDATALEN - 1)
HINT: Final = "/*+"  # pg_hint_plan reads the first comment only, and ours would be that


def short_name(namespace: str) -> str:
    """`namespace` as part of a name in SQL: itself where it fits, else its beginning and a hash."""
    plain = re.sub(r"[^a-z0-9_]", "_", namespace.lower())
    if plain == namespace and len(plain) <= NAME_CHARS_MAX:
        return plain
    return f"{plain[: NAME_CHARS_MAX - 9]}_{hashlib.sha256(namespace.encode()).hexdigest()[:8]}"


def name_of(namespace: str) -> str:
    """The name of the channel, of the function and of each trigger."""
    return FUNCTION_PREFIX + short_name(namespace)


def lock_of(namespace: str) -> int:
    """The advisory lock that the one who listens holds, a signed 64-bit number."""
    digest = hashlib.sha256(f"perf_middleware outside {namespace}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def lock_halves(lock: int) -> tuple[int, int]:
    """`lock` as pg_locks shows it: classid and objid (PostgreSQL, "pg_locks")."""
    unsigned = lock % 2**64
    return unsigned >> 32, unsigned % 2**32


def mark_of(namespace: str, writer: str) -> str:
    """The comment that says who writes; `writer` is FLEET or a name of hexadecimal digits."""
    return f"{MARK_PREFIX}{short_name(namespace)}:{writer}*/"


def marked(statement: str, mark: str) -> str:
    """`statement` with the mark before it; as it is where it has a hint for the planner."""
    return statement if HINT in statement else f"{mark} {statement}"
