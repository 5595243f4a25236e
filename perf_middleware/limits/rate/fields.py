"""What an answer tells of the quotas: RateLimit-Policy, RateLimit, Retry-After.

    RateLimit-Policy: "default";q=100;w=60, "daily";q=10000;w=86400     the same for each request
    RateLimit: "default";r=50;t=30, "daily";r=9412;t=5081               what is left

`r` requests may come within the next `t` seconds.  A bucket fills steadily: while there is
something in it, `t` is until it is full; an empty one tells when the next request may come.
Sources: draft-ietf-httpapi-ratelimit-headers-10 §3, §4, §6 (its -11 says the same); RFC 9651 §3.1,
§4.1 (lists, strings); RFC 9110 §10.2.3 (Retry-After).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.limits.rate.gcra import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.limits.rate.gcra import Left, Quota
    from perf_middleware.limits.rate.limit_texts import Limit

POLICY: Final = b"ratelimit-policy"
STATE: Final = b"ratelimit"
RETRY_AFTER: Final = b"retry-after"
OURS: Final = frozenset({POLICY, STATE})
LEGACY: Final = b"x-ratelimit-"
LEGACY_LIMIT: Final = b"x-ratelimit-limit"
LEGACY_REMAINING: Final = b"x-ratelimit-remaining"
LEGACY_RESET: Final = b"x-ratelimit-reset"

US: Final = 1_000_000
SILENT: Final = (False, False, False)
"""What `own_fields` says of most apps; this very tuple."""


def quoted(name: str) -> bytes:
    """`name` as a string of a structured field; raises ValueError for what cannot be one."""
    if not (name.isascii() and name.isprintable()):
        raise ValueError(f"not printable ASCII: {name!r}")
    return b'"' + name.replace("\\", r"\\").replace('"', r"\"").encode("ascii") + b'"'


def seconds_up(time_us: int) -> int:
    """Whole seconds that are over when `time_us` is: rounded up."""
    return -(-time_us // US)


def retry_after_s(left: Sequence[Left]) -> int | None:
    """Seconds after which a refused request passes; None: it never will, its cost is too high.

    The longest wait counts: who comes back after exactly so long is admitted, unless others have
    drawn from the same bucket meanwhile.
    """
    if len(left) == 1 and left[0].wait_us > 0:
        return -(-left[0].wait_us // US)
    longest_us = 0
    for _, wait_us, _ in left:
        if wait_us == NEVER:
            return None
        if wait_us > longest_us:
            longest_us = wait_us
    return -(-longest_us // US)


def own_fields(names: Sequence[bytes]) -> tuple[bool, bool, bool]:
    """Whether an app tells of its quotas itself, when to come again, and X-RateLimit-*."""
    said = (
        not OURS.isdisjoint(names),
        RETRY_AFTER in names,
        any(name.startswith(LEGACY) for name in names),
    )
    return SILENT if said == SILENT else said


class FieldLines:
    """The lines about some quotas, each by its name, its limit and its quota."""

    __slots__ = (
        "_items", "_refusals", "_spent_us", "_template", "limits", "newest", "policy",
        "policy_field",
    )  # fmt: skip

    def __init__(self, named: Sequence[tuple[str, Limit, Quota]]) -> None:
        names = [quoted(name) for name, _, _ in named]
        self.policy = b", ".join(
            b"%b;q=%d;w=%d" % (name, limit.count, limit.seconds)
            for name, (_, limit, _) in zip(names, named, strict=True)
        )
        self.policy_field = (POLICY, self.policy)
        self.limits = tuple(limit.count for _, limit, _ in named)
        self._spent_us = tuple(quota.window_us - quota.interval_us for _, _, quota in named)
        # As parts of a template: a percent sign in a name is none of its own.
        self._items = tuple(name.replace(b"%", b"%%") + b";r=%d;t=%d" for name in names)
        self._template = b", ".join(self._items)
        self._refusals = names
        self.newest = -1, -1, (STATE, b"")
        """(remaining, seconds, line) told last by state_field; -1, -1 before any."""

    def state(self, left: Sequence[tuple[int, int, int]]) -> bytes:
        """RateLimit of an admitted request: `t` is until all is left again.

        Where nothing is left, until one request passes.
        """
        if len(left) == 1:
            ((remaining, _, full_us),) = left
            if not remaining:
                full_us -= self._spent_us[0]
            return self._template % (remaining, -(-full_us // US))
        values: list[int] = []
        for (remaining, _, full_us), spent_us in zip(left, self._spent_us, strict=True):
            until_us = full_us if remaining > 0 else full_us - spent_us
            values += (remaining, -(-until_us // US))
        return self._template % tuple(values)

    def state_field(self, remaining: int, full_s: int) -> tuple[bytes, bytes]:
        """The line of one quota that has something left, and is full in so many seconds.

        Many clients are told the same: `newest` may be read instead.
        """
        line = STATE, self._template % (remaining, full_s)
        self.newest = remaining, full_s, line
        return line

    def next_s(self, left: Sequence[tuple[int, int, int]]) -> int:
        """Seconds until a next request passes, after one that was admitted; 0: at once."""
        longest_us = 0
        for (remaining, _, full_us), spent_us in zip(left, self._spent_us, strict=True):
            if not remaining and full_us - spent_us > longest_us:
                longest_us = full_us - spent_us
        return -(-longest_us // US)

    def refused_state(self, left: Sequence[Left]) -> bytes:
        """RateLimit of a refused one: only the quotas that refuse it, until they would not.

        So that no window ends after Retry-After does (§6).
        """
        if len(left) == 1 and left[0].wait_us > 0:
            return self._items[0] % (left[0].remaining, -(-left[0].wait_us // US))
        items: list[bytes] = []
        for (remaining, wait_us, _), name in zip(left, self._refusals, strict=True):
            if wait_us == NEVER:
                items.append(b"%b;r=%d" % (name, remaining))
            elif wait_us:
                items.append(b"%b;r=%d;t=%d" % (name, remaining, -(-wait_us // US)))
        return b", ".join(items)

    def legacy(self, left: Sequence[tuple[int, int, int]]) -> list[tuple[bytes, bytes]]:
        """X-RateLimit-* of the quota that has the least left; Reset is in seconds from now."""
        at = min(range(len(left)), key=lambda number: left[number][0])
        remaining, wait_us, full_us = left[at]
        reset_us = full_us if wait_us in (0, NEVER) else wait_us
        return [
            (LEGACY_LIMIT, b"%d" % self.limits[at]),
            (LEGACY_REMAINING, b"%d" % remaining),
            (LEGACY_RESET, b"%d" % -(-reset_us // US)),
        ]
