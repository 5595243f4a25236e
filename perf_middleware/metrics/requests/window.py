"""Totals over the last minutes: a short ring of samples, so that a rate is of now, not of ever."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SAMPLES_MAX = 120
SAMPLE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Recent:
    """Requests and failures (status 500 and above) within the last `seconds`."""

    seconds: float
    requests: int
    failed: int

    @property
    def rate_per_s(self) -> float:
        """Requests per second; what came within less than one second counts for a whole one."""
        return self.requests / max(self.seconds, 1.0)

    @property
    def failed_share(self) -> float | None:
        """None where there was no request."""
        return self.failed / self.requests if self.requests else None


class Window:
    """Keeps (time, requests, failed) samples of ever-growing totals."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=SAMPLES_MAX)

    def sample(self, now_s: float, totals: tuple[int, int]) -> None:
        """Note the totals of now; totals that went down were reset, and the ring starts anew."""
        requests, failed = totals
        if self._samples and requests < self._samples[-1][1]:
            self._samples.clear()
            self._samples.append((now_s, 0, 0))
        self._samples.append((now_s, requests, failed))

    def recent(self, now_s: float, totals: tuple[int, int], *, seconds: float) -> Recent:
        """What came since the oldest sample within `seconds`, up to the totals of now."""
        requests, failed = totals
        for at_s, requests_then, failed_then in self._samples:
            if now_s - at_s <= seconds and requests_then <= requests:
                return Recent(now_s - at_s, requests - requests_then, failed - failed_then)
        return Recent(0.0, 0, 0)
