"""Metric families: the one shape in which every feature offers its figures at scrape time.

    Family  name, kind, help, unit
      Value         one number under one label set      counters and gauges
      Distribution  cumulative buckets, sum, exemplars  histograms

Figures are pulled: a feature keeps plain counters and builds families only when asked, so a
request never pays for the shape.  A label set carries its rendered text, made once.
Sources: Prometheus text format 0.0.4; OpenMetrics 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

Across: TypeAlias = Literal["sum", "max", "min", "each"]
"""How worker processes combine into one figure; `each` keeps them apart by a `worker` label."""

NAME_PATTERN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
LABEL_VALUE_CHARS_MAX = 200  # a label is a name, not a payload; longer values are cut
OTHER = "other"


def cut_label_value(value: str) -> str:
    """`value`, or its beginning and an ellipsis where it is longer than a label should be."""
    if len(value) <= LABEL_VALUE_CHARS_MAX:
        return value
    return value[: LABEL_VALUE_CHARS_MAX - 1] + "…"


def escape_label_value(value: str) -> str:
    """`value` as it stands between the quotes: backslash, quote and line feed escaped."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class LabelSet:
    """An ordered set of label pairs and its text `a="1",b="2"`, rendered once.

    Values that are too long are cut, unless they come from elsewhere (`cut` false).
    """

    __slots__ = ("pairs", "text")

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), *, cut: bool = True) -> None:
        # A lone surrogate cannot be encoded as UTF-8: one bad label must not fail a whole scrape.
        self.pairs = tuple(
            (name, (cut_label_value(value) if cut else value).encode("utf-8", "replace").decode())
            for name, value in pairs
        )
        self.text = ",".join(f'{name}="{escape_label_value(value)}"' for name, value in self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSet) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        return f"LabelSet({{{self.text}}})"


NO_LABELS = LabelSet()


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observed value with the trace it came from; `at_s` is Unix time in seconds."""

    trace_id: str
    value: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Value:
    """One number under one label set."""

    labels: LabelSet
    value: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram under one label set.

    `cumulative` has one count per bound of the family and a last one for +Inf (the total count);
    `exemplars` maps the index of a bucket to the newest exemplar that fell into it.
    """

    labels: LabelSet
    cumulative: Sequence[int]
    sum: float
    exemplars: dict[int, Exemplar] | None = None


Point: TypeAlias = Value | Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A named figure and its points; `name` is without `_total`, with its unit as last word.

    `points` is read once, lazily, by whoever renders: a generator keeps a scrape of many series
    flat in memory.  `bounds` (upper bounds, without +Inf) only for histograms.
    """

    name: str
    kind: Kind
    help: str
    points: Iterable[Point]
    unit: str = ""
    bounds: Sequence[float] = ()
    across: Across = "sum"

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise ValueError(f"not a metric name: {self.name!r}")
        if self.unit and not self.name.endswith(f"_{self.unit}"):
            raise ValueError(f"{self.name} must end with its unit _{self.unit}")
        if self.kind == "counter" and self.name.endswith("_total"):
            raise ValueError(f"{self.name}: leave out _total, the exposition adds it")


Collector: TypeAlias = Callable[[], Iterable[Family]]
"""Offers a feature's families; called at every scrape, on the event loop: it must be quick."""


def counter(
    name: str,
    help: str,
    points: Iterable[Point],
    *,
    unit: str = "",
) -> Family:
    """A family of values that only grow; worker processes add up."""
    return Family(name=name, kind="counter", help=help, points=points, unit=unit)


def gauge(
    name: str,
    help: str,
    points: Iterable[Point],
    *,
    unit: str = "",
    across: Across = "sum",
) -> Family:
    """A family of values that go up and down; `across` says how worker processes combine."""
    return Family(name=name, kind="gauge", help=help, points=points, unit=unit, across=across)
