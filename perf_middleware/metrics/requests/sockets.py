"""What is counted of websockets, apart from requests: a connection may last for days."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.families import (
    NO_LABELS,
    OTHER,
    Family,
    LabelSet,
    Value,
    counter,
    cut_label_value,
    gauge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

SERIES_MAX = 1_000  # (route, outcome) combinations and routes kept apart
PROTOCOL_CODE_MAX = 1015  # the last one that RFC 6455 §7.4.1 defines


class SocketFigures:
    """Connections by route and outcome, those open now, messages in and out.

    The outcome is `rejected` (never accepted), or the close code that ended the connection: those
    of the protocol one by one, registered and private ones as `3xxx` and `4xxx`, because a client
    may choose any of them (RFC 6455 §7.4).  What is no such code is `other`.
    """

    def __init__(self) -> None:
        self.open = 0
        self.overflowed = 0
        self.overflow_told = False
        self._ended: dict[tuple[str, str], int] = {}
        self._traffic: dict[str, list[int]] = {}  # received, sent, open nanoseconds

    def count(self, route: str, code: object, *, received: int, sent: int, open_ns: int) -> None:
        """Count a connection that has ended; `code` None means that it was never accepted."""
        outcome = _outcome(code)
        # As it will stand on the page: two routes that look alike there must be one series.
        route = cut_label_value(route).encode("utf-8", "replace").decode()
        if (route, outcome) not in self._ended and len(self._ended) >= SERIES_MAX:
            route, outcome = OTHER, OTHER
            self.overflowed += 1
        self._ended[(route, outcome)] = self._ended.get((route, outcome), 0) + 1
        traffic = self._traffic.setdefault(route, [0, 0, 0])
        traffic[0] += received
        traffic[1] += sent
        traffic[2] += open_ns

    def reset(self) -> None:
        """Every count back to zero; what is open stays."""
        self._ended.clear()
        self._traffic.clear()
        self.overflowed = 0

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        traffic = [(LabelSet((("route", r),)), t) for r, t in list(self._traffic.items())]
        yield counter(
            "perf_websocket_connections",
            "Websocket connections that have ended, by route template and close code.",
            [
                Value(LabelSet((("route", route), ("outcome", outcome))), count)
                for (route, outcome), count in list(self._ended.items())
            ],
        )
        yield gauge(
            "perf_websockets_open", "Websockets that are open now.", [Value(NO_LABELS, self.open)]
        )
        yield counter(
            "perf_websocket_open_seconds",
            "Time that ended websockets were open, added up.",
            [Value(labels, t[2] / 1e9) for labels, t in traffic],
            unit="seconds",
        )
        yield counter(
            "perf_websocket_messages_received",
            "Messages received on ended websockets.",
            [Value(labels, t[0]) for labels, t in traffic],
        )
        yield counter(
            "perf_websocket_messages_sent",
            "Messages sent on ended websockets.",
            [Value(labels, t[1]) for labels, t in traffic],
        )
        yield counter(
            "perf_websockets_overflow",
            f"Websockets counted under the route `other`: {SERIES_MAX} series were there already.",
            [Value(NO_LABELS, self.overflowed)],
        )


def _outcome(code: object) -> str:
    if code is None:
        return "rejected"
    if not isinstance(code, int):  # an app may send anything
        return OTHER
    if 1000 <= code <= PROTOCOL_CODE_MAX:
        return str(code)
    return f"{code // 1000}xxx" if 3000 <= code <= 4999 else OTHER
