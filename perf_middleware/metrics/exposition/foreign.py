"""Figures that came from elsewhere: families of every OpenMetrics type, kept without loss.

The app may have registered its own figures with prometheus_client.  Their types (summary, info,
stateset, gauge histogram, unknown), time stamps and `_created` samples do not fit `Family`, which
is the shape of what we measure; here they keep their samples as they are.

Sources: OpenMetrics 1.0 §"Metric Types"; prometheus_client `exposition.generate_latest`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeAlias

from perf_middleware.families import (
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Value,
    escape_label_value,
)
from perf_middleware.metrics.exposition.textformat import (
    EXEMPLAR_RUNES_MAX,
    TextFormat,
    escape_help,
    number_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from perf_middleware.families import Across

Pairs: TypeAlias = tuple[tuple[str, str], ...]

ForeignKind: TypeAlias = Literal[
    "counter", "gauge", "summary", "histogram", "gaugehistogram", "unknown", "info", "stateset"
]

SUFFIXES: dict[str, tuple[str, ...]] = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "summary": ("", "_sum", "_count", "_created"),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("", "_bucket", "_gsum", "_gcount"),
    "unknown": ("",),
    "info": ("", "_info"),
    "stateset": ("",),
}
_APART = ("_created", "_gsum", "_gcount")  # OpenMetrics' own: gauges of their own in 0.0.4
_WITH_EXEMPLARS = ("_bucket", "_total")
_TEXT_KINDS = {
    "info": "gauge",
    "stateset": "gauge",
    "gaugehistogram": "histogram",
    "unknown": "untyped",
}
_ILLEGAL_IN_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_ILLEGAL_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_BATCH_LINES = 100


def legal_metric_name(name: str) -> str:
    """`name` with every character that 0.0.4 does not know as `_` (the scheme `underscores`)."""
    legal = _ILLEGAL_IN_NAME.sub("_", name)
    return "_" + legal[1:] if legal[:1].isdigit() else legal


def legal_labels(labels: Iterable[tuple[str, str]]) -> Pairs:
    """`labels` in the order of their names; of two names that become one the first stays."""
    legal: dict[str, str] = {}
    for name, value in sorted(labels):
        legal.setdefault(_legal_label_name(name), value)
    return tuple(legal.items())


@lru_cache(1_024)  # the same few names stand in thousands of samples
def _legal_label_name(name: str) -> str:
    legal = _ILLEGAL_IN_LABEL.sub("_", name)
    return "_" + legal[1:] if legal[:1].isdigit() else legal


def pairs_text(pairs: Iterable[tuple[str, str]]) -> str:
    """`pairs` as they stand between the braces."""
    return ",".join([f'{name}="{escape_label_value(value)}"' for name, value in pairs])


def exemplar_text(labels: Pairs, value: float, timestamp: str) -> str:
    """` # {labels} value timestamp`, or nothing where the labels are longer than allowed."""
    if sum([len(name) + len(text) for name, text in labels]) > EXEMPLAR_RUNES_MAX:
        return ""
    return f" # {{{pairs_text(labels)}}} {number_text(value)}{' ' * bool(timestamp)}{timestamp}"


@dataclass(frozen=True, slots=True)
class ForeignExemplar:
    """An exemplar with any labels; `timestamp` in seconds, as text, empty for none."""

    labels: Pairs
    value: float
    timestamp: str = ""


@dataclass(frozen=True, slots=True)
class ForeignSample:
    """One line; `suffix` is what its name has after the family's, `text` its rendered labels."""

    suffix: str
    labels: Pairs
    text: str
    value: float
    at_s: float | None = None
    exemplar: ForeignExemplar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFamily:
    """A family of any OpenMetrics type; names are legal in 0.0.4, `name` is without `_total`."""

    name: str
    kind: ForeignKind
    help: str
    samples: Sequence[ForeignSample]
    unit: str = ""

    @property
    def claimed_names(self) -> tuple[str, ...]:
        """Every sample and family name that this family takes, its own first."""
        return tuple([self.name + suffix for suffix in SUFFIXES[self.kind]])


def foreign_lines(
    family: ForeignFamily,
    format: TextFormat,
) -> Iterator[list[str]]:
    """The lines of `family`, header first, in groups of about a hundred."""
    if format == "openmetrics":
        yield _header(family.name, family.kind, family, format)
        lines = (_line(family.name, sample, with_exemplar=True) for sample in family.samples)
        while group := list(islice(lines, _BATCH_LINES)):
            yield group
        return
    name = family.name
    if family.kind in ("counter", "info"):
        name += "_total" if family.kind == "counter" else "_info"
    yield _header(name, _TEXT_KINDS.get(family.kind, family.kind), family, format)
    here = (sample for sample in family.samples if sample.suffix not in _APART)
    while batch := list(islice(here, _BATCH_LINES)):
        yield [_line(family.name, sample, with_exemplar=False) for sample in batch]
    for suffix in _APART:
        apart = (sample for sample in family.samples if sample.suffix == suffix)
        first = True
        while batch := list(islice(apart, _BATCH_LINES)):
            group = _header(family.name + suffix, "gauge", family, format) if first else []
            first = False
            yield group + [_line(family.name, sample, with_exemplar=False) for sample in batch]


def _header(
    name: str,
    kind: str,
    family: ForeignFamily,
    format: TextFormat,
) -> list[str]:
    lines = [f"# HELP {name} {escape_help(family.help, format)}\n"] if family.help else []
    lines.append(f"# TYPE {name} {kind}\n")
    if family.unit and format == "openmetrics":
        lines.append(f"# UNIT {name} {family.unit}\n")
    return lines


def _line(name: str, sample: ForeignSample, *, with_exemplar: bool) -> str:
    labels = f"{{{sample.text}}}" if sample.text else ""
    at, tail = "", ""
    if sample.at_s is not None:
        # Seconds in OpenMetrics, whole milliseconds in 0.0.4.
        at = f" {sample.at_s!r}" if with_exemplar else f" {int(sample.at_s * 1000)}"
    # OpenMetrics 1.0 §"Exemplars": a scraper refuses the page for one in any other place.
    if with_exemplar and sample.exemplar is not None and sample.suffix in _WITH_EXEMPLARS:
        exemplar = sample.exemplar
        tail = exemplar_text(exemplar.labels, exemplar.value, exemplar.timestamp)
    return f"{name}{sample.suffix}{labels} {number_text(sample.value)}{at}{tail}\n"


def to_family(foreign: ForeignFamily) -> Family | None:
    """`foreign` as one of ours, so that worker processes can add it up; None where it has no like.

    Counters, gauges and histograms have one.  Time stamps and `_created` are left behind, and an
    exemplar keeps one label: its trace id.
    """
    try:
        return _alike(foreign)
    except (ValueError, KeyError, TypeError, ArithmeticError):
        # A name or unit that prometheus_client allows and we do not; a bucket without its bound,
        # an infinite count: a collector of the app's own may give anything.
        return None


def _alike(foreign: ForeignFamily) -> Family | None:
    match foreign.kind:
        case "counter":
            return Family(
                name=foreign.name,
                kind="counter",
                help=foreign.help,
                unit=foreign.unit,
                points=[
                    Value(_uncut(sample.labels), sample.value)
                    for sample in foreign.samples
                    if sample.suffix == "_total"
                ],
            )
        case "gauge":
            # What a gauge of theirs means across processes is not said: kept apart.
            return _gauge(foreign, name=foreign.name, suffix="", across="each")
        case "histogram":
            return _histogram(foreign)
        case "summary":
            return _summary(foreign)
        case "info":
            # The same in every worker, as a rule: shown once where it is.
            return _gauge(foreign, name=f"{foreign.name}_info", suffix="_info", across="max")
        case "stateset" | "unknown":
            return _gauge(foreign, name=foreign.name, suffix="", across="each")
        case _:
            return None


def _gauge(foreign: ForeignFamily, *, name: str, suffix: str, across: Across) -> Family:
    return Family(
        name=name,
        kind="gauge",
        help=foreign.help,
        across=across,
        points=[
            Value(_uncut(sample.labels), sample.value)
            for sample in foreign.samples
            if sample.suffix == suffix
        ],
    )


def _summary(foreign: ForeignFamily) -> Family:
    """Count and sum add up, quantiles do not: a histogram of one bucket has just the two."""
    sums = {s.labels: s.value for s in foreign.samples if s.suffix == "_sum"}
    return Family(
        name=foreign.name,
        kind="histogram",
        help=foreign.help,
        unit=foreign.unit,
        points=[
            Distribution(_uncut(s.labels), [int(s.value)], sums.get(s.labels, 0.0))
            for s in foreign.samples
            if s.suffix == "_count"
        ],
    )


def _histogram(foreign: ForeignFamily) -> Family | None:
    buckets: dict[Pairs, list[tuple[float, ForeignSample]]] = {}
    sums: dict[Pairs, float] = {}
    for sample in foreign.samples:
        if sample.suffix == "_sum":
            sums[sample.labels] = sample.value
        elif sample.suffix == "_bucket":
            rest = tuple([pair for pair in sample.labels if pair[0] != "le"])
            bound = float(dict(sample.labels)["le"])
            buckets.setdefault(rest, []).append((bound, sample))
    bounds: list[float] | None = None
    points = []
    for labels, series in buckets.items():
        series.sort(key=lambda pair: pair[0])
        own = [bound for bound, _ in series]
        if not own or own[-1] != float("inf") or own != (bounds or own):
            return None  # a family of ours has the same bounds in all its series
        bounds = own
        points.append(
            Distribution(
                _uncut(labels),
                [int(sample.value) for _, sample in series],
                sums.get(labels, 0.0),
                {
                    index: _our_exemplar(sample.exemplar)
                    for index, (_, sample) in enumerate(series)
                    if sample.exemplar is not None
                },
            )
        )
    return Family(
        name=foreign.name,
        kind="histogram",
        help=foreign.help,
        unit=foreign.unit,
        points=points,
        bounds=tuple((bounds or [])[:-1]),
    )


def _uncut(labels: Pairs) -> LabelSet:
    # As long as the app made them: cut ones could become alike, and two series one.
    return LabelSet(labels, cut=False)


def _our_exemplar(exemplar: ForeignExemplar) -> Exemplar:
    labels = {name.lower().replace("_", ""): value for name, value in exemplar.labels}
    trace_id = labels.get("traceid") or next(iter(labels.values()), "")
    return Exemplar(trace_id, exemplar.value, float(exemplar.timestamp or "0"))
