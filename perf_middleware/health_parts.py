"""What the health score of one app is computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.insight.health import HealthInput
from perf_middleware.perf import RECENT_S

if TYPE_CHECKING:
    from perf_middleware.metrics.probes.loop import LoopProbe
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.resource import Resources


def health_inputs(
    metrics: Metrics, loop: LoopProbe | None, resources: Resources
) -> list[HealthInput]:
    """What is measured of these, each with its weight and reason; what is not known is left out."""
    inputs = []
    failed_share = metrics.recent(RECENT_S).failed_share
    if failed_share is not None:
        inputs.append(
            HealthInput(
                name="failed requests", value=failed_share, fine=0.0, bad=0.05, weight=3,
                reason="share of requests answered with status 500 and above, last 5 minutes",
            )
        )  # fmt: skip
    blocked_share = loop.blocked_share() if loop is not None else None
    if blocked_share is not None and resources.running:
        inputs.append(
            HealthInput(
                # One second in a hundred happens to good services; where it is one in four,
                # every fourth request waits for code that is none of its own.
                name="event loop blocked", value=blocked_share, fine=0.01, bad=0.25, weight=2,
                reason="share of the last one to two minutes by which heartbeats of the event "
                "loop came late: the time it stood still (what is under 0.2 s counts as less)",
            )
        )  # fmt: skip
    states = [state for state, _ in resources.states().values()]
    if resources.running and states:
        inputs.append(
            HealthInput(
                name="resources", value=sum(s != "open" for s in states) / len(states),
                fine=0.0, bad=0.5, weight=2, reason="share of resources that are not open",
            )
        )  # fmt: skip
    return inputs
