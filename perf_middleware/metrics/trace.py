"""W3C Trace Context: read `traceparent`, name this request's own span, offer it to outgoing calls.

    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
                 version  trace-id (16 bytes)        parent-id (8)    flags

We take part in a trace that comes in and start an unsampled one where none does: no span is
recorded here, so we must not claim that one was.
Source: W3C Trace Context, level 2, §3.2 (traceparent), §3.3 (tracestate).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
TRACEPARENT_BYTES_MAX = 512  # version 00 has 55; a later version may be longer, but not absurd
TRACESTATE_BYTES_MAX = 512  # §3.3.1.5: what every participant should at least propagate
_SAMPLED = 0x01
_RANDOM_TRACE_ID = 0x02


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: `span_id` is ours, `parent_id` the caller's (None: it starts here)."""

    trace_id: str
    span_id: str
    parent_id: str | None
    sampled: bool
    random_trace_id: bool = False
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header value for a call that this request makes, or for `traceresponse`."""
        flags = _SAMPLED * self.sampled | _RANDOM_TRACE_ID * self.random_trace_id
        return f"00-{self.trace_id}-{self.span_id}-{flags:02x}"

    def headers(self) -> dict[str, str]:
        """What to add to an outgoing request: `traceparent`, and `tracestate` where one came in."""
        headers = {"traceparent": self.traceparent}
        if self.tracestate:
            headers["tracestate"] = self.tracestate
        return headers


def parse_traceparent(value: bytes) -> tuple[str, str, int] | None:
    """Trace id, parent id and flags, or None where the value is not valid (§3.2.2).

    Zero ids, upper case and version ff are invalid; a later version is read as far as 00 goes.
    """
    if len(value) > TRACEPARENT_BYTES_MAX:
        return None
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest):
        return None
    if trace_id == b"0" * 32 or parent_id == b"0" * 16:
        return None
    return trace_id.decode(), parent_id.decode(), int(flags, 16)


def join_tracestate(values: list[bytes]) -> str:
    """The `tracestate` lines as one value, or "" where it is broken or too long (§3.3)."""
    joined = b",".join(value.strip(b" \t") for value in values if value.strip(b" \t"))
    if len(joined) > TRACESTATE_BYTES_MAX or not all(0x20 <= byte <= 0x7E for byte in joined):
        return ""
    return joined.decode()


def take_part(
    traceparents: list[bytes], tracestates: list[bytes], *, random_bits: int
) -> TraceContext:
    """This request's place in the trace that it came with, or in one that starts here.

    `random_bits` are at least 192 random bits.  Two traceparent lines are as good as none (§3.2).
    """
    span_id = f"{random_bits & ((1 << 64) - 1) or 1:016x}"
    parsed = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    if parsed is None:
        trace_id = f"{(random_bits >> 64) & ((1 << 128) - 1) or 1:032x}"
        return TraceContext(trace_id, span_id, None, sampled=False, random_trace_id=True)
    trace_id, parent_id, flags = parsed
    return TraceContext(
        trace_id,
        span_id,
        parent_id,
        sampled=bool(flags & _SAMPLED),
        random_trace_id=bool(flags & _RANDOM_TRACE_ID),
        tracestate=join_tracestate(tracestates),
    )
