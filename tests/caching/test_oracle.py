"""The oracle sees: a cache that is right passes, and each that is wrong in one thing is caught."""

from functools import partial

import pytest

from tests.caching.oracle.driver import fuzz
from tests.caching.oracle.exchanges import Exchanged, Served, Target
from tests.caching.oracle.fields import (
    byte_ranges,
    directives,
    http_date,
    response_directives,
)
from tests.caching.oracle.generate import Nature, dated
from tests.caching.oracle.mistakes import MISTAKES
from tests.caching.oracle.reuse import House
from tests.caching.oracle.rules import unsafe
from tests.caching.oracle.small_cache import SmallCache
from tests.caching.oracle.users import crowd
from tests.caching.oracle.world import START_S

SEED = 7
PAIRS_TO_BE_CAUGHT_IN = 6_000
HERE = Target("http", b"example.test", b"/a")


def no_cache_at_all(app, clock, wall_s):
    """Passes all on; has nothing for who wants what is cached only."""

    async def cache(scope, receive, send):
        asked = b",".join(value for name, value in scope["headers"] if name == b"cache-control")
        if scope["method"] in {"GET", "HEAD"} and b"only-if-cached" in asked:
            await send({"type": "http.response.start", "status": 504, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, send)

    return cache


@pytest.mark.parametrize("at_once", [False, True], ids=["in order", "at once"])
def test_no_cache_at_all_is_safe(at_once):
    outcome = fuzz(no_cache_at_all, seed=SEED, pairs=2_000, at_once=at_once)
    assert not outcome.faults, outcome.faults[0]
    assert outcome.pairs >= 2_000


@pytest.mark.parametrize("at_once", [False, True], ids=["in order", "at once"])
def test_a_small_right_cache_is_safe_and_has_hits_of_every_kind(at_once):
    outcome = fuzz(SmallCache, seed=SEED, pairs=8_000, at_once=at_once)
    assert not outcome.faults, outcome.faults[0]
    assert outcome.answers["reused"] > outcome.pairs / 6
    for kind in ("validated", "reused as 304", "reused as 206", "the cache's own 504"):
        assert outcome.answers[kind] > 5


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_cache_with_one_mistake_is_caught(mistake):
    wrong = partial(SmallCache, mistake=mistake)
    said = []
    # Another sentence may come first: a mistake often breaks more than one rule.
    for seed in range(SEED, SEED + 6):
        outcome = fuzz(wrong, seed=seed, pairs=PAIRS_TO_BE_CAUGHT_IN // 6, faults_max=20)
        said += outcome.sentences()
        if any(MISTAKES[mistake] in sentence for sentence in said):
            return
    pytest.fail(f"not caught; the oracle said {said}")


def test_the_same_seed_makes_the_same_run():
    one, other = (fuzz(SmallCache, seed=3, pairs=500) for _ in range(2))
    assert one.answers == other.answers
    first, second = Nature(5), Nature(5)
    for number in range(200):
        assert first.request(START_S) == second.request(START_S)
        call = exchanged(number)
        assert first.answer(call, None) == second.answer(call, None)


def test_a_cache_that_hangs_is_told():
    def hanging(app, clock, wall_s):
        async def cache(scope, receive, send):
            await app(scope, receive, send)
            if scope["method"] == "GET":
                await receive()

        return cache

    def asking_twice(app, clock, wall_s):
        async def nowhere(message):
            pass

        async def cache(scope, receive, send):
            await app(scope, receive, nowhere)
            await app(scope, receive, send)

        return cache

    assert not fuzz(hanging, seed=1, pairs=60, house=House(honours_the_client=False)).faults
    caught = fuzz(asking_twice, seed=1, pairs=60).sentences()
    assert "waits for the client, who waits for the answer" in caught


# --- single pairs: what the fuzz meets too seldom -------------------------------------------------


def exchanged(number=0, *, head=(), asked=(), **more):
    facts = {
        "method": "GET",
        "target": HERE,
        "status": 200,
        "at_s": START_S,
        "body": b"answer %d " % number * 3,
        "complete": True,
        "began": number * 10 + 1,
        "ended": number * 10 + 2,
    } | more
    return Exchanged(
        number=number,
        request=number,
        asked_s=facts["at_s"],
        finished_s=facts["at_s"],
        request_headers=list(asked),
        headers=[(b"x-answer-%d" % number, b"1"), *head],
        **facts,
    )


def reused(stored, *, after_s, asked=(), add=(), drop=(), **more):
    """`stored` as a careful cache serves it to another request `after_s` later."""
    now_s = stored.at_s + after_s
    head = [each for each in stored.headers if each[0] not in {*drop, b"age"}]
    facts = {"method": "GET", "status": stored.status, "body": stored.body, "complete": True} | more
    return Served(
        number=1000,
        began=1000,
        at_s=now_s,
        answered_s=now_s,
        target=HERE,
        request_headers=list(asked),
        headers=[*head, *(add or [(b"age", b"%d" % after_s)])],
        **facts,
    )


def rules_of(*values):
    return [(b"cache-control", value) for value in values]


@pytest.mark.parametrize(
    ("head", "after_s", "said"),
    [
        pytest.param(rules_of(b"max-age=10"), 9, "", id="fresh to the last second"),
        pytest.param(rules_of(b"max-age=10"), 10, "stale", id="and not a second longer"),
        pytest.param(rules_of(b"max-age=10, s-maxage=5"), 5, "s-maxage", id="s-maxage comes first"),
        pytest.param(rules_of(b"max-age=5", b"max-age=50"), 9, "stale", id="the first line counts"),
        pytest.param(rules_of(b"max-age=1.5"), 0, "stale", id="a broken lifetime is none"),
        pytest.param(rules_of(b'x="max-age=9"'), 0, "no freshness", id="a quoted one is none"),
        pytest.param(rules_of(b'x="no-store", max-age=9'), 5, "", id="nor does it forbid"),
        pytest.param(rules_of(b'max-age=9, x="no-store'), 5, "no-store", id="in doubt it does"),
        pytest.param(rules_of(b"max-age=9", b"NO-STORE"), 5, "no-store", id="on any line"),
        pytest.param(rules_of(b'private="x-a", max-age=9'), 5, "", id="private for one field"),
        pytest.param(rules_of(b'private="", max-age=9'), 5, "private", id="private for none"),
        pytest.param([], 0, "names no freshness", id="no heuristics"),
        pytest.param(
            [(b"cdn-cache-control", b"max-age=9"), *rules_of(b"no-store")],
            5,
            "",
            id="the targeted field wins",
        ),
        pytest.param(
            [(b"cdn-cache-control", b"max-age=9,"), *rules_of(b"no-store")],
            5,
            "no-store",
            id="if it parses",
        ),
        pytest.param(
            [(b"expires", dated(START_S + 10)), (b"date", dated(START_S))], 9, "", id="Expires"
        ),
        pytest.param(
            [(b"expires", dated(START_S + 10, 1)), (b"date", dated(START_S, 2))],
            10,
            "stale",
            id="Expires in other formats",
        ),
        pytest.param([(b"expires", b"0")], 0, "stale", id="Expires: 0"),
        pytest.param(
            [(b"date", dated(START_S - 8)), *rules_of(b"max-age=10")],
            2,
            "stale",
            id="the time since Date is age",
        ),
        pytest.param(
            rules_of(b"max-age=1, stale-while-revalidate=5"), 6, "", id="stale while revalidating"
        ),
        pytest.param(
            rules_of(b"max-age=1, stale-while-revalidate=5"), 7, "beyond", id="within its bound"
        ),
        pytest.param(
            rules_of(b"max-age=1, stale-while-revalidate=5, must-revalidate"),
            3,
            "must-revalidate",
            id="unless it must revalidate",
        ),
        pytest.param(rules_of(b"max-age=1, stale-if-error=9"), 3, "error", id="no error, no stale"),
        pytest.param(
            [(b"set-cookie", b"a=1"), *rules_of(b"max-age=9")], 1, "Set-Cookie", id="Set-Cookie"
        ),
        pytest.param(
            [(b"connection", b"x-hop"), (b"x-hop", b"1"), *rules_of(b"max-age=9")],
            1,
            "named in Connection",
            id="Connection",
        ),
    ],
)
def test_what_is_reused_without_asking_must_be_fresh_and_whole(head, after_s, said):
    stored = exchanged(head=head)
    served = reused(stored, after_s=after_s)
    ages = [int(START_S) + after_s - http_date(v, START_S) for n, v in head if n == b"date"]
    served.headers[-1] = (b"age", b"%d" % max(after_s, *ages, 0))
    sentences = unsafe(served, [stored], served.at_s)
    assert sentences if said else not sentences, sentences
    assert said in " ".join(sentences)


def test_an_error_of_the_app_allows_stale_if_error():
    stored = exchanged(head=rules_of(b"max-age=1, stale-if-error=9"))
    failed = exchanged(1, status=503, at_s=START_S + 5)
    served = reused(stored, after_s=5)
    assert unsafe(served, [stored, failed], served.at_s) == []
    failed.status = 599  # not an error in the sense of RFC 5861
    assert unsafe(served, [stored, failed], served.at_s)


@pytest.mark.parametrize(
    ("asked", "made_for", "vary", "said"),
    [
        pytest.param([], [], b"", "", id="nobody's answer for nobody"),
        pytest.param([(b"cookie", b"a")], [], b"", "cookie", id="nobody's for a user"),
        pytest.param([], [(b"x-api-key", b"a")], b"", "x-api-key", id="a user's for nobody"),
        pytest.param([(b"cookie", b"a")], [(b"cookie", b"a")], b"", "cookie", id="Vary is silent"),
        pytest.param([(b"cookie", b"a")], [(b"cookie", b"a")], b"Cookie", "", id="Vary says so"),
        pytest.param(
            [(b"cookie", b"b")], [(b"cookie", b"a")], b"Cookie", "cookie", id="another's cookie"
        ),
        pytest.param(
            [(b"cookie", b"a"), (b"x-auth-token", b"t")],
            [(b"cookie", b"a"), (b"x-auth-token", b"t")],
            b"Cookie",
            "x-auth-token",
            id="Vary names one of two",
        ),
    ],
)
def test_what_was_made_for_one_user_is_reused_for_that_one_alone(asked, made_for, vary, said):
    stored = exchanged(head=[*rules_of(b"public, max-age=9"), (b"vary", vary)], asked=made_for)
    sentences = unsafe(reused(stored, after_s=1, asked=asked), [stored], START_S + 1)
    assert bool(sentences) == bool(said)
    assert said in " ".join(sentences)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        pytest.param({"method": "POST"}, "POST invalidated", id="a write"),
        pytest.param({"method": "BREW"}, "BREW invalidated", id="a method of unknown safety"),
        pytest.param({"method": "POST", "status": 404}, "", id="an error writes nothing"),
        pytest.param({"method": "OPTIONS"}, "", id="a safe method"),
        pytest.param(
            {"method": "POST", "target": HERE._replace(path=b"/b"), "head": [(b"location", b"a")]},
            "location",
            id="its Location",
        ),
        pytest.param(
            {
                "method": "POST",
                "target": HERE._replace(host=b"evil.test"),
                "head": [(b"location", b"http://example.test/a")],
            },
            "",
            id="not of another origin",
        ),
    ],
)
def test_what_a_write_has_invalidated_must_not_be_reused(write, said):
    stored = exchanged(head=rules_of(b"max-age=9"))
    written = exchanged(1, **write)
    served = reused(stored, after_s=1)
    sentences = unsafe(served, [stored, written], served.at_s)
    assert said in " ".join(sentences)
    assert bool(sentences) == bool(said)


def test_a_renewed_response_is_as_old_as_its_renewal():
    tagged = [(b"etag", b'"v1"'), *rules_of(b"max-age=5")]
    stored = exchanged(head=tagged)
    renewal = exchanged(
        1, status=304, at_s=START_S + 100, body=b"", head=[(b"etag", b'"v1"'), (b"x-new", b"1")]
    )
    served = reused(
        stored,
        after_s=104,
        add=[(b"x-answer-1", b"1"), (b"x-new", b"1"), (b"age", b"4")],
    )
    assert unsafe(served, [stored, renewal], served.at_s) == []
    renewal.headers[1] = (b"etag", b'"v2"')
    assert "renewed by a 304 with another validator" in unsafe(
        served, [stored, renewal], served.at_s
    )


@pytest.mark.parametrize(
    ("value", "unix_s"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        (b"Sun Nov  6 08:49:37 1994", 784_111_777),
        (b"sun, 06 nov 1994 08:49:37 utc", 784_111_777),
        (b"Sun, 06 Nov 1994 08:49:37 PST", None),
        (b"Sun, 6 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 31 Feb 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 24:49:37 GMT", None),
        (b"0", None),
    ],
)
def test_a_date_is_read_in_each_of_its_formats(value, unix_s):
    assert http_date(value, START_S) == unix_s


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        (b"bytes=0-4", [(0, 4)]),
        (b"bytes=5-99", [(5, 9)]),
        (b"bytes=-3", [(7, 9)]),
        (b"bytes=-99", [(0, 9)]),
        (b"bytes=3-", [(3, 9)]),
        (b"bytes=0-0, 9-", [(0, 0), (9, 9)]),
        (b"bytes=10-", []),
        (b"bytes=-0", []),
        (b"bytes=5-2", None),
        (b"bytes=", None),
        (b"items=0-4", None),
        (b"bytes=0-4;x", None),
    ],
)
def test_a_range_names_the_bytes_that_there_are(value, ranges):
    assert byte_ranges([(b"range", value)], 10) == ranges


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (b"max-age=5, No-Store", {b"max-age": [b"5"], b"no-store": [None]}),
        (b'a="x, no-store", b', {b"a": [b"x, no-store"], b"b": [None]}),
        (b'a="x\\", no-store, b="', {b"a": [b'x", no-store, b=']}),
        (b"max age=5, =, ,x", {b"x": [None]}),
    ],
)
def test_directives_are_told_apart_by_commas_outside_of_quotes(value, names):
    assert directives([value]).named == names


@pytest.mark.parametrize(
    ("value", "wins"),
    [
        (b"max-age=5", True),
        (b"max-age=5;x=1, private", True),
        (b"", False),
        (b"Max-Age=5", False),
        (b"max-age=5,", False),
        (b"max-age=5 private", False),
    ],
)
def test_the_targeted_field_counts_only_where_it_parses(value, wins):
    assert response_directives([(b"cdn-cache-control", value)])[1] is wins


@pytest.mark.parametrize("at_once_max", [1, 12], ids=["in order", "at once"])
def test_users_of_a_right_cache_see_only_their_own(at_once_max):
    faults, reused = crowd(SmallCache, seed=SEED, requests=3_000, at_once_max=at_once_max)
    assert not faults, faults[:5]
    assert reused > 30


@pytest.mark.parametrize(
    "mistake",
    ["shares cookies", "shares Authorization", "answers users from the shared entry",
     "keeps Set-Cookie"],
)  # fmt: skip
def test_users_of_a_wrong_cache_see_what_is_not_theirs(mistake):
    wrong = partial(SmallCache, mistake=mistake)
    seen, _ = crowd(wrong, seed=SEED, requests=1_500, at_once_max=6)
    assert any("seen by" in each or "a cookie set for" in each for each in seen)
