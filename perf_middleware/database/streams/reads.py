"""Does a statement only read?  Told from its words, and in doubt: no.

What ends with its transaction counts as written too, though no row is: locks, `set_config`,
notifications, sequences.  What a function of the server does inside is not seen in the text.
"""

from __future__ import annotations

import re
from typing import Final

BEGINS: Final = re.compile(
    r"[\s(]*(?:select|with|values|table|show|explain|savepoint|release|rollback\s+to)\b",
    re.IGNORECASE,
)
# PostgreSQL's own two first: a quote inside of them neither begins nor ends a plain one.
QUOTED: Final = re.compile(
    r"\b[eE]'(?:[^'\\]|\\.|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r"|'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/",
    re.DOTALL,
)
MAY_WRITE: Final = re.compile(
    r"\b(?:insert|update|delete|merge|into|truncate|create|drop|alter|call|do|lock"
    r"|for\s+(?:key\s+)?share|lock\s+in\s+share\s+mode"
    r"|nextval|setval|set_config|pg_notify|get_lock|lo_\w+|dblink\w*"
    r"|pg_(?:try_)?advisory\w*)\b",
    re.IGNORECASE,
)
TEXT_CHARS_MAX: Final = 50_000  # longer ones are not read


def only_reads(statement: str) -> bool:
    """Whether nothing is lost when its transaction is rolled back after it."""
    if len(statement) > TEXT_CHARS_MAX:
        return False
    bare = QUOTED.sub(" ", statement)
    return BEGINS.match(bare) is not None and MAY_WRITE.search(bare) is None
