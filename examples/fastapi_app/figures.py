"""What the shop measures of itself; it appears beside the request metrics at /metrics."""

from contextlib import AbstractContextManager

from perf_middleware import Perf


class Figures:
    """Every figure of the shop's own, made once: counting is then a plain call."""

    def __init__(self, perf: Perf) -> None:
        self._metrics = perf.metrics
        self.orders_created = perf.metrics.counter(
            "orders_created",
            "Orders accepted, by the category of their first line.",
            labels=("category",),
        )

    def time_sales_report(self) -> AbstractContextManager[object]:
        return self._metrics.timer("report.sales", category="db")
