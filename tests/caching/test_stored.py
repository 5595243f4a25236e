"""What is kept of an answer: its times, its validators, its size (RFC 9111 §4.2.4, §4.3.1)."""

import pytest

from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.stored import (
    OF_CONTENT,
    VALIDATED_FOR_S,
    Lifetimes,
    lifetimes_of,
)
from perf_middleware.caching.syntax.directives import parse_response_directives
from perf_middleware.caching.syntax.etags import EntityTag
from tests.caching.entries import NOW_S, STATUS, S, date, entry

WITHOUT_STALE = Lifetimes(fresh_s=60, may_be_stale=False)


def lifetimes(cache_control, **rule):
    return lifetimes_of(parse_response_directives([cache_control]), fresh_s=60, **rule)


@pytest.mark.parametrize(
    ("cache_control", "revalidate_s", "if_error_s"),
    [
        pytest.param(b"max-age=60", 0, 0, id="nothing said: none, though a client may ask for it"),
        pytest.param(b"stale-while-revalidate=5", 5, 0, id="stale-while-revalidate"),
        pytest.param(b"stale-if-error=9", 0, 9, id="stale-if-error"),
        pytest.param(b"stale-while-revalidate=5, stale-if-error=9, public", 5, 9, id="both"),
        pytest.param(b'stale-if-error=9, no-cache="x", private="y"', 0, 9,
                     id="beside the qualified forms, which speak of fields"),
        pytest.param(b"stale-if-error=x, stale-while-revalidate", 0, 0, id="broken ones"),
    ],
)  # fmt: skip
def test_a_response_says_how_long_it_may_be_used_stale(cache_control, revalidate_s, if_error_s):
    assert lifetimes(cache_control) == Lifetimes(
        fresh_s=60, stale_while_revalidate_s=revalidate_s, stale_if_error_s=if_error_s
    )


@pytest.mark.parametrize(
    "directive",
    [
        pytest.param(b"must-revalidate", id="must-revalidate"),
        pytest.param(b"proxy-revalidate", id="proxy-revalidate, for a shared cache"),
        pytest.param(b"must-revalidate; x", id="must-revalidate in a broken element"),
        pytest.param(b"s-maxage=60", id="s-maxage means proxy-revalidate"),
        pytest.param(b"s-maxage=0", id="s-maxage=0 too"),
    ],
)
def test_stale_use_ends_where_the_response_forbids_it(directive):
    stale = b", stale-while-revalidate=5, stale-if-error=9"
    assert lifetimes(directive) == WITHOUT_STALE
    assert lifetimes(directive + stale) == WITHOUT_STALE
    assert lifetimes(stale + b", " + directive) == WITHOUT_STALE


def test_no_cache_means_never_without_asking():
    said = lifetimes(b"no-cache, stale-while-revalidate=5, stale-if-error=9")
    assert said == Lifetimes(fresh_s=60, may_be_stale=False, must_validate=True)


@pytest.mark.parametrize(
    ("cache_control", "rule", "expected"),
    [
        pytest.param(b"stale-while-revalidate=5, stale-if-error=9", (7, None), (7, 9),
                     id="a rule's word comes before the response's, one by one"),
        pytest.param(b"stale-while-revalidate=5, stale-if-error=9", (None, 0), (5, 0),
                     id="also where it says 0"),
        pytest.param(b"max-age=60", (7, 8), (7, 8), id="or where the response says nothing"),
        pytest.param(b"s-maxage=60, stale-if-error=9", (7, None), (7, 0),
                     id="it lifts s-maxage for what it names itself, not for the response's own"),
        pytest.param(b"s-maxage=60, stale-while-revalidate=5", (None, 8), (0, 8),
                     id="the same for stale-if-error"),
    ],
)  # fmt: skip
def test_a_rule_has_the_word_about_stale_use(cache_control, rule, expected):
    said = lifetimes(cache_control, stale_while_revalidate_s=rule[0], stale_if_error_s=rule[1])
    assert (said.stale_while_revalidate_s, said.stale_if_error_s) == expected
    assert said.may_be_stale


@pytest.mark.parametrize("directive", [b"must-revalidate", b"proxy-revalidate", b"no-cache"])
def test_no_rule_lifts_what_forbids_stale_use_by_name(directive):
    said = lifetimes(directive, stale_while_revalidate_s=7, stale_if_error_s=8)
    assert (said.stale_while_revalidate_s, said.stale_if_error_s) == (0, 0)
    assert not said.may_be_stale


def test_the_times_follow_each_other():
    stored = entry(
        now_us=100 * S, initial_age_us=10 * S,
        fresh_s=60, stale_while_revalidate_s=5, stale_if_error_s=9,
    )  # fmt: skip
    assert stored.born_us == 90 * S
    assert stored.fresh_until_us == stored.early_from_us == 150 * S
    assert stored.usable_until_us == 155 * S
    assert stored.usable_if_error_us == 159 * S
    assert stored.useless_from_us == 159 * S


@pytest.mark.parametrize(
    ("age_us", "expected"),
    [
        pytest.param(0, 10, id="at once"),
        pytest.param(S - 1, 10, id="whole seconds only"),
        pytest.param(S, 11, id="a second later"),
        pytest.param(-20 * S, 0, id="never negative, whatever the clock does"),
    ],
)
def test_the_current_age_is_the_initial_one_and_the_time_since(age_us, expected):
    stored = entry(now_us=100 * S, initial_age_us=10 * S)
    assert stored.age_s(100 * S + age_us) == expected


def test_what_must_be_validated_is_never_fresh_and_keeps_its_room():
    stored = entry(now_us=0, may_be_stale=False, must_validate=True)
    assert stored.fresh_until_us == 0
    assert stored.useless_from_us == 60 * S


def test_a_validator_makes_it_worth_keeping_beyond_its_time():
    for header in ((b"etag", b'"1"'), (b"last-modified", date(NOW_S))):
        assert entry(b"/a", header).useless_from_us == (60 + VALIDATED_FOR_S) * S
    assert entry(b"/a", (b"etag", b"broken")).useless_from_us == 60 * S


MODIFIED = (b"last-modified", date(NOW_S))


@pytest.mark.parametrize(
    ("headers", "validators"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(b"etag", b'"1"')], [(b"if-none-match", b'"1"')], id="a strong tag"),
        pytest.param([(b"etag", b' W/"1" ')], [(b"if-none-match", b'W/"1"')], id="a weak tag"),
        pytest.param([(b"etag", b"1")], [], id="an unquoted tag is none"),
        pytest.param([(b"etag", b'"1"'), (b"etag", b'"2"')], [(b"if-none-match", b'"1"')],
                     id="the first of two"),
        pytest.param([MODIFIED], [(b"if-modified-since", date(NOW_S))],
                     id="the date as it was sent"),
        pytest.param([MODIFIED, (b"etag", b'""')],
                     [(b"if-none-match", b'""'), (b"if-modified-since", date(NOW_S))],
                     id="both, an empty tag is one"),
    ],
)  # fmt: skip
def test_its_validators_ask_whether_it_is_still_the_same(headers, validators):
    assert entry(b"/a", *headers).validators == validators


def test_a_304_repeats_all_but_what_describes_the_body():
    by_rfc_9110 = {b"content-location", b"date", b"etag", b"vary", b"cache-control", b"expires"}
    assert OF_CONTENT.isdisjoint(by_rfc_9110)
    stored = entry(
        b"/a", (b"etag", b'"1"'), (b"content-length", b"4"), (b"vary", b"a"), (b"x", b"")
    )
    assert stored.not_modified_headers == [(b"etag", b'"1"'), (b"vary", b"a"), (b"x", b"")]


def shown(stored, now_us):
    return dict(stored.show(now_us, STATUS))


def test_a_hit_shows_its_age_and_what_is_left():
    stored = entry(now_us=100 * S, initial_age_us=10 * S, rule=CachePolicy(name="/a"))
    assert shown(stored, 100 * S) == {
        b"age": b"10", b"cache-status": b'ours; hit; ttl=50; detail="/a"',
    }  # fmt: skip
    assert stored.show(100 * S, STATUS) is stored.show(101 * S - 1, STATUS)
    assert shown(stored, 101 * S)[b"age"] == b"11"
    assert shown(stored, 170 * S)[b"cache-status"] == b'ours; hit; ttl=-20; detail="/a"'
    assert shown(entry(), -5 * S)[b"age"] == b"0"


def test_a_hit_may_show_its_age_alone():
    assert entry().show(5 * S, None) == ((b"age", b"5"),)


@pytest.mark.parametrize(
    ("vary", "rule", "safe"),
    [
        pytest.param((), None, False, id="nothing makes it so"),
        pytest.param((b"accept",), None, False, id="it varies by something else"),
        pytest.param((b"cookie",), None, True, id="it varies by what is sent"),
        pytest.param((), CachePolicy(name="/a", shared=True), True, id="its rule shares it"),
        pytest.param((), CachePolicy(name="/a"), False, id="its rule says nothing of it"),
    ],
)
def test_it_is_safe_for_credentials_by_its_own_rule_or_vary(vary, rule, safe):
    stored = entry(vary=vary, rule=rule)
    assert stored.is_safe_for(frozenset({b"cookie"})) is safe
    assert stored.is_safe_for(frozenset())


@pytest.mark.parametrize(
    ("purged_s", "fresh_until_s"),
    [
        pytest.param(20, 20, id="while it is fresh: stale from now on"),
        pytest.param(62, 60, id="while it is stale: not fresh again"),
    ],
)
def test_a_soft_purge_makes_it_stale_and_no_longer_lived(purged_s, fresh_until_s):
    stored = entry(stale_while_revalidate_s=5, stale_if_error_s=9)
    stored.show(purged_s * S, STATUS)
    stored.make_stale(purged_s * S)
    assert stored.fresh_until_us == stored.early_from_us == fresh_until_s * S
    assert (stored.usable_until_us, stored.usable_if_error_us) == (65 * S, 69 * S)
    ttl = fresh_until_s - purged_s
    assert shown(stored, purged_s * S)[b"cache-status"] == b"ours; hit; ttl=%d" % ttl


def test_a_soft_purge_of_what_may_not_be_stale_leaves_it_to_be_validated():
    stored = entry(may_be_stale=False)
    stored.make_stale(20 * S)
    assert stored.fresh_until_us == stored.usable_until_us == stored.usable_if_error_us == 20 * S


def test_a_validation_gives_new_fields_and_times_and_keeps_the_rest():
    stored = entry(b"/a", (b"etag", b'W/"1"'), now_us=0)
    stored.make_stale(20 * S)
    stored.show(20 * S, STATUS)
    newer = [(b"etag", b'W/"2"'), MODIFIED, (b"content-length", b"4"), (b"x", b"y" * 1000)]
    other = stored.confirmed(
        newer, {b"age": [b"3"]}, Lifetimes(fresh_s=10), initial_age_us=3 * S, now_us=50 * S
    )
    assert other.headers == newer
    assert other.lines == {b"age": [b"3"]}
    assert other.etag == EntityTag(b'"2"', weak=True)
    assert other.last_modified == MODIFIED[1]
    assert other.not_modified_headers == [newer[0], newer[1], newer[3]]
    assert (other.born_us, other.fresh_until_us) == (47 * S, 57 * S)
    assert other.usable_until_us == other.usable_if_error_us == 57 * S
    assert shown(other, 50 * S)[b"age"] == b"3"
    assert (other.body, other.key, other.target) == (stored.body, stored.key, stored.target)


def test_a_validation_leaves_the_one_that_others_may_be_sending():
    stored = entry(b"/a", (b"etag", b'"1"'), now_us=0)
    shown_before = stored.show(20 * S, STATUS)
    stored.confirmed([], {}, Lifetimes(fresh_s=1), initial_age_us=0, now_us=50 * S)
    assert stored.headers == [(b"etag", b'"1"')]
    assert stored.fresh_until_us == 60 * S
    assert stored.show(20 * S, STATUS) is shown_before


def test_its_size_follows_what_a_validation_adds_or_takes():
    stored = entry(b"/a", (b"etag", b'"1"'))

    def confirmed(headers):
        return stored.confirmed(headers, {}, Lifetimes(fresh_s=1), initial_age_us=0, now_us=0)

    longer = confirmed([(b"etag", b'"1"'), (b"x", b"y" * 10_000)])
    assert longer.size_bytes > stored.size_bytes + 10_000
    assert confirmed([(b"etag", b'"1"')]).size_bytes == stored.size_bytes


@pytest.mark.parametrize(
    ("more", "bytes_min"),
    [
        pytest.param({"body": b"x" * 5_004}, 5_000, id="a body"),
        pytest.param({"path": b"/a" + b"b" * 1_000}, 3_000, id="a URL, three times"),
        pytest.param({"key": b"k" * 1_000}, 1_000, id="a key of its own"),
        pytest.param({"tags": ("t" * 1_000,)}, 1_000, id="a tag"),
        pytest.param({"lines": {b"date": [b"x"]}}, 80, id="a line of the app's words"),
    ],
)
def test_everything_it_holds_is_in_its_size(more, bytes_min):
    assert entry(**more).size_bytes >= entry().size_bytes + bytes_min
