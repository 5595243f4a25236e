"""Keys of the query cache, in the words of the shelf that keeps them.

query:<what the caller says>                     get_or_execute
query!<database, plan, schemas, vary><values>    execute
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OWN: Final = "query:"
OF_STATEMENTS: Final = "query!"


def own_key(key: str) -> str:
    """The key of what a caller names himself."""
    return OWN + key


def prefix_of(key: str) -> str:
    """By what a caller's key is counted: its part before the first colon."""
    return key.partition(":")[0] or key


def statement_key(
    digest: bytes,
    label: str,
    *,
    schemas: Any,
    vary: Any,
    values: Iterable[Any],
    params: Any,
    text_of: Callable[[object], str | None],
) -> str | None:
    """The key of one statement with its values; None where one of them has no text.

    Each text is delimited by itself, so texts that follow each other stay apart.
    """
    given = text_of((tuple(values), params, vary, None if schemas is None else dict(schemas)))
    if given is None:
        return None
    made = blake2b(digest, digest_size=20)
    made.update(f"{label}\n{given}".encode("utf-8", "surrogatepass"))
    return OF_STATEMENTS + made.hexdigest()
