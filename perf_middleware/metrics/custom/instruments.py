"""Counters, gauges and histograms with labels: which series does a call mean?

    labels given --> all names there? --> seen before? --> its cell
                          |                  | no
                     MetricUseError     room for one more? --> a new cell
                                             | no
                                        the cell whose labels are all `other`

Invariant: a metric has at most `label_sets_max` series and one more for the overflow, whatever
values it is called with.
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Generic, TypeVar

from perf_middleware import families
from perf_middleware.errors import MetricUseError
from perf_middleware.families import OTHER, Family, LabelSet
from perf_middleware.metrics.custom.cells import CounterCell, GaugeCell, HistogramCell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perf_middleware.families import Across, Kind, Point

CellT = TypeVar("CellT", CounterCell, GaugeCell, HistogramCell)

OVERFLOW_METRIC = "perf_metrics_label_overflow"


class LabelOverflow:
    """Counts, per metric, the calls that found no room for their labels.

    `on_first(metric, label_sets_max)` is called at the first one of each metric.
    """

    def __init__(self, on_first: Callable[[str, int], None] | None = None) -> None:
        self._on_first = on_first
        self._lock = RLock()
        self._counts: dict[str, int] = {}

    def add(self, metric: str, label_sets_max: int) -> None:
        """Count one call."""
        with self._lock:
            first = metric not in self._counts
            self._counts[metric] = self._counts.get(metric, 0) + 1
        if first and self._on_first is not None:
            self._on_first(metric, label_sets_max)

    def count(self, metric: str) -> int:
        """How many calls of `metric` found no room."""
        return self._counts.get(metric, 0)

    def families(self) -> Iterator[Family]:
        """The counts as a family."""
        yield families.counter(
            OVERFLOW_METRIC,
            "Updates that went to the series `other` because label_sets_max was reached.",
            [
                families.Value(LabelSet([("metric", metric)]), count)
                for metric, count in tuple(self._counts.items())
            ],
        )

    def reset(self) -> None:
        """Set the counts to zero; a metric that was reported is not reported again."""
        with self._lock:
            self._counts = dict.fromkeys(self._counts, 0)


class Instrument(Generic[CellT]):
    """What counter, gauge and histogram share: the series of one name, by their label values."""

    __slots__ = (
        "_cells", "_label_sets_max", "_lock", "_overflow", "_unlabelled",
        "across", "bounds", "help", "label_names", "name", "unit",
    )  # fmt: skip

    kind: Kind
    _cell_type: type[CellT]

    def __init__(
        self,
        name: str,
        help: str,
        *,
        label_names: tuple[str, ...] = (),
        unit: str = "",
        bounds: Sequence[float] = (),
        across: Across = "sum",
        label_sets_max: int,
        overflow: LabelOverflow,
    ) -> None:
        self.name = name
        self.help = help
        self.label_names = label_names
        self.unit = unit
        self.bounds = tuple(bounds)
        self.across = across
        self._label_sets_max = label_sets_max
        self._overflow = overflow
        self._lock = RLock()  # a finalizer may come in between and add a label set
        self._cells: dict[tuple[str, ...], CellT] = {}
        # A metric without labels shows its zero from the start, so that a rate over it has one.
        self._unlabelled: CellT | None = None if label_names else self._new_cell(())

    def labels(self, **labels: object) -> CellT:
        """The series with these label values, for hot paths to keep.

        Values of any type count by their str().  Raises MetricUseError for wrong label names.
        """
        return self._cell(labels)

    def family(self) -> Family:
        """All series of this metric, read when the family's points are."""
        return Family(
            name=self.name,
            kind=self.kind,
            help=self.help,
            unit=self.unit,
            bounds=self.bounds,
            across=self.across,
            points=self._points(),
        )

    def reset(self) -> None:
        """Set every series to zero; the label sets stay."""
        for cell in tuple(self._cells.values()):
            cell.reset()

    def _points(self) -> Iterator[Point]:
        for cell in tuple(self._cells.values()):
            yield cell.point()

    def _cell(self, labels: dict[str, object]) -> CellT:
        if self._unlabelled is not None and not labels:
            return self._unlabelled
        try:
            values = tuple([str(labels[name]) for name in self.label_names])
        except KeyError:
            raise self._wrong_labels(labels) from None
        if len(labels) != len(values):
            raise self._wrong_labels(labels)
        return self._cells.get(values) or self._cell_of_unseen(values)

    def _cell_of_unseen(self, values: tuple[str, ...]) -> CellT:
        # The key is what the label will read: two values that are cut to one text are one series.
        label_set = LabelSet(zip(self.label_names, values, strict=True))
        key = tuple([value for _, value in label_set.pairs])
        cell = self._cells.get(key)
        if cell is not None:
            return cell
        with self._lock:
            cell = self._cells.get(key)
            if cell is not None:
                return cell
            others = (OTHER,) * len(values)
            # The overflow series, once there, does not take the place of another.
            if len(self._cells) - (others in self._cells) < self._label_sets_max:
                return self._new_cell(key)
            cell = self._cells.get(others) or self._new_cell(others)
        self._overflow.add(self.name, self._label_sets_max)
        return cell

    def _new_cell(self, values: tuple[str, ...]) -> CellT:
        labels = LabelSet(zip(self.label_names, values, strict=True))
        cell: CellT = self._cell_type(self.name, labels, self.bounds)
        self._cells[values] = cell
        return cell

    def _wrong_labels(self, given: dict[str, object]) -> MetricUseError:
        expected = ", ".join(self.label_names) or "none"
        return MetricUseError(
            self.name, f"expected the labels {expected}; given: {', '.join(given) or 'none'}"
        )


class Counter(Instrument[CounterCell]):
    """A number that only grows: orders, errors, bytes."""

    __slots__ = ()
    kind = "counter"
    _cell_type = CounterCell

    def inc(self, amount: float = 1, **labels: object) -> None:
        """Add `amount`; MetricUseError where it is negative or not finite, or the labels wrong."""
        self._cell(labels).inc(amount)


class Gauge(Instrument[GaugeCell]):
    """A number that goes up and down: queue length, temperature."""

    __slots__ = ()
    kind = "gauge"
    _cell_type = GaugeCell

    def set(self, value: float, **labels: object) -> None:
        """Make it `value`; MetricUseError where that is no number, or the labels wrong."""
        self._cell(labels).set(value)

    def inc(self, amount: float = 1, **labels: object) -> None:
        """Add `amount`."""
        self._cell(labels).inc(amount)

    def dec(self, amount: float = 1, **labels: object) -> None:
        """Take `amount` away."""
        self._cell(labels).dec(amount)


class Histogram(Instrument[HistogramCell]):
    """How values spread over buckets: durations, sizes."""

    __slots__ = ()
    kind = "histogram"
    _cell_type = HistogramCell

    def observe(self, value: float, **labels: object) -> None:
        """Count `value`; one that is not finite is left out."""
        self._cell(labels).observe(value)
