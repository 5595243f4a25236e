"""A small shared cache to prove the oracle with: right as it is, wrong by one mistake at a time.

It keeps only what is plainly storable and buffers each answer; what it does, it does rightly:
validation, 304, ranges, HEAD, stale answers while revalidating or on errors, invalidation.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin

from tests.caching.oracle.fields import HOP_BY_HOP, http_date
from tests.caching.oracle.generate import dated
from tests.caching.oracle.mistakes import MISTAKES
from tests.caching.oracle.world import target_of

CREDENTIALS = {b"cookie", b"authorization", b"proxy-authorization", b"x-api-key", b"x-auth-token"}
KNOWN = re.compile(
    rb"(?:max-age=[0-9]{1,9}|s-maxage=[0-9]{1,9}|stale-while-revalidate=[0-9]{1,9}"
    rb"|stale-if-error=[0-9]{1,9}|public|must-revalidate|proxy-revalidate|immutable)\Z"
)
TAG = re.compile(rb'(?:W/)?"[a-z0-9,]*"\Z')


@dataclass(eq=False)
class Entry:
    asked_s: int
    request: list[tuple[bytes, bytes]]
    method: str
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    received_us: int
    asked_us: int
    lifetime_s: int
    rules: dict[bytes, int]
    date_s: int | None
    age_s: int


@dataclass
class Got:
    """What the app said."""

    messages: list[Any] = field(default_factory=list)
    raised: Exception | None = None
    asked_us: int = 0
    asked_s: int = 0

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.messages if "status" in m), None)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        heads = [m["headers"] for m in self.messages if m["type"] == "http.response.start"]
        return [(name.lower(), value) for name, value in heads[0]] if heads else []

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages)

    @property
    def whole(self) -> bool:
        kinds = {message["type"] for message in self.messages}
        plain = kinds == {"http.response.start", "http.response.body"}
        return plain and self.raised is None and not self.messages[-1].get("more_body")


def one(headers: Any, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)


class SmallCache:
    def __init__(self, app: Any, clock: Any, wall_s: Any, *, mistake: str | None = None) -> None:
        assert mistake is None or mistake in MISTAKES
        self._app = app
        self._clock = clock
        self._wall_s = lambda: int(wall_s())
        self._mistake = mistake
        self._entries: dict[Any, list[Entry]] = {}
        self._tasks: set[Any] = set()

    def _errs(self, mistake: str) -> bool:
        return self._mistake == mistake

    # --- requests --------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = scope["headers"]
        body = (await receive())["body"]
        receive = Said(b"" if self._errs("loses the request's body") else body)
        if scope["method"] not in {"GET", "HEAD"}:
            got = await self._call(scope, receive)
            self._written(scope, got)
            await self._pass_on(got, send)
            return
        asked = self._asked(headers)
        entry = self._select(scope)
        usable = entry is not None and not asked & {b"no-cache", b"?"}
        if usable and self._for_this_user(entry, scope) and self._within(entry, asked):
            stale_s = self._current_age_s(entry) - entry.lifetime_s
            late_s = 0 if self._errs("is stale a second too late") else -1
            if stale_s <= late_s or self._errs("serves stale"):
                await self._serve(entry, scope, send)
                return
            if self._may_be_stale(entry, b"stale-while-revalidate", stale_s):
                if b"only-if-cached" not in asked:
                    task = asyncio.ensure_future(self._renew_behind(entry, scope))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await self._serve(entry, scope, send)
                return
        if b"only-if-cached" in asked and not self._errs("ignores only-if-cached"):
            await send({"type": "http.response.start", "status": 504, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if usable and self._for_this_user(entry, scope) and _plain_get(scope):
            await self._validate(entry, scope, receive, send)
            return
        asking = scope
        if entry is not None and self._errs("gives 304 to its own condition"):
            asking = self._with_condition(entry, scope)
        got = await self._call(asking, receive)
        self._keep(asking, got)
        await self._pass_on(got, send)

    def _asked(self, headers: Any) -> set[bytes]:
        """Request directives; b"?" for those that this cache does not weigh."""
        words = set()
        for name, value in headers:
            if name == b"cache-control":
                words |= {word.strip(b" \t\r\n").lower() for word in value.split(b",")}
        if self._errs("ignores the request's no-cache"):
            words -= {b"no-cache"}
        if self._errs("ignores the request's max-age"):
            words = {word for word in words if not word.startswith(b"max-age=")}
        known = {b"no-cache", b"no-store", b"only-if-cached", b"no-transform"}
        return words if words <= known else words & known | {b"?"}

    def _key(self, scope: Any) -> Any:
        scheme, host, path = target_of(scope)
        if self._errs("keys without the query"):
            path = path.partition(b"?")[0]
        if self._errs("keys by the decoded path"):
            path = scope["path"].encode() + b"?" + scope["query_string"]
        host = b"" if self._errs("keys without the host") else host
        return "" if self._errs("keys without the scheme") else scheme, host, path

    def _select(self, scope: Any) -> Entry | None:
        for entry in reversed(self._entries.get(self._key(scope), [])):
            vary = [v.lower() for n, v in entry.headers if n == b"vary"]
            names = [name.strip() for name in b",".join(vary).split(b",") if name.strip()]
            if self._errs("ignores Vary"):
                names = []
            if all(
                [v for n, v in entry.request if n == name]
                == [v for n, v in scope["headers"] if n == name]
                for name in names
            ) and (
                entry.method == "GET"
                or scope["method"] == "HEAD"
                or self._errs("answers GET from HEAD")
            ):
                return entry
        return None

    def _for_this_user(self, entry: Entry, scope: Any) -> bool:
        if self._errs("answers users from the shared entry"):
            return True
        ours = {b"authorization"} if self._errs("shares Authorization") else set()
        ours |= {b"cookie"} if self._errs("shares cookies") else set()
        both = [*entry.request, *scope["headers"]]
        return not ({name for name, _ in both} & CREDENTIALS - ours)

    def _within(self, entry: Entry, asked: set[bytes]) -> bool:
        return True

    def _current_age_s(self, entry: Entry) -> float:
        age_s = 0 if self._errs("forgets the Age it was given") else entry.age_s
        corrected = age_s + (self._clock() - entry.asked_us) / 1e6
        if entry.date_s is None or self._errs("forgets Date"):
            return corrected
        return max(corrected, self._wall_s() - entry.date_s)

    def _may_be_stale(self, entry: Entry, name: bytes, stale_s: float) -> bool:
        strict = {b"must-revalidate", b"proxy-revalidate", b"s-maxage"} & set(entry.rules)
        if strict and not self._errs("serves stale though it must revalidate"):
            return False
        if name not in entry.rules:
            return False
        return stale_s <= entry.rules[name] or self._errs("serves stale without a bound")

    # --- the app ---------------------------------------------------------------------------------

    async def _call(self, scope: Any, receive: Any) -> Got:
        got = Got(asked_us=self._clock(), asked_s=self._wall_s())

        async def keep(message: Any) -> None:
            got.messages.append(dict(message))

        try:
            await self._app(scope, receive, keep)
        except Exception as exc:  # noqa: BLE001 - passed on to who asked
            got.raised = exc
        return got

    async def _pass_on(self, got: Got, send: Any) -> None:
        for message in got.messages:
            kind = message["type"]
            if kind == "http.response.early_hint" and self._errs("swallows early hints"):
                continue
            if kind == "http.response.trailers" and self._errs("swallows trailers"):
                continue
            if kind == "http.response.start" and self._errs("drops one of two Set-Cookie"):
                message["headers"] = list(dict(message["headers"]).items())
            if kind == "http.response.start" and self._errs("joins fields of all answers"):
                fields: dict[bytes, bytes] = {}
                for name, value in message["headers"]:
                    fields[name] = fields[name] + b", " + value if name in fields else value
                message["headers"] = list(fields.items())
            await send(message)
        if got.raised is None:
            return
        if self._errs("hides that the app broke off") and got.status is not None:
            await send({"type": "http.response.body", "body": b""})
            return
        raise got.raised

    async def _validate(self, entry: Entry, scope: Any, receive: Any, send: Any) -> None:
        got = await self._call(self._with_condition(entry, scope), receive)
        failed = got.status in {500, 502, 503, 504} or got.status is None
        if self._errs("serves stale without an error"):
            failed = True
        stale_s = self._current_age_s(entry) - entry.lifetime_s
        if failed and self._may_be_stale(entry, b"stale-if-error", stale_s):
            await self._serve(entry, scope, send)
            return
        if got.status == 304 and not self._errs("passes its own 304 on"):
            renewed = self._renewed(entry, got)
            if renewed is not None:
                self._replace(entry, renewed, scope, got)
                await self._serve(renewed, scope, send, validated=True)
                return
            got = await self._call(scope, receive.again())
        self._keep(scope, got)
        await self._pass_on(got, send)

    async def _renew_behind(self, entry: Entry, scope: Any) -> None:
        got = await self._call(self._with_condition(entry, scope), Said(b""))
        if got.status == 304:
            renewed = self._renewed(entry, got)
            self._replace(entry, renewed, scope, got)
        else:
            self._keep(scope, got)

    def _with_condition(self, entry: Entry, scope: Any) -> Any:
        tag = one(entry.headers, b"etag")
        kept = (b"if-none-match", b"if-modified-since", b"range", b"if-range")
        headers = [each for each in scope["headers"] if each[0] not in kept]
        if tag is not None:
            headers.append((b"if-none-match", tag))
        return {**scope, "headers": headers}

    def _renewed(self, entry: Entry, got: Got) -> Entry | None:
        tags = [value for name, value in got.headers if name == b"etag"]
        named = len(tags) == 1 and TAG.match(tags[0]) and tags == [one(entry.headers, b"etag")]
        if not self._errs("renews by any 304") and not named:
            return None
        if not got.whole:
            return None
        drop = self._not_stored(got.headers) | {b"set-cookie"}
        if not self._errs("renews Content-Length"):
            drop |= {b"content-length"}
        new = [each for each in got.headers if each[0] not in drop]
        names = {name for name, _ in new} | {b"age"}
        headers = [each for each in entry.headers if each[0] not in names] + new
        age = one(got.headers, b"age") or b"0"
        return replace(
            entry,
            headers=headers,
            asked_us=got.asked_us,
            asked_s=got.asked_s,
            age_s=int(age) if re.fullmatch(rb"[0-9]{1,9}", age) else 0,
            date_s=http_date(one(got.headers, b"date") or b"", self._wall_s()),
        )

    def _replace(self, entry: Entry, renewed: Entry | None, scope: Any, got: Got) -> None:
        """The renewed entry takes the place of the old one, where it may be stored."""
        entries = next((each for each in self._entries.values() if entry in each), None)
        if entries is None:
            return
        entries.remove(entry)
        plan = renewed and self._storable(scope, got, renewed.headers, renewed.status)
        if renewed is not None and plan is not None:
            renewed.lifetime_s, renewed.rules = plan
            entries.append(renewed)

    # --- storing ---------------------------------------------------------------------------------

    def _not_stored(self, headers: Any) -> set[bytes]:
        if self._errs("keeps hop-by-hop fields"):
            return set()
        named = {
            word.strip().lower()
            for name, value in headers
            if name == b"connection"
            for word in value.split(b",")
        }
        return named | HOP_BY_HOP

    def _keep(self, scope: Any, got: Got) -> None:
        headers = got.headers
        plan = self._storable(scope, got, headers, got.status)
        if plan is None:
            return
        lifetime_s, rules = plan
        drop = self._not_stored(headers)
        if self._errs("strips Set-Cookie"):
            drop = drop | {b"set-cookie"}
        age = one(headers, b"age") or b"0"
        entry = Entry(
            asked_s=got.asked_s,
            request=list(scope["headers"]),
            method=scope["method"],
            status=got.status or 0,
            headers=[each for each in headers if each[0] not in drop],
            body=got.body,
            received_us=self._clock(),
            asked_us=got.asked_us,
            lifetime_s=lifetime_s,
            rules=rules,
            date_s=http_date(one(headers, b"date") or b"", self._wall_s()),
            age_s=int(age) if re.fullmatch(rb"[0-9]{1,9}", age) else 0,
        )
        self._entries.setdefault(self._key(scope), []).append(entry)

    def _storable(
        self, scope: Any, got: Got, headers: Any, status: int | None
    ) -> tuple[int, dict[bytes, int]] | None:
        """Freshness lifetime and directives; None: not to be stored."""
        if not got.whole and not (self._errs("stores incomplete answers") and got.status):
            return None
        names = [name for name, _ in headers]
        broken = self._errs("stores everything")
        asked = b",".join(value for name, value in scope["headers"] if name == b"cache-control")
        if self._errs("ignores the request's no-store"):
            asked = b""
        if not broken and b"no-store" in asked:
            return None
        if not broken and not self._user_may_share(scope):
            return None
        lengths = [value for name, value in headers if name == b"content-length"]
        checked = got.status != 304 and scope["method"] == "GET"
        right = lengths in ([], [b"%d" % len(got.body)])
        if checked and not right and not self._errs("believes a wrong Content-Length"):
            return None
        cookies = self._errs("keeps Set-Cookie") or self._errs("strips Set-Cookie")
        if b"set-cookie" in names and not cookies and not broken:
            return None
        if status in {206, 304} and not (self._errs("stores 206") and status == 206):
            return None
        if status in {412, 416} or status is None:
            return None
        if b"cdn-cache-control" in names and not self._errs("ignores the targeted field"):
            return None
        stars = any(b"*" in v for n, v in headers if n == b"vary")
        odd_vary = any(
            re.search(rb"[^a-zA-Z0-9, -]|[a-z] +[a-z]", v) for n, v in headers if n == b"vary"
        )
        ignored = self._errs("ignores Vary") or self._errs("ignores Vary: *")
        if (stars and not ignored) or (odd_vary and not stars):
            return None
        if names.count(b"date") > 1 or names.count(b"age") > 1:
            return None
        age, date = one(headers, b"age"), one(headers, b"date")
        if age is not None and not re.fullmatch(rb"[0-9]{1,9}", age):
            return None
        if date is not None and http_date(date, self._wall_s()) is None:
            return None
        return self._rules([v for n, v in headers if n == b"cache-control"])

    def _user_may_share(self, scope: Any) -> bool:
        ours = {b"authorization"} if self._errs("shares Authorization") else set()
        ours |= {b"cookie"} if self._errs("shares cookies") else set()
        return not ({name for name, _ in scope["headers"]} & CREDENTIALS - ours)

    def _rules(self, values: list[bytes]) -> tuple[int, dict[bytes, int]] | None:
        words = [word.strip(b" \t").lower() for value in values for word in value.split(b",")]
        passed = {
            "ignores no-store": [b"no-store"],
            "ignores private": [b"private"],
            "ignores no-cache": [b"no-cache"],
        }.get(self._mistake or "", [])
        words = [word for word in words if word and word not in passed]
        if self._errs("ignores fields of private and no-cache"):
            words = [word for word in words if not re.match(rb'(private|no-cache)="x-note"', word)]
        if self._errs("misreads broken lifetimes"):
            words = [
                re.sub(rb"[^0-9]", b"", w).join([b"max-age=", b""]) if b"max-age" in w else w
                for w in words
            ]
        if self._errs("stores everything"):
            words = [word for word in words if KNOWN.match(word)] or [b"max-age=60"]
        if not words or not all(KNOWN.match(word) for word in words):
            return None
        pairs = [word.partition(b"=") for word in words]
        rules: dict[bytes, int] = {}
        several = self._errs("takes the largest of several lifetimes")
        for name, _, number in pairs:
            if name in rules and not several:
                return None
            rules[name] = max(rules.get(name, 0), int(number or 0))
        order = [b"s-maxage", b"max-age"]
        if self._errs("prefers max-age to s-maxage"):
            order.reverse()
        for name in order:
            if name in rules:
                return rules[name], rules
        return None

    def _written(self, scope: Any, got: Got) -> None:
        wrong = self._errs("invalidates after errors only")
        if got.status is None or (not 200 <= got.status < 400) != wrong:
            return
        if scope["method"] in {"OPTIONS", "TRACE"} or self._errs("never invalidates"):
            return
        self._entries.pop(self._key(scope), None)
        if self._errs("ignores locations"):
            return
        scheme, host, path = target_of(scope)
        origin = f"{scheme}://{host.decode()}"
        for name, value in got.headers:
            if name in {b"location", b"content-location"}:
                try:
                    there = urljoin(origin + path.decode(), value.decode("latin-1"))
                except ValueError:
                    continue
                if there.startswith(origin + "/"):
                    gone = there[len(origin) :].partition("#")[0].encode("latin-1")
                    self._entries.pop((scheme, host, gone), None)

    # --- serving ---------------------------------------------------------------------------------

    async def _serve(self, entry: Entry, scope: Any, send: Any, *, validated: bool = False) -> None:
        age = b"%d" % int(self._current_age_s(entry))
        headers = [each for each in entry.headers if each[0] != b"age"]
        if not self._errs("sends no Age"):
            headers.append((b"age", age))
        if self._errs("writes its own Date"):
            headers = [each for each in headers if each[0] != b"date"]
            headers.append((b"date", dated(self._wall_s())))
        status, body = entry.status, entry.body
        if self._errs("mixes bodies") and (others := self._entries.get(self._key(scope))):
            body = others[0].body
        head = scope["method"] == "HEAD"
        if self._not_modified(entry, scope):
            status = 304
            kept_body = body if self._errs("gives 304 a body") else b""
            body, drop = kept_body, {b"content-length"}
            if self._errs("forgets ETag on 304"):
                drop = drop | {b"etag"}
            headers = [each for each in headers if each[0] not in drop]
        elif span := self._range(entry, scope):
            first, last = span
            status = 206
            size = b"/%d" % len(body)
            body = (
                body[first:last] if self._errs("slices one byte short") else body[first : last + 1]
            )
            headers = [
                each for each in headers if each[0] not in {b"content-length", b"content-range"}
            ]
            headers.append((b"content-range", b"bytes %d-%d" % (first, last) + size))
        if head and not self._errs("gives HEAD a body"):
            body = b""
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _not_modified(self, entry: Entry, scope: Any) -> bool:
        if entry.status != 200:
            return False
        asked = [value for name, value in scope["headers"] if name == b"if-none-match"]
        since = one(scope["headers"], b"if-modified-since")
        tag, modified = one(entry.headers, b"etag"), one(entry.headers, b"last-modified")
        if asked and not (self._errs("prefers If-Modified-Since") and since):
            if tag is None:
                return False
            if self._errs("compares If-None-Match by substring"):
                return tag.strip(b'W/"') in b",".join(asked)
            if not re.fullmatch(rb'(?:W/)?"[a-z0-9]+"', tag):
                return False
            return tag.removeprefix(b"W/") in [
                each.strip().removeprefix(b"W/") for each in b",".join(asked).split(b",")
            ]
        if since is None or modified is None:
            return False
        now_s = self._wall_s()
        copy, known = http_date(modified, now_s), http_date(since, now_s)
        return copy is not None and known is not None and copy <= known

    def _range(self, entry: Entry, scope: Any) -> tuple[int, int] | None:
        values = [value for name, value in scope["headers"] if name == b"range"]
        if entry.status != 200 or len(values) != 1:
            return None
        if scope["method"] != "GET" and not self._errs("gives 206 to HEAD"):
            return None
        if one(scope["headers"], b"if-range") is not None and not self._errs("ignores If-Range"):
            return None
        match = re.fullmatch(rb"bytes=([0-9]{1,9})-([0-9]{1,9})", values[0])
        if match is None:
            return None
        first, last = int(match[1]), min(int(match[2]), len(entry.body) - 1)
        return (first, last) if first <= last else None


def _plain_get(scope: Any) -> bool:
    """Neither conditional nor for a part: then this cache may ask with its own condition."""
    names = {name for name, _ in scope["headers"]}
    conditions = {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since",
                  b"range", b"if-range"}  # fmt: skip
    return scope["method"] == "GET" and not names & conditions


class Said:
    """A request's body, for one call of the app; the client stays."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self._body, "more_body": False}

    def again(self) -> Said:
        return Said(self._body)
