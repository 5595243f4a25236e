"""The `Server-Timing` field: where a response's time went, for the browser's network panel.

    Server-Timing: total;dur=12.4, db;dur=3.1

Source: W3C Server Timing, §2 (names are tokens of RFC 9110 §5.6.2, durations are milliseconds).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_TOKEN = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]+")
PARTS_MAX = 16  # a header that a client has to carry


def server_timing(total_ns: int, parts_ns: Mapping[str, int] | None) -> bytes:
    """The field's value: the time to the first byte, then each part of it, in milliseconds."""
    total = b"total;dur=%.1f" % (total_ns / 1e6)
    if not parts_ns:
        return total
    return b", ".join(
        (
            total,
            *(
                b"%b;dur=%.1f" % ((_NOT_TOKEN.sub("_", name) or "_").encode("ascii"), ns / 1e6)
                for name, ns in list(parts_ns.items())[:PARTS_MAX]
            ),
        )
    )
