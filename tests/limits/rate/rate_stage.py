"""What the tests of the rate limit drive: a clock that is set, an app that notes its requests."""

from perf_middleware.limits.callers import Callers
from perf_middleware.limits.rate.keys import KeySpec
from perf_middleware.limits.rate.limit_texts import Limit
from perf_middleware.limits.rate.middleware import RateLimitLayer
from perf_middleware.limits.rate.runtime import RateLimit
from perf_middleware.limits.rate.specs import QuotaSpec
from tests.driving import ask, http_scope


class Clock:
    """Microseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_us = 1_000_000_007

    def __call__(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


def quota(limit, key="client", **more):
    key = key if callable(key) else KeySpec.of(key)
    return QuotaSpec(limit=Limit.of(limit), key=key, **more)


class App:
    """Answers 200 with `headers`; `reached` are the paths that came here."""

    def __init__(self, *headers) -> None:
        self.reached = []
        self.headers = [(name.encode(), value.encode()) for name, value in headers]

    async def __call__(self, scope, receive, send):
        self.reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"hello"})


class Stage:
    """One layer around an app, with a clock of its own."""

    def __init__(self, *quotas, app=None, place="every", **options) -> None:
        self.clock = Clock()
        self.app = App() if app is None else app
        options.setdefault("callers", Callers())
        self.rate = RateLimit(quotas=quotas, clock=self.clock, **options)
        self.layer = RateLimitLayer(self.app, self.rate, place=place)

    async def ask(self, path="/", **scope):
        return await ask(self.layer, http_scope(path, **scope))

    def counts(self, name="default"):
        told = self.rate.status()["quotas"][name]
        return {key: value for key, value in told.items() if key != "limit" and value}
