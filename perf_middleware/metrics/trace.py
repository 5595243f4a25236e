"""W3C Trace Context: read `traceparent`, name this request's own span, offer it to outgoing calls.

    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
                 version  trace-id (16 bytes)        parent-id (8)    flags

We take part in a trace that comes in and start an unsampled one where none does: no span is
recorded here, so we must not claim that one was.
Source: W3C Trace Context, level 2, §3.2 (traceparent), §3.3 (tracestate).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perf_middleware.asgi import RawHeaders

_TRACEPARENT = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
TRACEPARENT_BYTES_MAX = 512  # version 00 has 55; a later version may be longer, but not absurd
TRACESTATE_BYTES_MAX = 512  # §3.3.1.5: what every participant should at least propagate
TRACESTATE_MEMBERS_MAX = 32  # §3.3.1.1
_SAMPLED = 0x01
_RANDOM_TRACE_ID = 0x02
_FLAGS_TEXT = ("00", "01", "02", "03")
_ZERO_SPAN = "0" * 16


class TraceContext:
    """A place in a trace: `span_id` is ours, `parent_id` the caller's (None: it starts here).

    `flags` are those to pass on: sampled as the caller decided, never on our own account.
    """

    # Plain slots: a frozen dataclass takes three times as long to make, and one may be made for
    # every request.
    __slots__ = ("flags", "parent_id", "span_id", "trace_id", "tracestate")

    def __init__(
        self, trace_id: str, span_id: str, parent_id: str | None, flags: int, tracestate: str = ""
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.flags = flags
        self.tracestate = tracestate

    def __repr__(self) -> str:
        return f"TraceContext({self.traceparent!r}, parent_id={self.parent_id!r})"

    @property
    def sampled(self) -> bool:
        """Whether the caller says that this trace is being recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header value for a call that this request makes, or for `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-{_FLAGS_TEXT[self.flags]}"

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
    if sum(not member.isspace() for member in joined.split(b",") if member) > (
        TRACESTATE_MEMBERS_MAX
    ):
        return ""
    return joined.decode()


def traceparent_of_fresh(fresh_ids: str) -> bytes:
    """The traceparent of a trace that starts with these 48 hex digits: not sampled, random id."""
    return f"00-{fresh_ids[:32]}-{fresh_ids[32:]}-02".encode()


def take_part(headers: RawHeaders, *, fresh_ids: str) -> TraceContext:
    """This request's place in the trace that its headers name, or in one that starts here.

    `fresh_ids` are 48 random hex digits: a trace id and a span id.  Two traceparent lines are as
    good as none (§3.2).
    """
    # An id of zeros is invalid (§3.2.2.3, §3.2.2.4).
    span_id = fresh_ids[32:] if fresh_ids[32:] != _ZERO_SPAN else _ZERO_SPAN[1:] + "1"
    for name, _ in headers:
        if name == b"traceparent":
            break
    else:
        return TraceContext(fresh_ids[:32], span_id, None, _RANDOM_TRACE_ID)
    traceparents = [value for name, value in headers if name == b"traceparent"]
    parsed = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    if parsed is None:
        return TraceContext(fresh_ids[:32], span_id, None, _RANDOM_TRACE_ID)
    trace_id, parent_id, flags = parsed
    known = flags & (_SAMPLED | _RANDOM_TRACE_ID)
    tracestate = join_tracestate([value for name, value in headers if name == b"tracestate"])
    return TraceContext(trace_id, span_id, parent_id, known, tracestate)
