"""What holds for a request, prepared: which buckets it draws from, and what it is told.

    Plan      of a rule, of the marks on an endpoint, or of neither
      Batch   what is judged at one place, in one step
        Entry   one quota there: how to make the key, and the cost

Made once for each rule and endpoint: a request finds its plan by one look-up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.limits.rate.fields import FieldLines
from perf_middleware.limits.rate.figures import QuotaCounts
from perf_middleware.limits.rate.gcra import NEVER, Demand
from perf_middleware.limits.rate.keys import KeySpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from perf_middleware.limits.rate.gcra import Draw, Left
    from perf_middleware.limits.rate.keys import KeyOf
    from perf_middleware.limits.rate.specs import QuotaSpec

OUTER: Final = 0
INNER: Final = 1
EVERY: Final = 2
"""Where a batch is judged: around the user's middlewares, inside them, or all in one place."""

SUBSETS_MAX: Final = 64  # of the quotas of a batch whose lines and bodies are kept
_Violated: TypeAlias = tuple[tuple[str, bool], ...]  # the quota's name; whether it never passes
PROBLEM_TYPE: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
TITLE: Final = "Request cannot be satisfied as assigned quota has been exceeded"


class StandingQuota:
    """One quota as it stands: its name, its figures, and what it was asked to be."""

    __slots__ = ("counts", "limit", "name", "prefix", "quota", "spec")

    def __init__(self, name: str, spec: QuotaSpec) -> None:
        self.name = name
        self.spec = spec
        self.limit = spec.limit
        self.quota = spec.limit.quota()
        self.prefix = name.encode() + b"|"
        self.counts = QuotaCounts()


class Entry:
    """One quota of one plan.  `cost_of` and `exempts` are the app's own, and never raise."""

    __slots__ = (
        "cost", "cost_of", "counts", "exempts", "key_of", "name", "quota", "standing", "when_down",
    )  # fmt: skip

    def __init__(
        self,
        standing: StandingQuota,
        *,
        key_of: KeyOf,
        cost: int = 1,
        cost_of: Callable[[Mapping[str, Any]], int] | None = None,
        exempts: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        self.standing = standing
        self.name = standing.name
        self.quota = standing.quota
        self.counts = standing.counts
        self.when_down = standing.spec.when_down
        self.key_of = key_of
        self.cost = cost
        self.cost_of = cost_of
        self.exempts = exempts

    @property
    def is_plain(self) -> bool:
        """Whether it holds for every request, at one cost."""
        own = (self.cost_of, self.exempts)
        return own == (None, None) and isinstance(self.standing.spec.key, KeySpec)

    def demand(self, scope: Mapping[str, Any]) -> Demand | None:
        """What the request draws; None where this quota does not hold for it."""
        if self.exempts is not None and self.exempts(scope):
            return None
        key = self.key_of(scope)
        if key is None:
            return None
        cost = self.cost if self.cost_of is None else self.cost_of(scope)
        return None if cost < 1 else Demand(key, self.quota, cost, self.when_down)


class Batch:
    """What is judged in one step: `entries` refuse, `trials` (dry run) only count."""

    __slots__ = ("_bodies", "_draws", "_lines", "entries", "is_plain", "lines", "single", "trials")

    def __init__(self, entries: Sequence[Entry], trials: Sequence[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self.trials = tuple(trials)
        self.lines = _lines_of(self.entries)
        only = self.entries[0] if len(self.entries) == 1 and not self.trials else None
        # One quota with nothing to ask the app's code for but a key: the way of most requests.
        self.single = only if only and only.cost_of is None and only.exempts is None else None
        # What is known of each draw before there is a request, where they all are plain.
        self.is_plain = not self.trials and all(entry.is_plain for entry in self.entries)
        self._draws = tuple(
            [
                (
                    one.key_of,
                    one.cost * one.quota.interval_us,
                    one.quota.window_us,
                    one.quota.interval_us,
                )
                for one in self.entries
            ]
        )
        self._lines: dict[tuple[Entry, ...], FieldLines] = {}
        self._bodies: dict[_Violated, tuple[tuple[bytes, bytes], bytes]] = {}

    def draws(self, scope: Mapping[str, Any]) -> list[Draw]:
        """What a request draws, of a batch that is plain: no key is None."""
        return [
            (key_of(scope), charge_us, window_us, interval_us)  # type: ignore[misc]
            for key_of, charge_us, window_us, interval_us in self._draws
        ]

    def demands(
        self, entries: Sequence[Entry], scope: Mapping[str, Any]
    ) -> tuple[list[Entry], list[Demand]]:
        """Those of `entries` that hold for the request, and what it draws from each."""
        holding: list[Entry] = []
        demands: list[Demand] = []
        for entry in entries:
            demand = entry.demand(scope)
            if demand is None:
                entry.counts.exempt += 1
            else:
                holding.append(entry)
                demands.append(demand)
        return holding, demands

    def lines_of(self, entries: Sequence[Entry]) -> FieldLines:
        """The lines of some of the entries."""
        if len(entries) == len(self.entries):
            return self.lines
        subset = tuple(entries)
        lines = self._lines.get(subset)
        if lines is None:
            lines = _lines_of(subset)
            if len(self._lines) < SUBSETS_MAX:
                self._lines[subset] = lines
        return lines

    def body_of(
        self, entries: Sequence[Entry], left: Sequence[Left]
    ) -> tuple[tuple[bytes, bytes], bytes]:
        """The refusal as problem+json (RFC 9457), with the quotas that refuse; and its length."""
        key: _Violated
        if len(entries) == 1:
            key = ((entries[0].name, left[0].wait_us == NEVER),)
        else:
            key = tuple(
                [
                    (entry.name, wait_us == NEVER)
                    for entry, (_, wait_us, _) in zip(entries, left, strict=True)
                    if wait_us
                ]
            )
        known = self._bodies.get(key)
        if known is None:
            standing = {entry.standing.name: entry.standing for entry in entries}
            body = _body_of([(standing[name], never) for name, never in key])
            known = (b"content-length", b"%d" % len(body)), body
            if len(self._bodies) < SUBSETS_MAX:
                self._bodies[key] = known
        return known


class Plan:
    """What holds for a request: a batch for each place, None where nothing is judged there."""

    __slots__ = ("is_exempt", "messages", "requests")

    def __init__(self, entries: Sequence[Entry] = (), *, is_exempt: bool = False) -> None:
        self.is_exempt = is_exempt
        self.requests = _batches([e for e in entries if e.standing.spec.per == "request"])
        self.messages = _batches([e for e in entries if e.standing.spec.per == "message"])


def _batches(entries: Sequence[Entry]) -> tuple[Batch | None, Batch | None, Batch | None]:
    return (
        _batch([entry for entry in entries if entry.standing.spec.stands == "outer"]),
        _batch([entry for entry in entries if entry.standing.spec.stands == "inner"]),
        _batch(entries),
    )


def _batch(entries: Sequence[Entry]) -> Batch | None:
    if not entries:
        return None
    return Batch(
        [entry for entry in entries if not entry.standing.spec.dry_run],
        [entry for entry in entries if entry.standing.spec.dry_run],
    )


def _lines_of(entries: Sequence[Entry]) -> FieldLines:
    return FieldLines([(e.standing.name, e.standing.limit, e.quota) for e in entries])


def _body_of(violated: Sequence[tuple[StandingQuota, bool]]) -> bytes:
    first, never = next((each for each in violated if each[1]), violated[0])
    name, limit = first.name, first.limit
    detail = (
        f"This request costs more than the quota {name} ({limit}) ever has."
        if never
        else f"The quota {name} ({limit}) is used up for now."
    )
    return json.dumps(
        {
            "type": PROBLEM_TYPE,
            "status": 429,
            "title": TITLE,
            "detail": detail,
            "quota": name,
            "violated-policies": [standing.name for standing, _ in violated],
        },
        separators=(",", ":"),
    ).encode()
