"""Tells of statements that are not understood where an answer is tracked, with what to do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from perf_middleware.database.statements.fingerprint import fingerprint
from perf_middleware.database.tables.drivers.raw import parser
from perf_middleware.database.tables.touched import ALL_TABLES

if TYPE_CHECKING:
    from perf_middleware.database.tables.touched import Touched

logger = logging.getLogger("perf_middleware.database")

TOLD_MAX: Final = 100  # fingerprints, of one app
TEXTS_MAX: Final = 1_000  # that are known to be told; then they are read anew


class NotUnderstood:
    """Tells each once, by its fingerprint: at each request it purges all that is tracked."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._texts: set[str] = set()

    def look(self, touched: Touched, statement: str, *, is_text: bool) -> None:
        """Tell `statement`, if it means all tables: one that a tracked request has run."""
        if touched.reads is not ALL_TABLES or touched.changes is not ALL_TABLES:
            return
        if statement in self._texts or len(self._told) >= TOLD_MAX:
            return
        if len(self._texts) >= TEXTS_MAX:
            self._texts.clear()
        self._texts.add(statement)
        found = fingerprint(statement)
        if found.id in self._told:
            return
        self._told.add(found.id)
        if is_text and parser() is None:
            what_to_do = "install the extra `sql` of perf-middleware, which reads text"
        else:
            what_to_do = (
                "if it calls functions of your own, name those that read and write no table in "
                "PERFORMANCE_TRACKING_KNOWN_FUNCTIONS; else write it in other words, or give the "
                "rule a ttl instead of `tracked`"
            )
        logger.warning(
            "a tracked answer is made with a statement that is not understood, so it is not kept, "
            "and each request for it purges all that depends on tables: %s.  The statement, %s: %s",
            what_to_do, found.id, found.text,
        )  # fmt: skip
