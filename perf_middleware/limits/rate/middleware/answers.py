"""What a client is told: how much is left, or that it has to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.field_names import NAME
from perf_middleware.limits.rate.fields import RETRY_AFTER, SILENT, STATE, US, retry_after_s
from perf_middleware.limits.rate.plans import INNER, OUTER
from perf_middleware.problem import NO_STORE, PROBLEM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from perf_middleware.asgi import Message, Scope, Send
    from perf_middleware.limits.rate.fields import FieldLines
    from perf_middleware.limits.rate.gcra import Left
    from perf_middleware.limits.rate.plans import Batch, Entry
    from perf_middleware.limits.rate.runtime import RateLimit

TOLD: Final = "perf_middleware.ratelimit"
"""In a start message: its RateLimit fields are those of our inner layer; the outer one adds its
own.  Without it they are the app's, and stay alone."""

START: Final = "http.response.start"
ERRORS_FROM: Final = 400
_CONTENT_TYPE: Final = (b"content-type", PROBLEM)


def telling(
    rate: RateLimit,
    place: int,
    lines: FieldLines,
    left: Sequence[tuple[int, int, int]],
    send: Send,
) -> Send:
    """`send` that puts the fields into the head of the answer."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] != START:
            return send(message)
        return send(told(rate, place, lines, left, message))

    return sending


def telling_of_one(
    rate: RateLimit, lines: FieldLines, left: tuple[int, int, int], send: Send
) -> Send:
    """The same of one quota, outside of all others and without X-RateLimit: most answers.

    What is known of a head like one before, and not spent, takes half of the steps.
    """

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] != START:
            return send(message)
        remaining, _, full_us = left
        said = None
        try:
            headers = message["headers"]
            if type(headers) is list and remaining:
                said = rate.own_fields.known[(*map(NAME, headers),)]
        except (LookupError, TypeError):
            pass
        if said is not SILENT:
            return send(told(rate, OUTER, lines, (left,), message))
        full_s = -(-full_us // US)
        newest_remaining, newest_s, state = lines.newest
        if newest_remaining != remaining or newest_s != full_s:
            state = lines.state_field(remaining, full_s)
        changed = {**message}
        changed["headers"] = [*headers, lines.policy_field, state]
        return send(changed)

    return sending


def told(
    rate: RateLimit,
    place: int,
    lines: FieldLines,
    left: Sequence[tuple[int, int, int]],
    message: Message,
) -> Message:
    """The head with the fields, as far as the app leaves them to us."""
    # A new list: the app's may be shared between its answers.
    headers = [*(message.get("headers") or ())]
    own = rate.own_fields
    try:
        tells, comes_again, tells_legacy = own.known[tuple(map(NAME, headers))]
    except (LookupError, TypeError):
        tells, comes_again, tells_legacy = own.learn(headers)
    if tells and TOLD not in message:
        return message
    headers += lines.policy_field, (STATE, lines.state(left))
    is_spent = not (left[0][0] if len(left) == 1 else all(one[0] for one in left))
    if is_spent and not comes_again and message.get("status", 0) < ERRORS_FROM:
        # The last one for now.  What the app itself says of coming again counts more.
        wait_s = lines.next_s(left)
        if wait_s:
            headers.append((RETRY_AFTER, b"%d" % wait_s))
    if rate.tells_legacy and not tells_legacy:
        headers += lines.legacy(left)
    changed = {**message}
    changed["headers"] = headers  # one display of both would make a dict more
    if place == INNER:
        changed[TOLD] = True
    return changed


def refusal_of(
    rate: RateLimit,
    batch: Batch,
    entries: Sequence[Entry],
    left: Sequence[Left],
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The fields and the body of a 429."""
    length, body = batch.body_of(entries, left)
    headers = [_CONTENT_TYPE, length, NO_STORE]
    wait_s = retry_after_s(left)
    if wait_s is not None:
        headers.append((RETRY_AFTER, b"%d" % wait_s))
    if rate.tells:
        lines = batch.lines_of(entries)
        headers += (lines.policy_field, (STATE, lines.refused_state(left)))
        if rate.tells_legacy:
            headers += lines.legacy(left)
    return headers, body


async def refuse(
    rate: RateLimit,
    place: int,
    batch: Batch,
    entries: Sequence[Entry],
    left: Sequence[Left],
    scope: Scope,
    send: Send,
) -> None:
    """Answer with 429; what the request sends is not read."""
    headers, body = refusal_of(rate, batch, entries, left)
    start: dict[str, Any] = {"type": START, "status": 429, "headers": headers}
    if place == INNER and rate.tells:
        start[TOLD] = True
    await send(start)
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body})
