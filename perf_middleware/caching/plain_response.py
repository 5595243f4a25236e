"""What most answers become when they are stored: known head, one URL, no variants, no tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.caching.stored import (
    ENTRY_BYTES,
    NO_TAIL,
    NOT_SHOWN,
    US_PER_S,
    VALIDATED_FOR_S,
    StoredResponse,
)
from perf_middleware.caching.syntax.etags import parse_etag

if TYPE_CHECKING:
    from perf_middleware.caching.figures import RouteCounts
    from perf_middleware.caching.known_heads import Known
    from perf_middleware.coding_choice import Choice


def plain_response(
    known: Known,
    values: list[bytes],
    body: bytes,
    *,
    key: bytes,
    target: bytes,
    path: bytes,
    route: str,
    counts: RouteCounts,
    choice: Choice | None,
    age_us: int,
    produced_us: int,
    received_us: int,
    received_s: int,
) -> StoredResponse:
    """A StoredResponse with a known head that `is_plain`, under its URL alone and without tags.

    Every field is set here: to call the class with all of them takes as long as half of storing it.
    """
    shape, keep = known.shape, known.keep
    assert keep is not None  # noqa: S101 - is_plain
    stored = StoredResponse.__new__(StoredResponse)
    stored.primary = stored.key = key
    stored.target = target
    stored.path = path
    stored.status = known.status
    stored.headers = headers = known.headers.copy()
    names = shape.names
    for at in shape.own_at:  # as headers_with, without the cost of a call
        headers[at] = (names[at], values[at])
    stored._lines = shape.fields  # noqa: SLF001
    stored.body = body
    stored.rule = known.rule
    stored.route = route
    stored.counts = counts
    stored.choice = choice
    stored.shares_authorization = keep.shares_authorization
    stored.vary = stored.tags = stored.dependencies = ()
    stored.identity = b""
    stored.forms = None
    stored.hits = 0
    stored.size_bytes = (
        ENTRY_BYTES + known.head_bytes + len(body) + 3 * len(key) + len(b"".join(values))
    )
    known.head_bytes = known.shared_head_bytes
    etag_at, modified_at = shape.etag_at, shape.modified_at
    stored.etag = None if etag_at < 0 else parse_etag(values[etag_at])
    stored.last_modified = None if modified_at < 0 else values[modified_at]
    stored.lifetimes = keep.lifetimes
    stored.produced_us = produced_us
    stored.received_s = received_s
    stored.stored_us = received_us
    stored.born_us = born_us = received_us - age_us
    stored.fresh_until_us = stored.early_from_us = born_us + known.fresh_us
    stored.usable_until_us = born_us + known.usable_us
    stored.usable_if_error_us = born_us + known.usable_if_error_us
    stored.useless_from_us = born_us + known.useless_us
    if stored.etag is not None or stored.last_modified is not None:
        stored.useless_from_us += VALIDATED_FOR_S * US_PER_S
    stored.refresh_from_us = 0
    stored.tail = NO_TAIL
    stored.shown_until_us = NOT_SHOWN
    return stored
