"""What is hot, and what asks for it again."""

import pytest

from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.stored import Lifetimes, StoredResponse
from perf_middleware.caching.variants import Variants
from perf_middleware.caching.warming.heat import Heat, is_due
from perf_middleware.caching.warming.plan import Ask
from perf_middleware.caching.warming.replay import as_text, of_text, replay_of

HOME = b"https://shop.example\n/items"


def test_hits_are_forgotten_by_half_and_a_key_keeps_its_score_when_it_is_made_anew():
    heat = Heat(2)
    heat.look([(b"a", 8), (b"c", 0)])
    assert heat.hottest(5) == [(b"a", 8)]
    heat.look([(b"a", 8), (b"b", 6)])
    assert heat.hottest(5) == [(b"b", 6), (b"a", 4)]
    heat.look([(b"a", 9), (b"b", 2), (b"d", 1)])
    assert heat.hottest(5) == [(b"b", 5), (b"a", 3)]
    for _ in range(4):
        heat.look([])
    assert len(heat) == 0


@pytest.mark.parametrize(
    ("now_us", "due"),
    [
        pytest.param(94, False, id="there is time"),
        pytest.param(95, True, id="its end is near"),
        pytest.param(120, True, id="it is over"),
    ],
)
def test_what_is_near_its_end_is_due(now_us, due):
    assert is_due(now_us=now_us, born_us=0, fresh_until_us=100, ahead_us=5) is due


def test_half_of_a_short_life_is_lived_first_and_what_is_never_fresh_is_never_due():
    assert not is_due(now_us=49, born_us=0, fresh_until_us=100, ahead_us=1_000)
    assert is_due(now_us=50, born_us=0, fresh_until_us=100, ahead_us=1_000)
    assert not is_due(now_us=50, born_us=0, fresh_until_us=0, ahead_us=1_000)


def stored(primary=HOME, *, vary=(), fields=None, rule=None, shares=False):
    key = primary
    if vary:
        key = Variants(primary, tuple(sorted(vary))).key_for(fields or {})
    return StoredResponse(
        primary=primary, key=key, target=b"", status=200, headers=[], lines={}, body=b"",
        lifetimes=Lifetimes(fresh_s=60), initial_age_us=0, produced_us=0, now_us=0, vary=(),
        tags=(), route="", rule=rule, shares_authorization=shares,
    )  # fmt: skip


CHOSEN = CachePolicy(name="r", ttl_s=1, query=("page",))


@pytest.mark.parametrize(
    ("entry", "ask"),
    [
        pytest.param(
            stored(HOME + b"?page=1"),
            Ask("https", b"shop.example", b"/items", b"page=1"),
            id="its URL",
        ),
        pytest.param(
            stored(
                vary=(b"accept-language", b"accept"),
                fields={b"accept-language": [b"de, en"], b"accept": [b"a,1+b"]},
            ),
            Ask(
                "https",
                b"shop.example",
                b"/items",
                b"",
                ((b"accept", b"a,1+b"), (b"accept-language", b"de, en")),
            ),
            id="with the fields that it varies by",
        ),
        pytest.param(
            stored(vary=(b"accept", b"x"), fields={b"x": [b"1"]}),
            Ask("https", b"shop.example", b"/items", b"", ((b"x", b"1"),)),
            id="and without those that were not there",
        ),
        pytest.param(
            stored(HOME + b"\x006:page=2", rule=CHOSEN),
            Ask("https", b"shop.example", b"/items", b"page=2"),
            id="with the parameters that its rule has chosen",
        ),
        pytest.param(stored(HOME + b"?a=1&accessToken=x"), None, id="no URL that is a secret"),
        pytest.param(stored(HOME + b"?X-Amz-Signature=x"), None, id="nor one that is signed"),
        pytest.param(stored(HOME + b"?api%5Fkey=x"), None, id="nor one with a key"),
        pytest.param(
            stored(HOME + b"?author=1&sort_key=a&tokens=2"),
            Ask("https", b"shop.example", b"/items", b"author=1&sort_key=a&tokens=2"),
            id="what only looks like one",
        ),
        pytest.param(stored(vary=(b"cookie",), fields={b"cookie": [b"a=b"]}), None, id="no cookie"),
        pytest.param(stored(vary=(b"x-tenant",), fields={b"x-tenant": [b"1"]}), None, id="own"),
        pytest.param(stored(HOME + b"\n/de/items"), None, id="nothing that was rewritten"),
        pytest.param(stored(shares=True), None, id="nothing that a credential has brought"),
        pytest.param(
            stored(
                HOME + b"\x000:\x0032:" + b"0" * 32,
                rule=CachePolicy(name="r", ttl_s=1, private_by=("authorization",)),
            ),
            None,
            id="nothing of one client",
        ),
        pytest.param(
            stored(HOME + b"\x0032:" + b"0" * 32, rule=CHOSEN), None, id="nothing out of a digest"
        ),
    ],
)
def test_a_stored_response_is_asked_for_as_anybody_would_or_not_at_all(entry, ask):
    assert replay_of(entry, credentials=(b"x-tenant",)) == ask
    if ask is not None:
        assert of_text(as_text(ask)) == ask


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "3", '["http"]', "[" * 100_000,
        '["ftp","a","/","",[],""]',
        '["http","a","x","",[],""]',
        '["http","a","/ HTTP/1.1","",[],""]',
        '["http","a","/","",[["cookie","a=b"]],""]',
        '["http","a","/","",[["x","a\\r\\nb: c"]],""]',
        '["http","a","/","",[["x",1]],""]',
        '["http","a","/\\u20ac","",[],""]',
        '["http","a","/","",[],3]',
        '["http","a","/%s","",[],""]' % ("x" * 5_000),
    ],
)  # fmt: skip
def test_garbage_is_no_request(text):
    assert of_text(text) is None
