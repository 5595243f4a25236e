"""Is an answer to be stored, and for how long: the RFC's rules and the owner's together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.fields import CREDENTIALS, HOP_BY_HOP
from perf_middleware.caching.judgement import NO_FRESHNESS, Judge, Keep, credentials_reason
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.selection import VARY_FIELDS_MAX
from perf_middleware.caching.storability import INDISPENSABLE, refusal
from perf_middleware.caching.syntax.directives import parse_response_directives, parse_targeted
from tests.caching.entries import NOW_S, S, date

MANY = tuple(b"f%02d" % number for number in range(VARY_FIELDS_MAX))
SHARED = CachePolicy(name="/a", shared=True)


def judged(*headers, status=200, rule=None, credentials=(), no_store=False, now_us=0, **options):
    """What comes of an answer with these fields, sent at second 0 and received at `now_us`."""
    judge = Judge(CacheOptions(**options))
    return judge.judge(
        status,
        judge.collect(headers),
        credentials=frozenset(credentials),
        no_store=no_store,
        sent_us=0,
        rule=rule,
        now_us=now_us,
        wall_us=NOW_S * S,
    )


def policy(**said):
    return CachePolicy(name="/a", **said)


def cc(value):
    return (b"Cache-Control", value)


@pytest.mark.parametrize(
    ("headers", "said", "reason"),
    [
        pytest.param([], {}, NO_FRESHNESS, id="nothing said of time"),
        pytest.param([cc(b"public")], {}, NO_FRESHNESS, id="public says nothing of time"),
        pytest.param([(b"last-modified", date(0))], {}, NO_FRESHNESS, id="nothing is guessed"),
        pytest.param([cc(b"max-age=60, no-store")], {}, "no-store", id="no-store"),
        pytest.param([cc(b"max-age=60"), cc(b"private")], {}, "private", id="private"),
        pytest.param([cc(b"max-age=60")], {"no_store": True}, "request-no-store",
                     id="the request's no-store"),
        pytest.param([cc(b"max-age=60")], {"status": 206}, "partial", id="a part"),
        pytest.param([cc(b"max-age=60")], {"status": 304}, "not-final", id="304"),
        pytest.param([cc(b"must-understand, max-age=60")], {"status": 299}, "must-understand",
                     id="a status that must be understood and is not"),
        pytest.param([cc(b"max-age=60"), (b"Vary", b"*")], {}, "vary", id="Vary: *"),
        pytest.param([cc(b"max-age=60"), (b"vary", b"a"), (b"vary", b"b, *")], {}, "vary",
                     id="a star on the second line"),
        pytest.param([cc(b"max-age=60"), (b"vary", b"a b")], {}, "vary", id="junk in Vary"),
        pytest.param([cc(b"max-age=60"), (b"vary", b",".join(MANY))],
                     {"rule": policy(vary=(b"z",))}, "vary", id="too many fields with the rule's"),
        pytest.param([cc(b"max-age=60"), (b"Content-Type", b"Text/Event-Stream; charset=utf-8")],
                     {}, "event-stream", id="a stream of events never ends"),
        pytest.param([cc(b"max-age=60"), (b"Set-Cookie", b"a=1")], {}, "set-cookie",
                     id="Set-Cookie is for one client"),
        pytest.param([cc(b"public, max-age=60"), (b"set-cookie", b"")], {}, "set-cookie",
                     id="also where it is public, also an empty one"),
        pytest.param([cc(b'max-age=60, no-cache="set-cookie"'), (b"set-cookie", b"a=1")], {},
                     "set-cookie", id="also where it could be left out: the body may be, too"),
        pytest.param([cc(b"max-age=60")], {"credentials": [b"cookie"]}, "credentials: cookie",
                     id="an answer to a cookie"),
        pytest.param([cc(b"public, max-age=60")], {"credentials": [b"x-api-key", b"cookie"]},
                     "credentials: cookie, x-api-key", id="to two credentials"),
        pytest.param([cc(b"public, max-age=60")], {"credentials": [b"authorization"]},
                     "credentials: authorization", id="to Authorization, unless the RFC's rule is"
                     " wanted"),
        pytest.param([cc(b"max-age=60"), (b"vary", b"cookie")],
                     {"credentials": [b"authorization", b"cookie"]}, "credentials: authorization",
                     id="to Authorization, where Vary covers cookies"),
        pytest.param([cc(b"max-age=0")], {}, "already-stale", id="no lifetime"),
        pytest.param([cc(b"max-age=60"), (b"age", b"60")], {}, "already-stale", id="too old"),
        pytest.param([cc(b"max-age=60"), (b"date", date(NOW_S - 60))], {}, "already-stale",
                     id="too old by its Date"),
        pytest.param([cc(b"max-age=60")], {"now_us": 60 * S}, "already-stale",
                     id="too long on its way"),
        pytest.param([cc(b"no-cache")], {}, "already-stale", id="no-cache without a validator"),
        *(
            pytest.param([cc(b"no-cache"), (b"etag", b'"1"')], {"status": status}, "no-freshness",
                         id=f"no-cache permits nothing for a {status}")
            for status in (302, 403, 299)
        ),
        pytest.param([cc(b"no-cache"), (b"etag", b'"1"')], {"status": 302, "default_ttl_s": 40},
                     "no-freshness", id="nor with a default that is for other statuses"),
        pytest.param([(b"cdn-cache-control", b"no-cache"), (b"etag", b'"1"')], {"status": 302},
                     "no-freshness", id="nor in a targeted field"),
        pytest.param([(b"expires", b"0")], {}, "already-stale", id="Expires: 0"),
        pytest.param([cc(b"s-maxage=0, stale-while-revalidate=60")], {}, "already-stale",
                     id="s-maxage forbids stale use"),
    ],
)  # fmt: skip
def test_what_may_not_be_stored_is_refused_with_a_reason(headers, said, reason):
    assert judged(*headers, **said) == reason


@pytest.mark.parametrize(
    ("headers", "said", "fresh_s"),
    [
        pytest.param([cc(b"max-age=60")], {}, 60, id="max-age"),
        pytest.param([cc(b"max-age=60, s-maxage=5")], {}, 5, id="s-maxage"),
        pytest.param([(b"Expires", date(NOW_S + 30))], {}, 30, id="Expires"),
        pytest.param([cc(b"max-age=60"), (b"age", b"7")], {}, 60, id="the lifetime counts from"
                     " birth"),
        pytest.param([cc(b"no-store"), (b"CDN-Cache-Control", b"max-age=9")], {}, 9,
                     id="a targeted field"),
        pytest.param([cc(b"max-age=9")], {"status": 599}, 9, id="any status with a lifetime"),
        pytest.param([cc(b"max-age=0"), (b"etag", b'"1"')], {}, 0,
                     id="no lifetime, with a validator to ask by"),
        pytest.param([cc(b"no-cache"), (b"last-modified", date(0))], {}, 0,
                     id="no-cache, with a validator"),
        pytest.param([cc(b"no-cache"), (b"etag", b'"1"')], {"status": 404}, 0,
                     id="no-cache, of a status that is cacheable by default"),
        pytest.param([cc(b"no-cache, public"), (b"etag", b'"1"')], {"status": 302}, 0,
                     id="no-cache, of a status that only public makes cacheable"),
        pytest.param([cc(b"no-cache, max-age=9"), (b"etag", b'"1"')], {"status": 302}, 9,
                     id="no-cache beside a lifetime"),
        pytest.param([cc(b"max-age=0, stale-while-revalidate=60")], {}, 0,
                     id="no lifetime, with leave to be stale"),
        pytest.param([cc(b"max-age=0, stale-if-error=60")], {}, 0, id="the same for errors"),
        pytest.param([cc(b"public")], {"default_ttl_s": 40}, 40, id="the default"),
        pytest.param([cc(b"max-age=9")], {"default_ttl_s": 40}, 9,
                     id="its own word comes before the default"),
        pytest.param([cc(b"public"), (b"age", b"7")], {"default_ttl_s": 40}, 47,
                     id="the default counts from now"),
        pytest.param([(b"last-modified", date(NOW_S - 100))], {"heuristic": True}, 10,
                     id="a guess"),
        pytest.param([(b"last-modified", date(NOW_S - 100))],
                     {"heuristic": True, "default_ttl_s": 40}, 40, id="the default before a guess"),
        pytest.param([], {"rule": policy(ttl_s=20)}, 20, id="a rule"),
        pytest.param([cc(b"max-age=60, s-maxage=70")], {"rule": policy(ttl_s=20)}, 20,
                     id="a rule's word comes before the response's"),
        pytest.param([cc(b"max-age=0"), (b"age", b"7")], {"rule": policy(ttl_s=20)}, 27,
                     id="a rule counts from now"),
        pytest.param([cc(b"max-age=60")], {"rule": policy()}, 60,
                     id="a rule without a word leaves it to the response"),
        pytest.param([], {"rule": policy(negative_ttl_s=5), "status": 404}, 5,
                     id="a rule's word for 404"),
        pytest.param([cc(b"max-age=60")], {"rule": policy(negative_ttl_s=5)}, 60,
                     id="which is not for 200"),
        pytest.param([cc(b"max-age=60")], {"rule": policy(ttl_s=5), "status": 404}, 60,
                     id="the other way round"),
        pytest.param([cc(b"max-age=60")], {"rule": policy(ttl_s=5), "status": 500}, 60,
                     id="nor for failures"),
    ],
)  # fmt: skip
def test_what_may_be_stored_is_kept_for_its_time(headers, said, fresh_s):
    verdict = judged(*headers, **said)
    assert isinstance(verdict, Keep)
    assert verdict.lifetimes.fresh_s == fresh_s


@pytest.mark.parametrize(
    ("said", "status"),
    [
        pytest.param({"default_ttl_s": 40}, 404, id="the default is not for 404"),
        pytest.param({"default_ttl_s": 40}, 500, id="nor for failures"),
        pytest.param({"default_ttl_s": 40}, 302, id="nor for what is temporary"),
        pytest.param({"rule": policy(ttl_s=5)}, 404, id="nor is a rule's ttl"),
        pytest.param({"rule": policy(ttl_s=5, negative_ttl_s=5)}, 500, id="nothing is for 500"),
        pytest.param({"heuristic": True}, 200, id="no guess without Last-Modified"),
    ],
)
def test_nothing_is_made_up_for_what_says_nothing(said, status):
    assert judged((b"x", b"y"), status=status, **said) == NO_FRESHNESS


@pytest.mark.parametrize("forbidding", [b"no-store", b"private"])
def test_no_rule_and_no_default_store_what_the_app_forbids(forbidding):
    everything = policy(ttl_s=60, negative_ttl_s=60, shared=True, stale_if_error_s=60)
    for said in ({"rule": everything}, {"default_ttl_s": 60}, {"heuristic": True}):
        assert judged(cc(forbidding), **said) == forbidding.decode()


def test_the_initial_age_counts_from_what_caches_behind_us_say():
    headers = [cc(b"max-age=60"), (b"age", b"5")]
    assert judged(*headers, now_us=2 * S + 1).initial_age_us == 7 * S + 1
    assert judged(*headers, now_us=-S).initial_age_us == 5 * S  # a clock that went back
    assert judged(cc(b"max-age=60"), (b"date", b"x")).initial_age_us == 0


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param([(b"vary", b"Cookie")], {"credentials": [b"cookie"]},
                     id="Vary tells the cookies apart"),
        pytest.param([], {"credentials": [b"cookie"], "rule": policy(vary=(b"cookie",))},
                     id="the rule's vary does"),
        pytest.param([], {"credentials": [b"cookie", b"x-api-key"], "rule": SHARED},
                     id="the owner says it is the same for all"),
        pytest.param([(b"set-cookie", b"a=1")], {"rule": SHARED}, id="with Set-Cookie too"),
        pytest.param([], {"credentials": [b"cookie"],
                          "rule": policy(private_by=("cookie:session",))},
                     id="the key has the cookie in it"),
        pytest.param([(b"set-cookie", b"a=1")],
                     {"credentials": [b"cookie"], "rule": policy(private_by=("cookie",))},
                     id="then Set-Cookie is no reason either"),
    ],
)  # fmt: skip
def test_an_answer_to_credentials_is_kept_where_something_makes_it_safe(headers, said):
    assert isinstance(judged(cc(b"max-age=60"), *headers, **said), Keep)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"credentials": [b"authorization"],
                      "rule": policy(private_by=("cookie",))}, id="a rule of another field"),
        pytest.param({"credentials": [b"authorization", b"cookie"],
                      "rule": policy(private_by=("authorization",))}, id="a rule of one of two"),
        pytest.param({"credentials": [b"cookie"], "rule": policy(ttl_s=60)}, id="a rule of time"),
        pytest.param({"credentials": [b"cookie"], "authorization_by_rfc": True},
                     id="the RFC speaks of Authorization alone"),
    ],
)  # fmt: skip
def test_an_answer_to_other_credentials_is_refused(said):
    reason = judged(cc(b"public, max-age=60"), **said)
    assert reason.startswith("credentials: ")


@pytest.mark.parametrize(
    ("cache_control", "kept"),
    [
        pytest.param(b"public, max-age=60", True, id="public"),
        pytest.param(b"s-maxage=60", True, id="s-maxage"),
        pytest.param(b"must-revalidate, max-age=60", True, id="must-revalidate"),
        pytest.param(b"max-age=60", False, id="max-age alone"),
    ],
)
def test_by_the_rfc_the_app_may_share_answers_to_authorization(cache_control, kept):
    said = {"credentials": [b"authorization"], "authorization_by_rfc": True}
    assert isinstance(judged(cc(cache_control), **said), Keep) is kept


def test_vary_is_what_the_response_and_the_rule_name():
    headers = [cc(b"max-age=60"), (b"vary", b"B"), (b"Vary", b"a")]
    assert judged(*headers).vary == (b"a", b"b")
    assert judged(*headers, rule=policy(vary=(b"c", b"a"))).vary == (b"a", b"b", b"c")
    assert judged(cc(b"max-age=60")).vary == ()


SENT = [
    (b"Content-Type", b"text/plain"), (b"Cache-Control", b'max-age=60, private="X-User"'),
    (b"X-User", b"ann"), (b"Expires", b"0"), (b"Pragma", b"no-cache"), (b"Connection", b"x-hop"),
    (b"X-Hop", b"1"), (b"Age", b"5"), (b"Cache-Status", b"other; hit"), (b"X-A", b"1"),
    (b"X-A", b"2"), (b"Keep-Alive", b"5"),
]  # fmt: skip


def test_it_is_stored_without_what_is_not_for_others():
    kept = judged(*SENT).headers(SENT, None)
    assert kept == [
        (b"content-type", b"text/plain"), (b"cache-control", b'max-age=60, private="X-User"'),
        (b"expires", b"0"), (b"pragma", b"no-cache"), (b"x-a", b"1"), (b"x-a", b"2"),
    ]  # fmt: skip


def test_clients_may_be_told_otherwise():
    kept = judged(*SENT).headers(SENT, b"max-age=5")
    assert kept == [
        (b"content-type", b"text/plain"), (b"x-a", b"1"), (b"x-a", b"2"),
        (b"cache-control", b"max-age=5"),
    ]  # fmt: skip


@pytest.mark.parametrize("named", [b"no-cache", b"private"])
def test_the_fields_of_a_qualified_form_are_left_out(named):
    sent = [cc(b'max-age=60, %b="Set-Cookie, X-User"' % named), (b"x-user", b"1"), (b"x", b"2")]
    verdict = judged(*sent)
    assert not verdict.lifetimes.must_validate
    assert [name for name, _ in verdict.headers(sent, None)] == [b"cache-control", b"x"]


def test_a_cookie_is_never_stored_even_where_the_answer_is():
    sent = [cc(b"max-age=60"), (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert judged(*sent, rule=SHARED).headers(sent, None) == [(b"cache-control", b"max-age=60")]


@pytest.mark.parametrize(
    ("names", "options", "silent"),
    [
        pytest.param([], {}, True, id="no field"),
        pytest.param([b"etag", b"vary", b"last-modified"], {}, True, id="none about time"),
        pytest.param([b"cache-control"], {}, False, id="Cache-Control"),
        pytest.param([b"expires"], {}, False, id="Expires"),
        pytest.param([b"cdn-cache-control"], {}, False, id="a targeted field"),
        pytest.param([b"cdn-cache-control"], {"targeted": ()}, True, id="of no concern to us"),
        pytest.param([b"last-modified"], {"heuristic": True}, False, id="enough for a guess"),
        pytest.param([], {"default_ttl_s": 5}, False, id="there is a default"),
    ],
)
def test_most_answers_say_nothing_of_being_stored(names, options, silent):
    assert Judge(CacheOptions(**options)).is_silent((name, b"") for name in names) is silent


def test_the_reason_names_the_credentials_in_order():
    assert credentials_reason(frozenset({b"cookie", b"authorization"})) == (
        "credentials: authorization, cookie"
    )


names = st.sampled_from(
    [b"Cache-Control", b"cdn-cache-control", b"Expires", b"DATE", b"Age", b"Vary", b"ETag",
     b"Last-Modified", b"Set-Cookie", b"Content-Type", b"Connection", b"Content-Length", b"x"]
)  # fmt: skip
words = st.sampled_from(
    [b"max-age=60", b"s-maxage=9", b"public", b"private", b"no-store", b"no-cache", b"*", b"cookie",
     b"must-understand", b'private="x"', b'no-cache="vary"', b"must-revalidate", b'"', b";", b"0",
     b"authorization", b"stale-if-error=9", date(NOW_S), date(NOW_S + 9), b"\xff", b"x"]
)  # fmt: skip
values = st.one_of(st.lists(words, max_size=4).map(b", ".join), st.binary(max_size=20))
heads = st.lists(st.tuples(names, values), max_size=8)
rules = st.sampled_from(
    [None, SHARED, policy(), policy(ttl_s=9, negative_ttl_s=9), policy(vary=(b"cookie", b"z")),
     policy(private_by=("cookie:a",)), policy(private_by=("authorization",), stale_if_error_s=9)]
)  # fmt: skip
credential_sets = st.frozensets(st.sampled_from([b"authorization", b"cookie", b"x-api-key"]))
option_sets = st.fixed_dictionaries(
    {"authorization_by_rfc": st.booleans(), "heuristic": st.booleans(),
     "default_ttl_s": st.sampled_from([None, 9]),
     "targeted": st.sampled_from([(), (b"cdn-cache-control",)])}
)  # fmt: skip


@given(heads, st.sampled_from([200, 204, 206, 299, 302, 304, 404, 599]), rules, credential_sets,
       st.booleans(), option_sets)  # fmt: skip
def test_nothing_is_kept_that_anything_forbids(headers, status, rule, credentials, no_store, said):
    verdict = judged(
        *headers, status=status, rule=rule, credentials=credentials, no_store=no_store, **said
    )
    if isinstance(verdict, str):
        assert verdict
        return
    lines = {}
    for name, value in headers:
        lines.setdefault(name.lower(), []).append(value)
    targeted = parse_targeted(lines.get(b"cdn-cache-control", ())) if said["targeted"] else None
    directives = targeted or parse_response_directives(lines.get(b"cache-control", ()))
    assert refusal(status, directives, request_no_store=no_store) is None
    assert b"*" not in b",".join(lines.get(b"vary", ())).replace(b" ", b"").split(b",")
    covered = rule is not None and rule.covers(credentials)
    by_rfc = said["authorization_by_rfc"] and credentials - set(verdict.vary) == {b"authorization"}
    assert covered or by_rfc or credentials <= set(verdict.vary)
    kept = {name for name, _ in verdict.headers(headers, None)}
    assert not kept & (HOP_BY_HOP | {b"set-cookie", b"age"})
    assert not kept & (directives.private_fields | directives.no_cache_fields)
    assert INDISPENSABLE & {name.lower() for name, _ in headers} <= kept | {
        name.strip().lower() for line in lines.get(b"connection", ()) for name in line.split(b",")
    }
    assert verdict.initial_age_us >= 0
    assert verdict.lifetimes.fresh_s >= 0
    if directives.must_revalidate or directives.proxy_revalidate or directives.no_cache:
        assert not verdict.lifetimes.may_be_stale
    assert verdict.lifetimes.must_validate is directives.no_cache


any_names = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"Set-Cookie", b"Connection", b"TE", b"Keep-Alive", b"AGE", b"x-hop",
                     b"Cache-Control", b"Cache-Status"]),
)  # fmt: skip
any_values = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"x-hop", b"max-age=9", b'private="x-hop", max-age=9', b'no-cache="te"']),
)


@given(
    st.lists(st.tuples(any_names, any_values), max_size=6),
    st.integers(0, 1000),
    st.frozensets(st.sampled_from(sorted(CREDENTIALS)), max_size=2),
)
def test_any_bytes_are_judged_and_nothing_is_left_that_must_not_be_stored(
    headers, status, credentials
):
    for rule in (None, SHARED, policy(ttl_s=1), policy(ttl_s=1, shared=True)):
        verdict = judged(*headers, status=status, rule=rule, credentials=credentials)
        if not isinstance(verdict, Keep):
            continue
        by_connection = {
            name.strip(b" \t").lower()
            for line in verdict.lines.get(b"connection", ())
            for name in line.split(b",")
            if b'"' not in line
        }
        for tell_clients in (None, b"x"):
            left = {name for name, _ in verdict.headers(headers, tell_clients)}
            assert not left & (HOP_BY_HOP | verdict.without | {b"set-cookie"})
            assert not (left - {b"cache-control"}) & by_connection


def test_nothing_of_a_field_that_is_not_stored_stays_in_memory():
    verdict = judged(
        cc(b'max-age=60, private="etag"'), (b"etag", b'"1"'), (b"set-cookie", b"session=ada"),
        rule=policy(shared=True),
    )  # fmt: skip
    assert isinstance(verdict, Keep)
    assert set(verdict.lines) == {b"cache-control"}
