"""The paths at which orchestrators and load balancers ask whether a worker is alive.

Such a question must be answered while everything else waits: a probe that stands in the line
behind the traffic fails under load, and its worker is taken out just when its neighbours need it
most.  These are exact paths by common use (Kubernetes' livez, readyz and healthz, and what the
examples of frameworks call them); a section that exempts probes has them as its default.
"""

from __future__ import annotations

PROBE_PATHS = ("/health", "/healthz", "/livez", "/readyz", "/ready", "/live", "/ping")
