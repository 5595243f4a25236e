"""Many users of one app whose answers are their own, whatever its cache fields say.

Who asks is told by a cookie, a token, a key, by several of them, or by nothing.  The app writes
into every answer for whom it is; a cookie that it sets is for the one who asked.  The cache fields
are all that an app may say, also what it should not: `public` for what belongs to one user.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from tests.caching.oracle.driver import LIFE_S_MAX, MakeCache, end_strays
from tests.caching.oracle.exchanges import TRACE, Exchanged, Headers, Served, Target, traced
from tests.caching.oracle.generate import Asked, Reply
from tests.caching.oracle.rules import CREDENTIALS
from tests.caching.oracle.world import World

HOST = b"example.test"
USERS = 25

# Path -> the fields of its answers.  {number} is the answer's own.
POLICIES: dict[bytes, list[tuple[bytes, bytes]]] = {
    b"/public": [(b"cache-control", b"public, max-age=60")],
    b"/plain": [(b"cache-control", b"max-age=60")],
    b"/shared": [(b"cache-control", b"s-maxage=60")],
    b"/must": [(b"cache-control", b"max-age=60, must-revalidate")],
    b"/none": [],
    b"/expires": [(b"expires", b"Sat, 01 Jan 2050 00:00:00 GMT")],
    b"/cdn": [(b"cdn-cache-control", b"max-age=60"), (b"cache-control", b"private")],
    b"/cdn-only": [(b"cdn-cache-control", b"max-age=60"), (b"cache-control", b"no-store")],
    b"/vary-cookie": [(b"cache-control", b"public, max-age=60"), (b"vary", b"Cookie")],
    b"/vary-token": [(b"cache-control", b"public, max-age=60"), (b"vary", b"Authorization")],
    b"/vary-key": [(b"cache-control", b"public, max-age=60"), (b"vary", b"x-api-key")],
    b"/vary-two": [
        (b"cache-control", b"s-maxage=60"),
        (b"vary", b"Cookie"),
        (b"vary", b"Authorization"),
    ],
    b"/vary-all": [
        (b"cache-control", b"public, max-age=60"),
        (b"vary", b"cookie, authorization, x-api-key, x-auth-token, proxy-authorization"),
    ],
    b"/vary-star": [(b"cache-control", b"public, max-age=60"), (b"vary", b"*")],
    b"/vary-other": [(b"cache-control", b"public, max-age=60"), (b"vary", b"accept-language")],
    b"/private": [(b"cache-control", b"private, max-age=60")],
    b"/private-field": [(b"cache-control", b'private="x-user", public, max-age=60')],
    b"/no-store": [(b"cache-control", b"no-store, max-age=60")],
    b"/no-cache": [(b"cache-control", b"no-cache, public, max-age=60"), (b"etag", b'"same"')],
    b"/sets": [(b"cache-control", b"public, max-age=60"), (b"set-cookie", b"session={number}")],
    b"/sets-varied": [
        (b"cache-control", b"public, max-age=60"),
        (b"vary", b"cookie"),
        (b"set-cookie", b"session={number}; HttpOnly"),
        (b"set-cookie", b"b=1"),
    ],
    b"/sets-not-cached": [
        (b"cache-control", b'no-cache="set-cookie", max-age=60'),
        (b"set-cookie", b"session={number}"),
    ],
    b"/sets-private": [
        (b"cache-control", b'private="set-cookie", max-age=60'),
        (b"set-cookie", b"session={number}"),
    ],
    b"/short": [
        (b"cache-control", b"public, max-age=1, stale-while-revalidate=60, stale-if-error=600")
    ],
    b"/tagged": [(b"cache-control", b"public, max-age=1"), (b"etag", b'"{number}"')],
    b"/same-tag": [(b"cache-control", b"public, max-age=1"), (b"etag", b'"same"')],
    b"/moved": [(b"cache-control", b"public, max-age=60"), (b"location", b"/public")],
}
STATUSES = {b"/moved": 302, b"/private-field": 203}


def whose(headers: Headers) -> bytes:
    """Who asks, as the app sees it: all credentials together, for it trusts none alone."""
    carried = sorted((name, value) for name, value in headers if name in CREDENTIALS)
    return b"+".join(value for _, value in carried) or b"nobody"


class Crowd:
    """Makes the users' requests and, as the app, the answers."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._users = [self._credentials(number) for number in range(USERS)]

    def _credentials(self, number: int) -> Headers:
        who = b"user%d" % number
        return [
            [],
            [(b"cookie", b"session=" + who)],
            [(b"authorization", b"Bearer " + who)],
            [(b"x-api-key", who)],
            [(b"x-auth-token", who)],
            # The same cookie as others have, and a token of one's own.
            [(b"cookie", b"theme=dark"), (b"authorization", b"Bearer " + who)],
            [(b"cookie", b"theme=dark"), (b"x-api-key", who)],
            [(b"cookie", b"theme=dark"), (b"cookie", b"session=" + who)],
            [(b"proxy-authorization", b"Basic " + who)],
            [(b"cookie", b"session=" + who), (b"authorization", b"Bearer all")],
        ][number % 10]

    def pause_s(self) -> float:
        return self._random.choice((0,) * 30 + (0.5, 1, 1, 2, 30))

    def request(self, path: bytes | None = None) -> Asked:
        choice = self._random.choice
        credentials = choice(self._users) if self._random.random() < 0.7 else []
        headers: Headers = [(b"host", HOST), *credentials]
        if self._random.random() < 0.1:
            headers.append((b"if-none-match", choice((b'"same"', b"*", b'"1"'))))
        if self._random.random() < 0.05:
            headers.append((b"range", b"bytes=0-20"))
        if self._random.random() < 0.05:
            rules = (b"max-stale", b"only-if-cached", b"no-cache", b"max-stale=9, only-if-cached")
            headers.append((b"cache-control", choice(rules)))
        method = "HEAD" if self._random.random() < 0.07 else "GET"
        if self._random.random() < 0.02:
            method = "POST"
        target = Target("http", HOST, path or choice(list(POLICIES)))
        return Asked(method, target, headers)

    def answer(self, call: Exchanged, extensions: object) -> Reply:
        who = whose(call.request_headers)
        number = b"%d" % call.number
        head = [(TRACE + number, b"1"), (b"x-user", who)]
        fields = POLICIES[call.target.path]
        head += [(name, value.replace(b"{number}", number)) for name, value in fields]
        asked = dict(call.request_headers)
        if asked.get(b"if-none-match") == dict(head).get(b"etag") and b"if-none-match" in asked:
            # Nothing changed, says an app whose tags do not tell users apart.
            return Reply(304, head, [b""])
        if self._random.random() < 0.05:
            return Reply(503, head[:2], [b"for " + who])
        body = b"answer %d is for %s; " % (call.number, who) * 4
        status = STATUSES.get(call.target.path, 200)
        return Reply(status, head, [b""] if call.method == "HEAD" else [body[:30], body[30:]])


def seen_of_others(served: Served, history: list[Exchanged]) -> list[str]:
    """What in this answer belongs to somebody else."""
    me = whose(served.request_headers)
    seen = []
    for name, value in served.headers:
        if name == b"x-user" and value != me:
            seen.append(f"a field of {value!r}, seen by {me!r}")
        if name == b"set-cookie" and value.startswith(b"session="):
            number = int(value.partition(b"=")[2].partition(b";")[0])
            if history[number].request != served.number:
                seen.append(f"a cookie set for request {history[number].request}")
    for source in traced(served, history):
        owner = whose(source.request_headers)
        if owner != me:
            seen.append(f"an answer for {owner!r}, seen by {me!r}")
    if served.status in {200, 203, 302} and served.body and b" is for %s;" % me not in served.body:
        seen.append(f"a body of another, seen by {me!r}")
    return seen


def crowd(
    make_cache: MakeCache, *, seed: int, requests: int, at_once_max: int, path: bytes | None = None
) -> tuple[list[str], int]:
    """Lets users ask, up to `at_once_max` at a time.

    What anyone saw of another or the oracle found, and how many answers came from the cache.
    """
    faults: list[str] = []
    reused = 0

    async def run() -> None:
        nonlocal reused
        nature, chance = Crowd(seed), Random(seed + 1)
        world = World(nature, yields=chance)
        cache: Any = make_cache(world.app, world.clock, world.wall_s)
        asked = 0
        while asked < requests:
            world.now_s += nature.pause_s()
            some = chance.randrange(at_once_max) + 1
            # Collapsed requests are for one target: every second handful is.
            one = chance.choice(list(POLICIES)) if chance.random() < 0.5 else None
            handful = [nature.request(path or one) for _ in range(some)]
            async with asyncio.timeout(LIFE_S_MAX):
                answers = await asyncio.gather(*(world.ask(cache, each) for each in handful))
            await world.settle()
            asked += some
            for served in answers:
                said = seen_of_others(served, world.history) + world.judge(served)
                where = f"{served.target.path!r}, request {served.number} of seed {seed}"
                faults.extend(f"{each} ({where})" for each in said)
                sources = traced(served, world.history)
                reused += bool(sources) and sources[0].number not in served.app_calls
        await end_strays()

    asyncio.run(run())
    return faults, reused
