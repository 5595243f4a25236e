"""W3C Trace Context: read `traceparent`, name this request's own span, offer it to outgoing calls.

    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
                 version  trace-id (16 bytes)        parent-id (8)    flags

We take part in a trace that comes in and start an unsampled one where none does: no span is
recorded here, so we must not claim that one was.
Source: W3C Trace Context, level 2, §3.2 (traceparent), §3.3 (tracestate).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perf_middleware.asgi import RawHeaders

_HEX = b"0123456789abcdef"
_DASH = ord("-")
_BYTES_00 = 55  # version 00 has exactly so many; a later version begins with the same fields
TRACEPARENT_BYTES_MAX = 512  # a later version may be longer, but not absurd
TRACESTATE_BYTES_MAX = 512  # §3.3.1.5: what every participant should at least propagate
TRACESTATE_MEMBERS_MAX = 32  # §3.3.1.1
_SAMPLED = 0x01
_RANDOM_TRACE_ID = 0x02
_FLAGS_TEXT = ("00", "01", "02", "03")
_ZERO_TRACE = "0" * 32
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
    if not _BYTES_00 <= len(value) <= TRACEPARENT_BYTES_MAX:
        return None
    fields = value[:_BYTES_00]
    # Without its hex digits only the three dashes are left: half the time of a regular expression.
    if fields.translate(None, _HEX) != b"---" or not (
        fields[2] == fields[35] == fields[52] == _DASH
    ):
        return None
    text = fields.decode()
    version, trace_id, parent_id = text[:2], text[3:35], text[36:52]
    if len(value) > _BYTES_00 and (version == "00" or value[_BYTES_00] != _DASH):
        return None
    if version == "ff" or trace_id == _ZERO_TRACE or parent_id == _ZERO_SPAN:
        return None
    return trace_id, parent_id, int(text[53:], 16)


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


def take_part(headers: RawHeaders, *, start: bytes) -> TraceContext:
    """This request's place in the trace that its headers name, or in the one of `start`.

    `start` is a valid traceparent; its span id is ours in any case.  Two traceparent lines are as
    good as none (§3.2).
    """
    span_id = start[36:52].decode()
    incoming: bytes | None = None
    for name, value in headers:
        if name == b"traceparent":
            if incoming is not None:
                incoming = None
                break
            incoming = value
    parsed = None if incoming is None else parse_traceparent(incoming)
    if parsed is None:
        return TraceContext(start[3:35].decode(), span_id, None, _RANDOM_TRACE_ID)
    trace_id, parent_id, flags = parsed
    known = flags & (_SAMPLED | _RANDOM_TRACE_ID)
    tracestates = [value for name, value in headers if name == b"tracestate"]
    tracestate = join_tracestate(tracestates) if tracestates else ""
    return TraceContext(trace_id, span_id, parent_id, known, tracestate)
