"""The memory store: variants side by side, indexes without leftovers, honest sizes."""

import gc
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.cache_status import CacheStatus, age_alone
from perf_middleware.caching.figures import RouteCounts
from perf_middleware.caching.forms import CodedForms
from perf_middleware.caching.judgement import Judge
from perf_middleware.caching.known_heads import KnownHeads
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.plain_response import plain_response
from perf_middleware.caching.selection import VARY_FIELDS_MAX, VARY_VALUE_BYTES_MAX
from perf_middleware.caching.stored import VALIDATED_FOR_S, StoredResponse
from perf_middleware.caching.stores.memory import EXPIRED_AT_ONCE_MAX, MemoryStore, sent_path
from tests.caching.entries import NOW_S, STATUS, S, entry

URL = b"http://h\n/a"
LANGUAGE, ENCODING = b"accept-language", b"accept-encoding"
MIB = 1 << 20


def empty(bytes_max=MIB, entries_max=1_000):
    return MemoryStore(bytes_max=bytes_max, entries_max=entries_max, now_us=0)


def keep(store, path=b"/a", *, vary=(), now_us=0, fields=None, **kept):
    """Store a response to a request with these fields, as the middleware does; its entry."""
    names = tuple(sorted(vary))
    key = store.key_of(b"http://h\n" + path, names, fields or {})
    if key is None:
        return None
    stored = entry(path, key=key, vary=names, now_us=now_us, **kept)
    return stored if store.put(stored, now_us=now_us) else None


def confirmed(stored, *headers, now_us=0):
    return stored.confirmed(list(headers), {}, stored.lifetimes, initial_age_us=0, now_us=now_us)


def is_bare(store):
    """Whether nothing at all is left, no index and no record among it."""
    left = (store._by_path, store._by_tag, len(store._expiry))
    return (len(store), store.responses, store.size_bytes, *left) == (0, 0, 0, {}, {}, 0)


# --- one URL, its variants --------------------------------------------------------------------


def test_a_response_without_vary_answers_every_request():
    store = empty()
    stored = keep(store)
    assert store.get(URL) is stored
    assert store.select(URL, {}) is stored
    assert store.select(URL, {LANGUAGE: [b"de"]}) is stored
    assert store.select(b"http://h\n/b", {}) is None


def test_variants_stand_side_by_side():
    store = empty()
    german, english, none = (
        keep(store, vary=(LANGUAGE,), fields=fields)
        for fields in ({LANGUAGE: [b"de"]}, {LANGUAGE: [b"en"]}, {})
    )
    assert store.select(URL, {LANGUAGE: [b" de"]}) is german
    assert store.select(URL, {LANGUAGE: [b"en"], b"x": [b"1"]}) is english
    assert store.select(URL, {}) is none
    assert store.select(URL, {LANGUAGE: [b""]}) is None
    assert store.select(URL, {LANGUAGE: [b"fr"]}) is None
    assert len(store.all()) == 3


def test_a_response_takes_the_place_of_the_one_for_the_same_requests():
    store = empty()
    keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]}, body=b"x" * 10_000, tags=("old",))
    large_bytes = store.size_bytes
    english = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"en"]})
    stored = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]}, tags=("new",))
    assert store.select(URL, {LANGUAGE: [b"de"]}) is stored
    assert store.select(URL, {LANGUAGE: [b"en"]}) is english
    assert store.of_tag("old") == []
    assert store.of_tag("new") == [stored]
    assert store.size_bytes < large_bytes


def test_fields_to_tell_apart_by_only_grow():
    store = empty()
    keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]}, tags=("t",))
    both = {LANGUAGE: [b"de"], ENCODING: [b"br"]}
    stored = keep(store, vary=(ENCODING,), fields=both)
    assert store.get(URL).names == (ENCODING, LANGUAGE)
    assert store.select(URL, both) is stored
    assert store.select(URL, {ENCODING: [b"br"]}) is None  # it may have been about the language
    assert store.of_tag("t") == []  # its key could not tell encodings apart
    again = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    assert store.select(URL, {LANGUAGE: [b"de"]}) is again
    assert store.select(URL, both) is stored


def test_a_response_with_vary_takes_the_place_of_one_without():
    store = empty()
    keep(store, tags=("t",))
    stored = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    assert store.select(URL, {LANGUAGE: [b"de"]}) is stored
    assert store.select(URL, {}) is None
    assert store.of_tag("t") == []


def test_a_response_without_vary_is_told_apart_as_its_url_was():
    store = empty()
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    english = keep(store, fields={LANGUAGE: [b"en"]})
    assert store.select(URL, {LANGUAGE: [b"de"]}) is german
    assert store.select(URL, {LANGUAGE: [b"en"]}) is english


@pytest.mark.parametrize(
    ("vary", "fields"),
    [
        pytest.param((b"x",), {b"x": [b"a" * (VARY_VALUE_BYTES_MAX + 1)]}, id="too long a value"),
        pytest.param(tuple(b"f%02d" % number for number in range(VARY_FIELDS_MAX + 1)), {},
                     id="too many fields"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_not_stored_and_takes_nothing_away(vary, fields):
    store = empty()
    assert keep(store, vary=vary, fields=fields) is None
    assert is_bare(store)
    stored = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    assert keep(store, vary=vary, fields=fields) is None
    assert store.select(URL, {LANGUAGE: [b"de"]}) is stored


def test_a_variant_that_comes_back_under_another_record_is_not_taken_for_one_of_its_own():
    """Its validation took so long that its URL varies by another field, with a key alike."""
    store = empty()
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    store.drop(URL)
    keep(store, vary=(b"x-unit",), fields={b"x-unit": [b"km"]})
    assert not store.put(german, now_us=0)
    assert store.select(URL, {b"x-unit": [b"de"]}) is None
    assert store.select(URL, {b"x-unit": [b"km"]}) is not None
    assert store.of_path(b"/a") == [store.select(URL, {b"x-unit": [b"km"]})]


def test_a_variant_that_comes_back_to_no_record_brings_its_record_back():
    store = empty()
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    store.drop(URL)
    assert store.put(german, now_us=0)
    assert store.select(URL, {LANGUAGE: [b"de"]}) is german
    assert store.drop(URL)
    assert is_bare(store)


@pytest.mark.parametrize("names", [(), (LANGUAGE,)], ids=["no field", "fewer fields"])
def test_a_response_that_comes_back_under_fewer_fields_is_refused_and_takes_nothing_away(names):
    """Its validation took so long that its URL varies by more now."""
    store = empty()
    old = keep(store, vary=names, fields={LANGUAGE: [b"fr"]})
    languages = [
        keep(store, vary=(LANGUAGE, ENCODING), fields={LANGUAGE: [language]}, tags=("t",))
        for language in (b"de", b"en")
    ]
    assert not store.put(old, now_us=0)
    assert sorted(store.all(), key=lambda each: each.key) == languages
    assert len(store.of_tag("t")) == 2


def test_looking_for_a_key_leaves_nothing_behind():
    store = empty()
    for number in range(100):
        assert store.key_of(b"http://h\n/%d" % number, (LANGUAGE,), {LANGUAGE: [b"de"]})
    assert is_bare(store)
    stored = keep(store)
    for names in ((LANGUAGE,), (ENCODING,), (LANGUAGE, b"x")):
        store.key_of(URL, names, {})
    assert store.all() == [stored]
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    size_bytes = store.size_bytes
    store.key_of(URL, (ENCODING,), {ENCODING: [b"br"]})
    assert store.all() == [german]
    assert store.size_bytes == size_bytes


@pytest.mark.parametrize("body_bytes", [20_000, 12_000], ids=["larger than all", "a large part"])
@pytest.mark.parametrize("vary", [(), (LANGUAGE,)], ids=["a whole URL", "a variant"])
def test_a_refused_response_that_varies_by_more_takes_nothing_away(body_bytes, vary):
    store = empty(bytes_max=20_000)
    fields = {LANGUAGE: [b"de"]}
    stored = keep(store, vary=vary, fields=fields, tags=("t",))
    for number in range(6):
        keep(store, b"/%d" % number)
    size_bytes, count = store.size_bytes, len(store)
    assert keep(store, vary=(ENCODING,), fields=fields, body=b"x" * body_bytes) is None
    assert store.select(URL, fields) is stored
    assert (store.size_bytes, len(store)) == (size_bytes, count)


def test_it_knows_whether_another_took_a_response_s_place():
    store = empty()
    stored = keep(store)
    assert store.holds(stored)
    newer = keep(store)
    assert store.holds(newer)
    assert not store.holds(stored)
    store.drop(URL)
    assert not store.holds(newer)


# --- finding and letting go -------------------------------------------------------------------


def test_responses_are_found_by_url_by_path_and_by_tag():
    store = empty()
    page = keep(store, b"/a?p=1", tags=("list",))
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]}, tags=("list", "a"))
    english = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"en"]})
    other = entry(b"/a", key=b"http://h2\n/a", host=b"h2")
    assert store.put(other, now_us=0)

    def keys(found):
        return {stored.key for stored in found}

    assert keys(store.of_target(b"http://h/a")) == keys([german, english])
    assert keys(store.of_path(b"/a")) == keys([german, english, other])
    assert store.of_target(b"http://h/a?p=1") == [page]
    assert keys(store.of_tag("list")) == keys([page, german])
    assert store.of_tag("a") == [german]
    assert store.of_target(b"http://h/none") == store.of_path(b"/none") == store.of_tag("x") == []
    assert keys(store.all()) == keys([page, german, english, other])


def test_dropping_the_url_drops_its_variants():
    store = empty()
    for language in (b"de", b"en"):
        keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [language]}, tags=("t",))
    assert store.drop(URL)
    assert is_bare(store)
    assert not store.drop(URL)


def test_dropping_each_variant_leaves_no_record_of_them():
    store = empty()
    for path in (b"/a", b"/b", b"/c"):
        for language in (b"de", b"en"):
            keep(store, path, vary=(LANGUAGE,), fields={LANGUAGE: [language]}, tags=("t",))
    keep(store, b"/d")
    for stored in store.all():
        assert store.drop(stored.key)
    assert is_bare(store)


def test_clearing_tells_how_many_there_were():
    store = empty()
    for language in (b"de", b"en"):
        keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [language]}, tags=("t",))
    keep(store, b"/b")
    count, gone = store.clear()
    assert count == 3
    assert is_bare(store)
    later = keep(store, b"/b")
    assert sorted(stored.target for stored in gone) == [b"http://h/a", b"http://h/a", b"http://h/b"]
    assert store.all() == store.of_path(b"/b") == [later]


@pytest.mark.parametrize(
    ("lifetimes", "headers", "end_s"),
    [
        pytest.param({}, (), 60, id="a lifetime alone"),
        pytest.param({"stale_if_error_s": 30}, (), 90, id="it may still hide a failure"),
        pytest.param({}, ((b"etag", b'"1"'),), 60 + VALIDATED_FOR_S,
                     id="it may still be confirmed"),
    ],
)  # fmt: skip
def test_what_is_of_no_use_any_more_expires(lifetimes, headers, end_s):
    store = empty()
    stored = entry(b"/a", *headers, tags=("t",), **lifetimes)
    store.put(stored, now_us=0)
    store.expire(end_s * S)
    assert store.all() == [stored]
    store.expire((end_s + 2) * S)
    assert is_bare(store)


def test_expiry_goes_in_bounded_steps():
    store = empty()
    for number in range(EXPIRED_AT_ONCE_MAX + 8):
        keep(store, b"/%d" % number)
    for _ in range(20):
        before = len(store)
        store.expire(1_000 * S)
        assert before - len(store) <= EXPIRED_AT_ONCE_MAX
    assert is_bare(store)


def test_a_validated_response_expires_by_its_new_time():
    store = empty()
    stored = confirmed(keep(store), now_us=50 * S)
    assert store.put(stored, now_us=50 * S)
    store.expire(70 * S)
    assert store.all() == [stored]
    store.expire(113 * S)
    assert is_bare(store)


def test_the_only_variant_may_expire_as_the_next_one_comes():
    store = empty()
    for times, language in enumerate((b"de", b"en", b"en")):
        now_us = times * 2_000 * S
        stored = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [language]}, now_us=now_us)
        assert store.select(URL, {LANGUAGE: [language]}) is stored
        later = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [language]},
                     now_us=now_us + 1_000 * S)  # fmt: skip
        assert store.all() == [later]
        assert store.select(URL, {LANGUAGE: [language]}) is later


# --- room -------------------------------------------------------------------------------------


def test_what_has_to_make_room_leaves_no_trace():
    store = empty(bytes_max=80_000)
    for number in range(200):
        keep(store, b"/%d" % number, body=b"x" * 500, tags=(f"t{number}", "all"),
             vary=(LANGUAGE,) if number % 2 else ())  # fmt: skip
    found = store.all()
    assert store.evictions
    assert store.size_bytes <= 80_000
    assert {stored.key for stored in store.of_tag("all")} == {stored.key for stored in found}
    assert len(store._by_tag) == len(found) + 1
    assert len(store._by_path) == len(store._expiry) == len(found)


def test_what_is_larger_than_the_room_is_not_stored():
    store = empty(bytes_max=20_000)
    assert keep(store, body=b"x" * 20_000, tags=("t",)) is None
    assert keep(store, vary=(LANGUAGE,), body=b"x" * 20_000, tags=("t",)) is None
    assert is_bare(store)


def test_what_grew_out_of_the_room_is_gone():
    store = empty(bytes_max=20_000)
    stored = keep(store, tags=("t",))
    assert not store.put(confirmed(stored, (b"x", b"y" * 20_000)), now_us=0)
    assert is_bare(store)


def test_variants_without_end_stay_in_the_room():
    store = empty(bytes_max=60_000)
    for number in range(300):
        keep(store, vary=(b"x",), fields={b"x": [b"%d" % number]})
        assert store.size_bytes <= 60_000
    for stored in store.all():
        assert store.select(URL, {b"x": [stored.key.rpartition(b"+")[2]]}) is stored


def test_a_record_of_variants_takes_no_response_s_place():
    store = empty(entries_max=2)
    plain = keep(store, b"/b")
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    assert store.select(b"http://h\n/b", {}) is plain
    assert store.select(URL, {LANGUAGE: [b"de"]}) is german
    assert store.evictions == 0


@pytest.mark.parametrize("entries_max", [1, 2, 5])
def test_of_many_variants_as_many_stay_as_responses_may(entries_max):
    store = empty(entries_max=entries_max)
    for number in range(20):
        fields = {LANGUAGE: [b"%d" % number]}
        stored = keep(store, vary=(LANGUAGE,), fields=fields)
        assert store.select(URL, fields) is stored
        assert store.responses == min(number + 1, entries_max)


def test_a_record_stays_as_long_as_one_of_its_variants_does():
    store = empty(entries_max=2)
    german = keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"de"]})
    for number in range(50):
        assert store.select(URL, {LANGUAGE: [b"de"]}) is german
        keep(store, b"/%d" % number)
    assert store.drop(german.key)
    assert store.get(URL) is None


# --- sizes ------------------------------------------------------------------------------------

COUNT = 2_000


def an_answer(store, judge, number, *, fields, body_bytes, path_bytes, tags, variants):
    """Store and hit an answer made of bytes of its own, as those of apps are."""
    url = number // variants if variants else number
    path = (b"/%d" % url).ljust(path_bytes, b"x")
    sent = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % body_bytes),
        (b"Cache-Control", b"max-age=%d" % (600 + number)),
        (b"ETag", b'"%032d"' % number),
        *((b"X-Field-%d" % at, b"value %d of %d" % (at, number)) for at in range(fields)),
    ]
    asked = {}
    if variants:
        sent.append((b"Vary", b"Accept-Language"))
        asked[LANGUAGE] = [b"x-%d" % (number % variants)]
    lines = judge.collect(sent)
    kept = judge.judge(200, lines, credentials=frozenset(), no_store=False, sent_us=0, rule=None,
                       now_us=0, wall_us=NOW_S * S)  # fmt: skip
    primary = b"http://h\n" + path
    stored = StoredResponse(
        primary=primary,
        key=store.key_of(primary, kept.vary, asked),
        target=b"http://h" + bytearray(path),
        status=200,
        headers=kept.headers(sent, None),
        lines=lines,
        body=(b"%d" % number).ljust(body_bytes),
        lifetimes=kept.lifetimes,
        initial_age_us=0,
        produced_us=1_000 + number,
        now_us=number * 1_000,
        vary=kept.vary,
        tags=tuple(f"tag {at} of {number}" for at in range(tags)),
        route="/{number}",
        rule=None,
    )
    assert store.put(stored, now_us=0)
    assert store.select(primary, asked) is stored
    stored.show(number * 1_000 + 300 * S, STATUS)


@pytest.mark.parametrize(
    "like",
    [
        pytest.param({}, id="small ones"),
        pytest.param({"body_bytes": 10_000}, id="with bodies"),
        pytest.param({"fields": 0, "body_bytes": 5}, id="tiny ones"),
        pytest.param({"fields": 20}, id="with many fields"),
        pytest.param({"path_bytes": 1_000}, id="with long URLs"),
        pytest.param({"tags": 1}, id="with a tag"),
        pytest.param({"tags": 5}, id="with tags"),
        pytest.param({"variants": 1}, id="one variant each"),
        pytest.param({"variants": 4}, id="some variants"),
        pytest.param({"variants": 100}, id="many variants"),
    ],
)
def test_the_size_that_is_told_is_the_memory_that_it_takes(like):
    like = {"fields": 4, "body_bytes": 500, "path_bytes": 40, "tags": 0, "variants": 0} | like
    before, store = (empty(bytes_max=1 << 40, entries_max=10**7) for _ in range(2))
    judge = Judge(CacheOptions())
    for number in range(COUNT):  # what all stores have in common: entity tags that were read
        an_answer(before, judge, number, **like)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(COUNT):
            an_answer(store, judge, number, **like)
        gc.collect()
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.9 < taken_bytes / store.size_bytes < 1.1


@pytest.mark.parametrize("body_bytes", [0, 500, 10_000])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param({"fields": 0}, id="short ones"),
        pytest.param({"fields": 12}, id="with many fields"),
        pytest.param({"lifetimes": COUNT}, id="each with a lifetime of its own"),
        pytest.param({"lifetimes": COUNT // 5}, id="some with the same lifetime"),
        pytest.param({"type_bytes": 5_000}, id="too long to be remembered"),
    ],
)
def test_so_is_that_of_heads_like_one_before(head, body_bytes):
    store = empty(bytes_max=1 << 40, entries_max=10**7)
    heads, status = KnownHeads(Judge(CacheOptions())), CacheStatus("ours")
    counts = RouteCounts()
    for age_s in range(COUNT):
        age_alone(age_s)  # kept for all apps of the process
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(COUNT):
            known, values = heads.of(200, known_head(number, **head), None)
            key = b"http://h\n/items/%d" % number
            stored = plain_response(
                known, values, (b"%d" % number).ljust(body_bytes), key=key,
                target=b"http://h/items/%d" % number, path=b"/items/%d" % number,
                route="/items/{n}", counts=counts, choice=None, age_us=0,
                produced_us=1_000 + number, received_us=number * 1_000, received_s=NOW_S + number,
            )  # fmt: skip
            assert store.add(stored, now_us=0)
            stored.show(number * 1_000 + number * S, status)  # each as old as no other
        del known, values, heads
        gc.collect()
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 < taken_bytes / store.size_bytes < 1.1


def test_what_a_head_has_of_its_own_is_not_kept_with_what_all_have_in_common():
    secret = b"of one client " * 100
    heads = KnownHeads(Judge(CacheOptions()))
    for sent in ([(b"cache-control", b"private")], [(b"cache-control", b"max-age=60")]):
        known, _ = heads.of(200, [*sent, (b"x-account", secret)], None)
        assert known.headers == [*sent, (b"x-account", b"")]


def known_head(number, *, fields=3, lifetimes=1, type_bytes=0):
    # As a server gives them: the values are this answer's own, the names those of all answers.
    return [
        (b"content-type", b"application/json".ljust(type_bytes or 16) + b""),
        (b"content-length", b"%d" % (10_000 + number)),
        (b"cache-control", b"max-age=%d" % (3_600 + number % lifetimes)),
        *((b"x-field-%d" % at, b"value %d of %d" % (at, number)) for at in range(fields)),
    ]


@pytest.mark.parametrize(
    ("behind", "path"),
    [
        pytest.param(b"", b"/a", id="a path"),
        pytest.param(b"?q=/b", b"/a", id="its query"),
        pytest.param(b"\n/de/a?q", b"/a", id="a rewritten path, and a query"),
        pytest.param(b"\x001:x\x003:?/b", b"/a", id="what a rule adds to the key"),
        pytest.param(b"?q\x001:x", b"/a", id="a query, and what a rule adds"),
    ],
)
def test_a_primary_key_tells_the_path_as_it_was_sent(behind, path):
    assert sent_path(URL + behind) == path


# --- shrinking --------------------------------------------------------------------------------


def test_shrinking_to_nothing_leaves_no_index_and_no_record():
    store = empty()
    for number in range(20):
        keep(store, b"/%d" % number, tags=("t",))
        keep(store, vary=(LANGUAGE,), fields={LANGUAGE: [b"%d" % number]}, tags=("u",))
    while not store.shrink(0, entries=3):
        pass
    assert is_bare(store)
    assert not store.is_varied(b"/a")


def test_coded_forms_find_no_room_that_was_taken_away():
    store = empty()
    stored = keep(store, body=b"x" * 10_000)
    store.shrink(store.size_bytes, entries=1)
    assert not store.grow(stored.key, CodedForms(stored.body, grow=None), 20_000)
    assert store.holds(stored)
    store.grow_back()
    assert store.grow(stored.key, CodedForms(stored.body, grow=None), 20_000)


# --- whatever happens -------------------------------------------------------------------------

paths = st.sampled_from([b"/a", b"/b", b"/c"])
request_fields = st.dictionaries(
    st.sampled_from([LANGUAGE, b"x"]), st.sampled_from([[b"1"], [b"2"], [b"1", b"2"]])
)
vary = st.sets(st.sampled_from([LANGUAGE, b"x"])).map(tuple)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), paths, vary, request_fields, st.integers(0, 12_000),
                  st.sets(st.sampled_from(["s", "t"])).map(tuple)),
        st.tuples(st.just("drop"), paths, request_fields),
        st.tuples(st.just("again"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 100)),
        st.tuples(st.just("purge"), st.sampled_from(["s", "t"])),
        st.tuples(st.just("clear")),
        st.tuples(st.just("shrink"), st.sampled_from([0, 5_000, 20_000]), st.integers(1, 5)),
        st.tuples(st.just("grow_back")),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([20_000, 60_000]), st.sampled_from([1, 3, 50]))
def test_indexes_sizes_and_bounds_hold_whatever_happens(steps, bytes_max, entries_max):
    store = empty(bytes_max=bytes_max, entries_max=entries_max)
    made = []
    now_us = 0
    for kind, *said in steps:
        if kind == "keep":
            path, names, fields, body_bytes, tags = said
            stored = keep(store, path, vary=names, fields=fields, now_us=now_us, tags=tags,
                          body=b"x" * body_bytes)  # fmt: skip
            if stored is not None:
                made.append(stored)
                assert store.select(b"http://h\n" + path, fields) is stored
        elif kind == "drop":
            stored = store.select(b"http://h\n" + said[0], said[1])
            if stored is not None:
                assert store.drop(stored.key)
        elif kind == "again" and said[0] < len(made):
            store.put(confirmed(made[said[0]], now_us=now_us), now_us=now_us)
        elif kind == "wait":
            now_us += said[0] * S
            store.expire(now_us)
        elif kind == "purge":
            for stored in store.of_tag(said[0]):
                store.drop(stored.key)
        elif kind == "clear":
            store.clear()
        elif kind == "shrink":
            before_bytes = store.size_bytes
            if store.shrink(said[0], entries=said[1]):
                assert store.size_bytes <= said[0]
            assert store.size_bytes <= before_bytes
        elif kind == "grow_back":
            store.grow_back()
        check(store, bytes_max, entries_max)


def check(store, bytes_max, entries_max):
    found = store.all()
    keys = {stored.key for stored in found}
    records = [store.get(key) for key in store._entries._entries if key not in keys]
    assert len(found) <= entries_max
    assert store.size_bytes <= store.room_bytes <= bytes_max
    assert store.size_bytes == sum(item.size_bytes for item in [*found, *records])
    assert set(store._by_path) == {b"/" + stored.target.rpartition(b"/")[2] for stored in found}
    assert {stored.key for path in store._by_path for stored in store.of_path(path)} == keys
    for tag in ("s", "t"):
        tagged = {stored.key for stored in found if tag in stored.tags}
        assert {stored.key for stored in store.of_tag(tag)} == tagged
        assert tagged or tag not in store._by_tag
    assert len(store._expiry) == store.responses == len(found)
    for record in records:
        assert record.keys
        assert record.keys <= keys
    for path in (b"/a", b"/b", b"/c"):
        assert store.is_varied(path) == any(
            record.prefix.startswith(b"http://h\n%b\r" % path) for record in records
        )
    for stored in found:
        assert stored.key in store._expiry
        record = store.get(stored.primary)
        assert record is stored or stored.key in record.keys
