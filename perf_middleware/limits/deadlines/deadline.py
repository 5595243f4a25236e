"""When a request must be answered, and how one server tells another how much time is left.

    grpc-timeout: 100m                          units H M S m u n, lower m is milliseconds
    x-envoy-expected-rq-timeout-ms: 100         a name in -ms: milliseconds
    x-request-timeout: 1.5     or 150ms         else seconds, or a unit: s ms us ns

A relative time is passed on, never a time of day: two clocks need not agree.  What the network
takes is lost to the one who asks.
Sources: gRPC over HTTP/2, "Timeout"; Envoy, "x-envoy-expected-rq-timeout-ms".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GRPC_TIMEOUT: Final = "grpc-timeout"
GRPC_VALUE_MAX: Final = 99_999_999  # "at most 8 digits"
NUMBER_CHARS_MAX: Final = 15  # of each side of the point: years, and less than a nanosecond
SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000
MICROSECOND_NS: Final = 1_000

UNITS_NS: Final = {
    b"H": 3_600 * SECOND_NS,
    b"M": 60 * SECOND_NS,
    b"S": SECOND_NS,
    b"m": MILLISECOND_NS,
    b"u": MICROSECOND_NS,
    b"n": 1,
    b"s": SECOND_NS,
    b"ms": MILLISECOND_NS,
    b"us": MICROSECOND_NS,
    b"ns": 1,
}
"""The one-letter ones up to n are gRPC's."""


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A time on the monotonic clock of this process, whole microseconds.  The sooner is less."""

    at_us: int

    def remaining_us(self, now_us: int) -> int:
        """Microseconds left at `now_us`; 0 once it is reached."""
        return max(self.at_us - now_us, 0)

    def sooner(self, other: Deadline | None) -> Deadline:
        """The one of two that comes first."""
        return self if other is None or self.at_us <= other.at_us else other


def unit_ns_of(header: str) -> int:
    """Nanoseconds of a number without a unit in the field `header`: its name says it."""
    return MILLISECOND_NS if header.lower().endswith("-ms") else SECOND_NS


def parse_timeout_us(value: bytes, *, unit_ns: int = SECOND_NS) -> int | None:
    """Microseconds, at least 1, rounded up; None for what is no positive time.

    `unit_ns` is that of a number without a unit.  0 is None: for some senders it means no limit.
    """
    value = value.strip(b" \t")
    number, unit = value[:-2], UNITS_NS.get(value[-2:])
    if unit is None or len(value) < 3:
        number, unit = value[:-1], UNITS_NS.get(value[-1:])
        if unit is None:
            number, unit = value, unit_ns
    whole, point, fraction = number.partition(b".")
    # bytes.isdigit knows ASCII digits alone, and is false for none.
    if not whole.isdigit() or len(whole) > NUMBER_CHARS_MAX:
        return None
    if point and (not fraction.isdigit() or len(fraction) > NUMBER_CHARS_MAX):
        return None
    # Whole numbers all the way: no float rounds a deadline.
    return -(-int(whole + fraction) * unit // (10 ** len(fraction) * MICROSECOND_NS)) or None


def timeout_value(remaining_us: int, header: str) -> str:
    """What the field `header` says of the time that is left; never 0, rounded down else."""
    remaining_ms = max(remaining_us // 1_000, 1)
    if header.lower() == GRPC_TIMEOUT:
        return f"{min(remaining_ms, GRPC_VALUE_MAX)}m"
    if unit_ns_of(header) == MILLISECOND_NS:
        return str(remaining_ms)
    return f"{remaining_ms // 1_000}.{remaining_ms % 1_000:03}"
