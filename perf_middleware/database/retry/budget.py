"""May a transaction be tried again, and when: attempts, tokens, deadline, full jitter.

    each run that succeeds  --ratio-->  [ tokens, tokens_max at most ]  --1-->  each retry

A retry takes a token, and only successes bring new ones: however many transactions fail, there are
never more retries than `tokens_max + ratio * successes`.  A server that is down gets its first few
retries, then each transaction once, and so an outage is not multiplied.
Conflicts (serialization, deadlock, busy) have tokens of their own and a larger ratio: there the
server is well, and trying again is how work is done under SERIALIZABLE.
Sources: Site Reliability Engineering, ch. 21 "Handling Overload" (retry budget); gRPC A6 (tokens,
counted in thousandths); Brooker, "Exponential Backoff And Jitter", 2015 (full jitter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from perf_middleware.database.retry.transient import Reason

Kind: TypeAlias = Literal["conflict", "connection"]
KINDS: Final[tuple[Kind, ...]] = ("conflict", "connection")
Why: TypeAlias = Literal["attempts", "budget", "deadline"]

MILLI: Final = 1000  # tokens are counted in thousandths: a ratio of 0.1 adds up to whole ones


def kind_of(reason: Reason) -> Kind:
    """Whose tokens a retry for `reason` takes."""
    return "connection" if reason == "connection" else "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `tokens_max` retries at once, and `ratio` of one for each success, in thousandths."""

    tokens_max_milli: int
    ratio_milli: int

    def __post_init__(self) -> None:
        if self.tokens_max_milli < MILLI or not 0 <= self.ratio_milli <= MILLI:
            raise ValueError(f"one token or more, a ratio from 0 to 1: {self}")

    def after_success(self, tokens_milli: int) -> int:
        """The tokens after one more run that succeeded."""
        return min(self.tokens_max_milli, tokens_milli + self.ratio_milli)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Attempts in all, and how long to wait between them at most."""

    attempts_max: int
    first_us: int
    most_us: int

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or not 1 <= self.first_us <= self.most_us:
            raise ValueError(f"one attempt or more, 1 <= first_us <= most_us: {self}")

    def delay_us(self, failures: int, draw: float) -> int:
        """Microseconds to wait after so many failures; `draw` is from 0 to 1.

        Anywhere between nothing and a bound that doubles: two that met in a conflict are unlikely
        to meet again.
        """
        bound_us = min(self.most_us, self.first_us * 2 ** min(failures - 1, 40))
        return int(bound_us * draw)


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again after `delay_us`; `tokens_milli` are left."""

    delay_us: int
    tokens_milli: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Let the error go up."""

    why: Why


def decide(
    backoff: Backoff,
    *,
    attempts: int,
    tokens_milli: int,
    remaining_us: int | None,
    draw: float,
) -> RetryAfter | GiveUp:
    """Judge one transient failure, the last of `attempts`; no token is taken unless it is retried.

    `remaining_us` of the request's deadline, None without one: a wait that would reach it is not
    begun, as its attempt could only be cut off.
    """
    if attempts >= backoff.attempts_max:
        return GiveUp("attempts")
    delay_us = backoff.delay_us(attempts, draw)
    if remaining_us is not None and delay_us >= remaining_us:
        return GiveUp("deadline")
    if tokens_milli < MILLI:
        return GiveUp("budget")
    return RetryAfter(delay_us, tokens_milli - MILLI)
