"""Three routes of which one keeps a kilobyte: what a process that does nothing else tells of them.

A test run's own process is no such one: its plugins allocate beside each request.
"""

import json

from perf_middleware.memory_watch.leaks.probes import InUse
from perf_middleware.memory_watch.leaks.route_growth import RouteGrowth

kept = []
growth = RouteGrowth(in_use=InUse(), route_of=lambda scope: scope["route"])


def request(route):
    scope = {"route": route}
    token = growth.begin(scope)
    work = [bytes(1_000) for _ in range(10)]
    if route == "/orders":
        kept.append(work[0])
    if token is not None:
        growth.end(token, scope)  # what is still there at the end of a request is no growth


if __name__ == "__main__":
    for _ in range(160):
        for route in ("/orders", "/nothing", "/items", "/nothing"):
            request(route)
    print(json.dumps({route.route: (route.blocks, route.bytes) for route in growth.routes()}))
