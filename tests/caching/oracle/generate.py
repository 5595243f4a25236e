"""Nasty requests and answers, the same for the same seed.

A good share of the answers may be stored and of the requests may be answered from them: few
targets, few variants.  The rest is what a cache must survive: heads that are broken, that
contradict themselves or that look like something else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from tests.caching.oracle.exchanges import TRACE, Exchanged, Headers, Target
from tests.caching.oracle.pools import (
    AGES,
    ASKED_RULES,
    BAD_DATES,
    BAD_RULES,
    BAD_TAGS,
    BAD_VARY,
    CODINGS,
    COOKIES,
    DELAYS_S,
    GOOD_RULES,
    GOOD_VARY,
    HOPS,
    HOSTS,
    LANGUAGES,
    LOCATIONS,
    METHODS,
    ODD_FIELDS,
    PATHS,
    QUALIFIED,
    RANGES,
    SECRETS,
    SET_COOKIES,
    SIZES,
    SPOILERS,
    STATUSES,
    TAGS,
    TARGETED,
    TYPES,
    UNSAFE_STATUSES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

IMF = "%a, %d %b %Y %H:%M:%S GMT"
RFC_850 = "%A, %d-%b-%y %H:%M:%S GMT"


@dataclass(slots=True)
class Asked:
    """A request to make."""

    method: str
    target: Target
    headers: Headers
    body: bytes = b""
    breaks_after: int | None = None
    """The client is gone after so many messages."""
    extensions: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reply:
    """An answer to give."""

    status: int
    headers: Headers
    chunks: list[bytes]
    interim: list[dict[str, Any]] = field(default_factory=list)
    trailers: Headers | None = None
    raises_after: int | None = None
    """Messages after which the app raises; 0: before its head."""
    delay_s: float = 0
    sends_path: bool = False


def dated(unix_s: float, form: int = 0) -> bytes:
    """An HTTP date in one of the three formats."""
    moment = time.gmtime(unix_s)
    if form == 2:
        text = time.strftime("%a %b ", moment) + f"{moment.tm_mday:2d}"
        return (text + time.strftime(" %H:%M:%S %Y", moment)).encode()
    return time.strftime(RFC_850 if form == 1 else IMF, moment).encode()


class Nature:
    """Makes requests and answers out of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._chance = self._random.random

    def _of(self, pool: Sequence[T]) -> T:
        return pool[int(self._chance() * len(pool))]

    # --- time ------------------------------------------------------------------------------------

    def pause_s(self) -> float:
        """Until the next request."""
        chance = self._chance()
        if chance < 0.55:
            return 0
        if chance < 0.85:
            return 1
        if chance < 0.9:
            return self._of((0.25, 0.5, 1.5))
        return self._of((2, 3, 5, 8)) if chance < 0.985 else self._of((20, 61, 120, 4000))

    def _date(self, now_s: float) -> bytes:
        chance = self._chance()
        if chance < 0.15:
            return self._of(BAD_DATES)
        shift_s = self._of((0, 0, -1, -10, -100, 5, 30, 60, 1000, -(10**8), 10**8))
        return dated(int(now_s) + shift_s, int(chance * 9) % 3)

    # --- requests --------------------------------------------------------------------------------

    def request(self, now_s: float) -> Asked:
        chance, of = self._chance, self._of
        method = of(METHODS)
        host = of(HOSTS)
        target = Target("https" if chance() < 0.05 else "http", host, of(PATHS))
        headers: Headers = [(b"host", host)]
        add = headers.append
        if chance() < 0.5:
            add((b"accept-language", of(LANGUAGES[:2])))
        elif chance() < 0.1:
            add((b"accept-language", of(LANGUAGES)))
        if chance() < 0.3:
            add((b"accept-encoding", of(CODINGS)))
        if chance() < 0.2:
            add((b"x-tenant", of((b"one", b"two"))))
        if chance() < 0.15:
            self._credentials(headers)
        if chance() < 0.12:
            for _ in range(1 if chance() < 0.9 else 2):
                add((b"cache-control", of(ASKED_RULES)))
        if chance() < 0.02:
            add((b"pragma", b"no-cache"))
        if chance() < 0.15:
            self._conditions(headers, now_s)
        if chance() < 0.12:
            self._range(headers, now_s)
        if chance() < 0.02:
            add(of(((b"x-odd", b"\xff"), (b"te", b"trailers"), (b"connection", b"x-tenant"),
                    (b"origin", b"http://o.test"), (b"x-long", b"l" * 9000))))  # fmt: skip
        asked = Asked(method, target, headers)
        if method not in {"GET", "HEAD"} or chance() < 0.01:
            asked.body = of((b"", b"field=1", b"x" * 300))
            add((b"content-length", b"%d" % len(asked.body)))
        if chance() < 0.01:
            asked.breaks_after = of((0, 1, 1, 2))
        if chance() < 0.1:
            asked.extensions = {
                "http.response.early_hint": {},
                "http.response.trailers": {},
                "http.response.pathsend": {},
            }
        return asked

    def _credentials(self, headers: Headers) -> None:
        kinds = (b"cookie", b"cookie", b"authorization", b"x-api-key", b"x-auth-token",
                 b"proxy-authorization")  # fmt: skip
        for _ in range(1 if self._chance() < 0.85 else 2):
            kind = self._of(kinds)
            headers.append((kind, self._of(COOKIES if kind == b"cookie" else SECRETS)))

    def _conditions(self, headers: Headers, now_s: float) -> None:
        chance = self._chance()
        if chance < 0.65:
            some = [self._of(TAGS) for _ in range(1 if chance < 0.4 else 3)]
            if chance < 0.1:
                some = [self._of(BAD_TAGS)]
            elif chance < 0.12:
                some = [b'"x%d"' % number for number in range(500)]
            if self._chance() < 0.8:
                headers.append((b"if-none-match", b", ".join(some)))
            else:
                headers.extend((b"if-none-match", tag) for tag in some)
        if chance > 0.5:
            headers.append((b"if-modified-since", self._date(now_s)))
        if chance > 0.97:
            headers.append((b"if-match", self._of(TAGS)))
        elif chance > 0.94:
            headers.append((b"if-unmodified-since", self._date(now_s)))

    def _range(self, headers: Headers, now_s: float) -> None:
        headers.append((b"range", self._of(RANGES)))
        chance = self._chance()
        if chance < 0.03:
            headers.append((b"range", self._of(RANGES)))
        if chance > 0.6:
            validator = self._of(TAGS) if chance < 0.85 else self._date(now_s)
            headers.append((b"if-range", self._of(BAD_TAGS) if chance > 0.95 else validator))

    # --- answers ---------------------------------------------------------------------------------

    def answer(self, call: Exchanged, extensions: object) -> Reply:
        """The app's answer to a request as the app sees it."""
        chance = self._chance
        method, headers, number, now_s = (
            call.method, call.request_headers, call.number, call.at_s,
        )  # fmt: skip
        asked = {name for name, _ in headers}
        if method not in {"GET", "HEAD"}:
            reply = self._written(number, now_s)
        elif (b"if-none-match" in asked or b"if-modified-since" in asked) and chance() < 0.5:
            reply = self._not_modified(headers, number, now_s)
        elif chance() < 0.65:
            reply = self._well_behaved(number, now_s)
        else:
            reply = self._anything(number, now_s)
        if b"range" in asked and reply.status == 200 and chance() < 0.4:
            self._make_partial(reply)
        if method == "HEAD" and chance() < 0.9:
            reply.chunks = [b""]
        self._oddities(reply, extensions)
        return reply

    def _traced(self, number: int) -> Headers:
        return [(TRACE + b"%d" % number, b"1"), (b"content-type", self._of(TYPES))]

    def _body(self, number: int) -> bytes:
        size = self._of(SIZES)
        return (b"answer %d " % number * (size // 8 + 1))[:size] if size else b""

    def _well_behaved(self, number: int, now_s: float) -> Reply:
        chance, of = self._chance, self._of
        head = self._traced(number)
        if chance() < 0.04:
            head.append((b"cache-control", of(QUALIFIED)))
            head.append((b"x-note", b"%d" % number))
        else:
            head.append((b"cache-control", of(GOOD_RULES)))
        if chance() < 0.1:
            head.extend(of(SPOILERS))
        if chance() < 0.6:
            head.append((b"etag", of(TAGS)))
        if chance() < 0.3:
            head.append((b"last-modified", dated(now_s - of((0, 1, 10, 100)))))
        if chance() < 0.2:
            head.append((b"vary", of(GOOD_VARY)))
        if chance() < 0.3:
            head.append((b"date", dated(now_s - of((0, 0, 0, 1, 3)))))
        if chance() < 0.1:
            head.append((b"age", of(AGES[:4])))
        body = self._body(number) or b"answer %d " % number
        if chance() < 0.6:
            head.append((b"content-length", b"%d" % len(body)))
        status = 200 if chance() < 0.85 else of(STATUSES)
        return self._reply(status, head, body)

    def _reply(self, status: int, head: Headers, body: bytes) -> Reply:
        if status in {204, 304}:
            body = b""
            head = [each for each in head if each[0] != b"content-length"]
        if len(body) > 20 and self._chance() < 0.3:
            return Reply(status, head, [body[:7], body[7:20], body[20:]])
        return Reply(status, head, [body])

    def _anything(self, number: int, now_s: float) -> Reply:
        chance, of = self._chance, self._of
        head = self._traced(number)
        for _ in range(of((0, 1, 1, 1, 1, 2, 3))):
            head.append((b"cache-control", of(BAD_RULES if chance() < 0.7 else GOOD_RULES)))
        if chance() < 0.15:
            for _ in range(of((1, 1, 2))):
                head.append((b"cdn-cache-control", of(TARGETED)))
        if chance() < 0.25:
            for _ in range(of((1, 1, 1, 2))):
                head.append((b"expires", self._date(now_s)))
        if chance() < 0.3:
            for _ in range(of((1, 1, 1, 2))):
                head.append((b"date", self._date(now_s)))
        if chance() < 0.15:
            for _ in range(of((1, 1, 1, 2))):
                head.append((b"age", of(AGES)))
        if chance() < 0.2:
            for _ in range(of((1, 1, 2))):
                head.append((b"vary", of(BAD_VARY if chance() < 0.6 else GOOD_VARY)))
        if chance() < 0.5:
            head.append((b"etag", of(TAGS if chance() < 0.7 else BAD_TAGS)))
        if chance() < 0.2:
            head.append((b"last-modified", self._date(now_s)))
        if chance() < 0.12:
            head.extend((b"set-cookie", of(SET_COOKIES)) for _ in range(of((1, 2, 3))))
        for _ in range(of((0, 0, 0, 1, 2))):
            head.append(of(ODD_FIELDS))
        if chance() < 0.1:
            head.append((b"connection", b"x-note"))
            head.append((b"x-note", b"hop"))
        if chance() < 0.1:
            head.append(of(HOPS))
        if chance() < 0.05:
            head.append(of(HOPS))
        body = self._body(number)
        if chance() < 0.4:
            length = b"%d" % len(body)
            if chance() < 0.25:
                twice = length + b", " + length
                length = of((b"%d" % (len(body) + 3), b"1", b"x", b"-1", twice, b""))
            head.append((b"content-length", length))
        if chance() < 0.2:
            self._random.shuffle(head)
        if chance() < 0.1:
            head = [(name.title() if chance() < 0.5 else name, value) for name, value in head]
        return self._reply(of(STATUSES), head, body)

    def _not_modified(self, asked: Headers, number: int, now_s: float) -> Reply:
        chance, of = self._chance, self._of
        head = self._traced(number)[:1]
        given = [value for name, value in asked if name == b"if-none-match"]
        since = [value for name, value in asked if name == b"if-modified-since"]
        if chance() < 0.7:
            tag = given[0].split(b",")[0].strip() if given else of(TAGS)
            head.append((b"etag", tag if chance() < 0.85 else of(TAGS)))
        if chance() < 0.2:
            head.append((b"last-modified", since[0] if since else self._date(now_s)))
        if chance() < 0.5:
            head.append((b"cache-control", of(GOOD_RULES if chance() < 0.7 else BAD_RULES)))
        if chance() < 0.4:
            head.append((b"date", dated(now_s) if chance() < 0.7 else self._date(now_s)))
        if chance() < 0.1:
            head.append((b"age", of(AGES)))
        if chance() < 0.1:
            head.append((b"vary", of(GOOD_VARY)))
        if chance() < 0.1:
            head.append((b"set-cookie", of(SET_COOKIES)))
        if chance() < 0.1:
            head.append(of(HOPS))
        if chance() < 0.1:
            head.append(of(ODD_FIELDS[:5]))
        if chance() < 0.1:
            head.append((b"content-length", of((b"0", b"5", b"100"))))
        if chance() < 0.1:
            head.append((b"content-type", b"text/renewed"))
        return Reply(304, head, [b""])

    def _written(self, number: int, now_s: float) -> Reply:
        """The answer to any other method than GET and HEAD."""
        chance, of = self._chance, self._of
        head = self._traced(number)
        if chance() < 0.4:
            head.append((b"cache-control", of(GOOD_RULES)))
        for name in (b"location", b"content-location"):
            if chance() < 0.25:
                head.extend((name, of(LOCATIONS)) for _ in range(of((1, 1, 1, 1, 2))))
        if chance() < 0.1:
            head.append((b"etag", of(TAGS)))
        if chance() < 0.1:
            head.append((b"set-cookie", of(SET_COOKIES)))
        return self._reply(of(UNSAFE_STATUSES), head, self._body(number))

    def _make_partial(self, reply: Reply) -> None:
        body = b"".join(reply.chunks)
        part = body[:5]
        reply.status = 206 if self._chance() < 0.9 else 416
        reply.headers = [each for each in reply.headers if each[0].lower() != b"content-length"]
        reply.headers.append((b"content-range", b"bytes 0-4/%d" % max(5, len(body))))
        reply.chunks = [part]

    def _oddities(self, reply: Reply, extensions: object) -> None:
        chance, of = self._chance, self._of
        if chance() < 0.03:
            reply.delay_s = of(DELAYS_S[30:])
        if chance() < 0.03:
            reply.raises_after = of((0, 0, 1, 2))
        elif chance() < 0.02:
            reply.chunks = [b"", *reply.chunks, b""]
        if extensions:
            if chance() < 0.3:
                link = b"</%d.css>; rel=preload" % int(chance() * 1e6)
                reply.interim = [{"type": "http.response.early_hint", "links": [link]}]
            if chance() < 0.3:
                reply.trailers = [(b"x-sum", b"%d" % int(chance() * 1e6))]
            elif chance() < 0.1:
                reply.sends_path = True
