"""Why a query was not answered from the cache, and why an answer was not kept: the labels.

`bypassed`: the statement ran as if there were no cache.  `unkept`: it ran for the cache, and what
it gave was not stored.
"""

from __future__ import annotations

from typing import Final

# --- bypassed: the cache was not asked --------------------------------------------------------
OFF: Final = "off"
UNTRACKED: Final = "untracked"  # nobody would purge it: not one of ours, or a replica
UNSAVED: Final = "unsaved"  # the session has changes that are not in the database yet
WROTE: Final = "wrote"  # its transaction has written
SNAPSHOT: Final = "snapshot"  # its transaction sees the data as they were when it began
STATE: Final = "state"  # what it reads may depend on SET, row policies, events of the session
VOLATILE: Final = "volatile"  # now(), random(): another answer each time
SESSION: Final = "session"  # nextval(), current_user: of this one connection
UNNAMED: Final = "unnamed"  # a parameter or an option that no text names
OPTIONS: Final = "options"  # populate_existing, yield_per: wants the database itself

# --- unkept: it ran, and was not stored -------------------------------------------------------
NO_TABLES: Final = "no tables"
ANY_TABLE: Final = "any table"  # a statement that is not understood; bypassed, where that is known
REPLICA: Final = "replica"  # it may lag behind the last commit
OLD: Final = "old"  # read in a transaction that began before a purge
DEAF: Final = "deaf"  # commits of other processes are not heard of
LOADED: Final = "loaded"  # the session had some of the rows already, perhaps older
UNPACKABLE: Final = "unpackable"
FORGOTTEN: Final = "purged"  # a commit came while it ran
FULL: Final = "too large"
ALONE: Final = "alone"
AWAY: Final = "store away"

BYPASSES: Final = (
    OFF, UNTRACKED, UNSAVED, WROTE, SNAPSHOT, STATE, VOLATILE, SESSION, UNNAMED, OPTIONS,
    ANY_TABLE,
)  # fmt: skip
UNKEPT: Final = (
    NO_TABLES, ANY_TABLE, WROTE, OLD, REPLICA, DEAF, LOADED, UNPACKABLE, FORGOTTEN, FULL, ALONE,
    AWAY,
)  # fmt: skip
