"""Self-metering: what each of our own layers costs, measured on one request in many.

A sampled request walks the same layers with a boundary between each two.  Every crossing of a
boundary (a call going in, a message coming out, a return) closes the account of the region that is
left and opens the next one's:

    server | metrics | operator endpoints | ... the user's middlewares ... | request scope | app
           0         1                    2                                3               (waiting)

What the app and the server take is nobody's account, so waiting for I/O is not charged to a layer.
A sample includes the measurement itself, a fraction of a microsecond for each crossing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.families import Family, LabelSet, Value, counter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.layer_meter import LayerMeter


class Overhead:
    """Sampled cost of each layer, added up."""

    def __init__(self, layers: Sequence[str] = ()) -> None:
        self.name_layers(layers)

    def name_layers(self, layers: Sequence[str]) -> None:
        """The stack is built of these, outermost first; what was sampled before is forgotten."""
        self._layers = [LabelSet((("layer", name),)) for name in layers]
        self._names = tuple(layers)
        self._ns = [0] * len(layers)
        self.samples = 0

    def __len__(self) -> int:
        return len(self._ns)

    def settle(self, meter: LayerMeter) -> None:
        """Add a finished sample."""
        self.samples += 1
        for index, ns in enumerate(meter.spent_ns):
            self._ns[index] += ns

    def mean_us(self) -> dict[str, float]:
        """Mean cost of each layer in microseconds per request; empty before the first sample."""
        if not self.samples:
            return {}
        return {
            name: round(ns / self.samples / 1000, 2)
            for name, ns in zip(self._names, self._ns, strict=True)
            if ns  # a layer that is not in the stack took nothing
        }

    def reset(self) -> None:
        """Forget every sample."""
        self._ns = [0] * len(self._ns)
        self.samples = 0

    def families(self) -> Iterable[Family]:
        """The families for a scrape; cost per request is the ratio of the two rates."""
        yield counter(
            "perf_layer_seconds",
            "Time spent in each of our own layers, in sampled requests.",
            [Value(labels, ns / 1e9) for labels, ns in self._measured()],
            unit="seconds",
        )
        yield counter(
            "perf_layer_samples",
            "Requests that were measured layer by layer.",
            [Value(labels, self.samples) for labels, _ in self._measured()],
        )

    def _measured(self) -> list[tuple[LabelSet, int]]:
        return [(labels, ns) for labels, ns in zip(self._layers, self._ns, strict=True) if ns]
