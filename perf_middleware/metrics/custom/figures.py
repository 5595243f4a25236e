"""The app's own figures: created once by name, checked when they are created.

Names are code, not data: a name that cannot be exposed, or that means two things, is refused with
ConfigurationError where it is written.  Source: OpenMetrics 1.0 §"Metric Names", §"Labels".
"""

from __future__ import annotations

import math
from itertools import pairwise
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from perf_middleware.errors import ConfigurationError
from perf_middleware.families import NAME_PATTERN
from perf_middleware.metrics.custom.instruments import (
    Counter,
    Gauge,
    Histogram,
    LabelOverflow,
)
from perf_middleware.metrics.exposition.page import claimed_names
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from perf_middleware.families import Across, Family

InstrumentT = TypeVar("InstrumentT", Counter, Gauge, Histogram)

RESERVED_PREFIXES = ("perf_", "http_request", "http_response")  # ours, now and later
LABEL_SETS_MAX = 1_000
METRICS_MAX = 1_000  # names come from code; a name made from data would grow without end
BOUNDS_MAX = 100
LABEL_NAMES_MAX = 20

# What a call already means: inc(amount), set(value), and the bucket label of a histogram.
_RESERVED_LABELS = ("self", "amount", "value", "le", "quantile")


class CustomMetrics:
    """Counters, gauges and histograms of the app, by name.

    Asking again for a name with the same shape returns the same object, so a module may create
    its figures where it uses them.  Past METRICS_MAX names a new one still works but is not
    exposed; `LabelOverflow` counts it as `perf_metrics_names`.
    """

    def __init__(
        self,
        *,
        label_sets_max: int = LABEL_SETS_MAX,
        bounds: Sequence[float] = DEFAULT_BUCKETS_S,
        overflow: LabelOverflow | None = None,
    ) -> None:
        self._label_sets_max = label_sets_max
        self._default_bounds = tuple(bounds)
        self.overflow = LabelOverflow() if overflow is None else overflow
        self._lock = RLock()  # a finalizer may come in between and ask for a figure
        self._instruments: dict[str, Counter | Gauge | Histogram] = {}
        self._claimed: dict[str, str] = {}

    def counter(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        unit: str = "",
    ) -> Counter:
        """A number that only grows; exposed as `<name>_<unit>_total`.

        Raises ConfigurationError for a name or labels that cannot be used.
        """
        return self._get(Counter, name.removesuffix("_total"), help, labels, unit)

    def gauge(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        unit: str = "",
        *,
        across: Across = "sum",
    ) -> Gauge:
        """A number that goes up and down; `across` says how worker processes make one of it.

        Raises ConfigurationError for a name or labels that cannot be used.
        """
        return self._get(Gauge, name, help, labels, unit, across=across)

    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] | None = None,
        unit: str = "",
    ) -> Histogram:
        """How values spread; `bounds` are the buckets' upper ends, rising, without +Inf.

        Raises ConfigurationError for a name, labels or bounds that cannot be used.
        """
        chosen = self._default_bounds if bounds is None else _checked_bounds(name, bounds)
        return self._get(Histogram, name, help, labels, unit, bounds=chosen)

    def families(self) -> Iterator[Family]:
        """All figures of the app, and how often one had no room for its labels."""
        for instrument in tuple(self._instruments.values()):
            yield instrument.family()
        yield from self.overflow.families()

    def reset(self) -> None:
        """Set every figure to zero; names and label sets stay."""
        for instrument in tuple(self._instruments.values()):
            instrument.reset()
        self.overflow.reset()

    def _get(
        self,
        instrument_type: type[InstrumentT],
        name: str,
        help: str,
        labels: Sequence[str],
        unit: str,
        *,
        bounds: tuple[float, ...] = (),
        across: Across = "sum",
    ) -> InstrumentT:
        full_name = f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name
        label_names = _checked_labels(full_name, labels, across)
        wanted = _shape(instrument_type.kind, label_names, unit, bounds, across)
        with self._lock:
            known = self._instruments.get(full_name)
            if known is not None:
                has = _shape(known.kind, known.label_names, known.unit, known.bounds, known.across)
                if isinstance(known, instrument_type) and has == wanted:
                    return known
                raise ConfigurationError(f"{full_name} is already {has}; it cannot be {wanted} too")
            claims = claimed_names(full_name, instrument_type.kind)
            self._check_name_locked(full_name, claims, wanted)
            instrument = instrument_type(
                full_name,
                help,
                label_names=label_names,
                unit=unit,
                bounds=bounds,
                across=across,
                label_sets_max=self._label_sets_max,
                overflow=self.overflow,
            )
            full = len(self._instruments) >= METRICS_MAX
            if not full:
                self._instruments[full_name] = instrument
                self._claimed.update(dict.fromkeys(claims, full_name))
        if full:
            self.overflow.add("perf_metrics_names", METRICS_MAX)
        return instrument

    def _check_name_locked(self, name: str, claims: Iterable[str], wanted: str) -> None:
        if not NAME_PATTERN.fullmatch(name) or len(name) > 200:
            raise ConfigurationError(
                f"{name!r} is not a metric name: letters, digits and _, at most 200, no digit first"
            )
        if name.startswith(RESERVED_PREFIXES):
            raise ConfigurationError(
                f"{name}: names that start with {', '.join(RESERVED_PREFIXES)} belong to "
                "perf_middleware"
            )
        for claim in claims:
            owner = self._claimed.get(claim)
            if owner is not None:
                raise ConfigurationError(
                    f"{name} ({wanted}) and {owner} would both be exposed as {claim}: rename one"
                )


def _checked_labels(name: str, labels: Sequence[str], across: Across) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ConfigurationError(f"{name}: labels must be a list of names, not {labels!r}")
    names = tuple(labels)
    reserved = (*_RESERVED_LABELS, "worker") if across == "each" else _RESERVED_LABELS
    for label in names:
        if not NAME_PATTERN.fullmatch(label) or label.startswith("__") or label in reserved:
            raise ConfigurationError(
                f"{name}: {label!r} is not a label name: letters, digits and _, not starting with "
                f"__, none of {', '.join(reserved)}"
            )
    if len(set(names)) != len(names) or len(names) > LABEL_NAMES_MAX:
        raise ConfigurationError(
            f"{name}: label names must differ and be at most {LABEL_NAMES_MAX}: {', '.join(names)}"
        )
    return names


def _checked_bounds(name: str, bounds: Sequence[float]) -> tuple[float, ...]:
    checked = tuple([float(bound) for bound in bounds])
    if checked and checked[-1] == math.inf:
        checked = checked[:-1]  # always there, and often written
    rising = all(a < b for a, b in pairwise(checked))
    if not 1 <= len(checked) <= BOUNDS_MAX or not rising or not all(map(math.isfinite, checked)):
        raise ConfigurationError(
            f"{name}: bounds must be 1 to {BOUNDS_MAX} rising numbers: {list(bounds)[:10]}"
        )
    return checked


def _shape(
    kind: str, labels: tuple[str, ...], unit: str, bounds: tuple[float, ...], across: str
) -> str:
    parts = [f"a {kind} with the labels ({', '.join(labels)})"]
    if unit:
        parts.append(f"unit {unit}")
    if bounds:
        parts.append(f"bounds {list(bounds)}")
    if across != "sum":
        parts.append(f"across {across}")
    return ", ".join(parts)
