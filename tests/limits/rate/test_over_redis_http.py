"""Two workers, a Redis that dies, comes back and freezes: each second the stated policy holds."""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.examples.servers import eventually, serving
from tests.fleet.servers import RedisServer

BURST = 4
ROUTES = ("local", "open", "closed")
TIMEOUT_S = 2.0
AWAY_S = 3.0
COMMAND = ("-m", "uvicorn", "tests.limits.rate.limited_app:app", "--port", "0", "--no-access-log")
REFUSED, PASSED = {429}, {200}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as its client saw it."""

    began_s: float
    ended_s: float
    worker: int
    route: str
    client: str
    status: int
    retry_after: str | None


@dataclass(slots=True)
class Phase:
    """Requests that lie in it as a whole show its policy; `number` makes its clients new."""

    number: int
    began_s: float
    ended_s: float = float("inf")


class Streams:
    """One for each worker and route: the used-up client, one of the phase, and a new one."""

    def __init__(self, urls):
        self.seen: list[Seen] = []
        self.lost: list[str] = []
        self._phase = 0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(worker, url, route))
            for worker, url in enumerate(urls)
            for route in ROUTES
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def phase(self):
        self._phase += 1
        phase = Phase(self._phase, time.monotonic())
        yield phase
        phase.ended_s = time.monotonic()

    def during(self, phase, route, client):
        """What the clients of this kind saw; `used` and `phase` are one each, `new` are many."""
        name = f"phase-{phase.number}" if client == "phase" else client
        return [
            seen
            for seen in self.seen
            if seen.route == route
            and seen.client.startswith(name)
            and phase.began_s <= seen.began_s
            and seen.ended_s <= phase.ended_s
        ]

    def _run(self, worker, url, route):
        address = urlsplit(url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=150)
        for number in itertools.count():
            for client in ("used", f"phase-{self._phase}", f"new-{worker}-{number}"):
                if self._over.is_set():
                    connection.close()
                    return
                began_s = time.monotonic()
                try:
                    connection.request("GET", f"/{route}", headers={"x-client": client})
                    answer = connection.getresponse()
                    answer.read()
                except OSError as error:
                    self.lost.append(repr(error))
                    connection.close()
                    continue
                self.seen.append(
                    Seen(began_s, time.monotonic(), worker, route, client, answer.status,
                         answer.headers["retry-after"])
                )  # fmt: skip
            time.sleep(0.03)


def ask(url, path):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=150)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return json.loads(body)


def statuses(seen):
    return {each.status for each in seen}


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.fixture
def urls(redis):
    rules = [
        {
            "path": f"/{route}",
            "quotas": [{
                "limit": f"{BURST}/hour", "name": route, "key": "header:x-client",
                "when_down": route,
            }],
        }
        for route in ROUTES
    ]  # fmt: skip
    env = {
        "PERFORMANCE_REDIS_URL": redis.url,
        "PERFORMANCE_REDIS_TIMEOUT_S": str(TIMEOUT_S),
        "PERFORMANCE_REDIS_HEARTBEAT_S": "0.1",
        "PERFORMANCE_RATELIMIT_RULES": json.dumps(rules),
    }
    with ExitStack() as stack:
        yield [stack.enter_context(serving(COMMAND, env=env, is_forked=True)).url for _ in range(2)]


def wait_shared(urls):
    """Until both workers judge in Redis."""
    eventually(
        lambda: all(ask(url, "/status")["shared"] for url in urls),
        what="the quotas are shared again",
        within_s=120,
    )


def wait_alone(urls):
    """Until both workers know that Redis is away."""
    eventually(
        lambda: not any(ask(url, "/status")["shared"] for url in urls),
        what="each worker judges alone",
        within_s=120,
    )


def is_stopped(redis):
    stat = Path(f"/proc/{redis._process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def of_phase(streams, phase, route):
    return Counter((each.worker, each.status) for each in streams.during(phase, route, "phase"))


def stays_away(streams, phase):
    """For some seconds, until each worker has been asked often enough."""
    time.sleep(AWAY_S)
    asked = [(worker, status) for worker in (0, 1) for status in (200, 429)]
    eventually(
        lambda: min(map(of_phase(streams, phase, "local").__getitem__, asked)) >= BURST,
        what="each worker has refused the client of this phase",
        within_s=120,
    )


def holds_its_policy(streams, phase):
    """While Redis is away: what each of the quotas says, second by second."""
    for route, policy in (("open", PASSED), ("closed", REFUSED)):
        for client in ("used", "phase", "new"):
            assert statuses(streams.during(phase, route, client)) == policy
    assert {each.retry_after for each in streams.during(phase, "closed", "new")} == {"1"}
    # local: who was over it still is; a new client has the whole quota, of each worker.
    assert statuses(streams.during(phase, "local", "used")) == REFUSED
    assert statuses(streams.during(phase, "local", "new")) == PASSED
    counts = of_phase(streams, phase, "local")
    assert counts[0, 200] == counts[1, 200] == BURST


def refused(streams, phase, route):
    return sum(each.status == 429 for each in streams.during(phase, route, "phase"))


def goes_on_shared(streams, phase):
    """Until the client of this phase was refused often enough, at each route."""
    eventually(
        lambda: all(refused(streams, phase, route) > BURST for route in ROUTES),
        what="the client of this phase is refused",
        within_s=120,
    )


def is_shared(streams, phase):
    """In Redis: the two workers grant a client one quota together."""
    for route in ROUTES:
        assert statuses(streams.during(phase, route, "new")) == PASSED
        counts = Counter(each.status for each in streams.during(phase, route, "phase"))
        assert counts[200] == BURST
        assert counts[429] > BURST


def test_redis_is_killed_revived_and_frozen_during_a_limited_run(redis, urls):
    with Streams(urls) as streams:
        wait_shared(urls)
        with streams.phase() as well:
            goes_on_shared(streams, well)
        redis.kill()
        with streams.phase() as killed:
            stays_away(streams, killed)
        redis.start()
        wait_shared(urls)
        with streams.phase() as revived:
            goes_on_shared(streams, revived)
        redis.freeze()
        eventually(lambda: is_stopped(redis), what="Redis is frozen")
        with streams.phase():
            wait_alone(urls)
        with streams.phase() as known:
            stays_away(streams, known)
        redis.thaw()
        wait_shared(urls)
        with streams.phase() as thawed:
            goes_on_shared(streams, thawed)

    assert streams.lost == []
    assert {each.status for each in streams.seen} == {200, 429}
    for phase in (well, revived, thawed):
        is_shared(streams, phase)
    for phase in (killed, known):
        holds_its_policy(streams, phase)
    used = {route: streams.during(thawed, route, "used") for route in ROUTES}
    assert all(statuses(seen) == REFUSED for seen in used.values())
    assert len(streams.during(well, "local", "used")) >= BURST

    # What waited for an answer of Redis, by count: those on their way when it froze, no other.
    waited = [each for each in streams.seen if each.ended_s - each.began_s > 0.9 * TIMEOUT_S]
    assert len(waited) <= 2 * len(ROUTES)
    assert all(each.began_s < known.began_s for each in waited)
