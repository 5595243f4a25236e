"""The `Server-Timing` field: where a response's time went, for the browser's network panel.

    Server-Timing: total;dur=12.4, db;dur=3.1;desc="4 statements"

Source: W3C Server Timing, §2 (names are tokens of RFC 9110 §5.6.2, durations are milliseconds,
`desc` is for people).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_TOKEN = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]+")
PARTS_MAX = 16  # a header that a client has to carry


_NAME = b"server-timing"
DATABASE: Final = "db"
"""The part that is the time of statements."""
STEP_NS: Final = 100_000  # durations are told in tenths of a millisecond
QUICK: Final = tuple([(_NAME, b"total;dur=%d.%d" % divmod(steps, 10)) for steps in range(1_001)])
"""The fields of most answers, which have no parts: by the steps until their first byte."""
QUICK_NS_MAX: Final = 1_000 * STEP_NS


def server_timing(
    total_ns: int, parts_ns: Mapping[str, int] | None, statements: int = 0
) -> tuple[bytes, bytes]:
    """The field, name and value: the time to the first byte and each part of it, milliseconds.

    `statements` of databases that are part of it describe the part DATABASE.
    """
    if not parts_ns and total_ns < QUICK_NS_MAX:
        return QUICK[(total_ns + STEP_NS // 2) // STEP_NS]
    total = b"total;dur=%.1f" % (total_ns / 1e6)
    value = b", ".join(
        (
            total,
            *(
                b"%b;dur=%.1f%b"
                % (
                    (_NOT_TOKEN.sub("_", name) or "_").encode("ascii"),
                    ns / 1e6,
                    b';desc="%b"' % counted(statements).encode()
                    if statements and name == DATABASE
                    else b"",
                )
                for name, ns in list((parts_ns or {}).items())[:PARTS_MAX]
            ),
        )
    )
    return _NAME, value


def counted(statements: int) -> str:
    """The number with its word."""
    return "1 statement" if statements == 1 else f"{statements} statements"
