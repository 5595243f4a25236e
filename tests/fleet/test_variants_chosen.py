"""Redis chooses the variant of a request that a process would choose itself."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.places import (
    FIELD_NAME_BYTES_MAX,
    FIELDS_TOLD_MAX,
    USUAL,
    AskedBy,
    parts_of,
    record_key,
    told_of,
)
from perf_middleware.caching.selection import VARY_VALUE_BYTES_MAX
from perf_middleware.fleet.layout import VARIES, Found, Missing, message, variant_key
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.processes import Pages, Process, running, until

CONTENT = b"1-" + bytes(8) + b"the answer"

NAMES = st.sampled_from(
    [b"accept", b"accept-encoding", b"accept-language", b"cookie", b"host", b"user-agent",
     b"x-api-key", b"x", b"x" * FIELD_NAME_BYTES_MAX, b"x" * (FIELD_NAME_BYTES_MAX + 1)]
)  # fmt: skip
LINES = st.one_of(
    st.sampled_from([b"", b"-", b" de, EN;q=0.5 ", b'a;b="c,d", e', b"gzip,,br", b"a" * 300,
                     b"\r\t\n\x00,", b"a" * VARY_VALUE_BYTES_MAX]),
    st.binary(max_size=60),
)  # fmt: skip
FIELDS = st.dictionaries(NAMES, st.lists(LINES, min_size=1, max_size=2), max_size=6)
VARY = st.sets(NAMES, min_size=1, max_size=4).map(lambda names: tuple(sorted(names)))


@pytest.fixture(scope="module")
def records(redis_server):
    """Those of one process, and the loop that it runs in."""
    with asyncio.Runner() as runner:
        fleet = Fleet(redis_server.url, namespace="chosen", timeout_s=30, heartbeat_s=600)
        records = fleet.records("cache")

        async def begin():
            fleet.ensure_kept()
            await until(lambda: fleet.is_up)

        runner.run(begin())
        yield runner.run, records, fleet.link
        runner.run(fleet.close())


@settings(max_examples=30)
@given(asked=FIELDS, stored=FIELDS, vary=VARY)
def test_a_variant_is_found_exactly_where_its_key_is_the_request_s(records, asked, stored, vary):
    run, records, link = records
    begin = records.keys_of(0).records
    request = AskedBy(SimpleNamespace(lines=asked))
    own = parts_of(vary, asked)
    # Where it has no key, what a version without that bound has stored for who has no such field.
    for_stored = parts_of(vary, stored) or [b"-"] * len(vary)

    async def found():
        await link.command("SET", begin + b"k", VARIES + b",".join(vary))
        full = variant_key(b"k", vary, for_stored)
        await link.command("SET", begin + full, CONTENT)
        try:
            # As of a URL that nothing is known of: by what Redis chooses.
            return full, await records._choose(0, b"k", request, 0, b"")
        finally:
            await link.command("DEL", begin + full)

    full, answer = run(found())
    if any(name in asked and parts_of([name], asked) is None for name in vary):
        assert answer is None
    elif own is None:
        assert not isinstance(answer, Found) or asked.keys().isdisjoint(vary)
    elif own == for_stored:
        assert answer == Found(full, CONTENT, False)
    else:
        assert answer == Missing(variant_key(b"k", vary, own), leads=True)


def test_what_a_request_tells_is_bounded_and_says_so():
    fields = {b"x-%d" % number: [b"a"] for number in range(FIELDS_TOLD_MAX)}
    told, are_all = told_of(fields)
    assert are_all
    assert len(told) < FIELDS_TOLD_MAX * (FIELD_NAME_BYTES_MAX + 50)
    assert told_of({**fields, b"y": [b"a"]}) == (told, False)
    assert told_of({b"a" * (FIELD_NAME_BYTES_MAX + 1): [b"a"]}) == (b"", False)


def test_what_may_be_a_secret_is_told_as_a_digest_and_not_kept():
    told, _ = told_of({b"cookie": [b"session=secret"], b"x-api-key": [b"secret"]})
    assert b"secret" not in told
    assert {b"cookie", b"authorization", b"x-api-key"}.isdisjoint(USUAL)


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_process_finds_a_variant_of_a_url_it_has_never_heard_of(redis_server):
    pages = Pages()
    pages.fields = [(b"vary", b"accept-language, x-client")]
    one, two = (Process(pages, redis_server.url, namespace="unheard") for _ in range(2))
    headers = [("accept-language", "de"), ("x-other", "1")]
    async with running(one, two):
        for path in ("/first", "/second"):
            await one.reads(path, headers=headers)
            await one.settled()
            await until(lambda: two.shared._records.known.names_of(b"another") is None)
            before = two.link.commands
            assert await two.reads(path, headers=headers) == (f"{path} 0".encode(), True)
            assert two.link.commands == before + 1
            (primary,) = {stored.primary for stored in two.cache.store.of_path(path.encode())}
            key = record_key(primary)
            for process in (one, two):  # asked for in the cheapest way from here on
                known = process.shared._records.known
                assert known.names_of(key) == (b"accept-language", b"x-client")
        before = two.link.commands
        assert not (await two.reads("/first", headers=[("accept-language", "fr")]))[1]
        assert two.link.commands <= before + 4  # looked up, leased, stored, given back


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_answer_that_varies_by_less_is_stored_in_one_round_trip(redis_server):
    pages = Pages()
    one, two = (Process(pages, redis_server.url, namespace="by-less") for _ in range(2))
    async with running(one, two):
        pages.fields = [(b"vary", b"accept-language, x-client")]
        await one.reads("/page", headers=[("accept-language", "de")])
        await one.settled()
        pages.fields = [(b"vary", b"accept-language")]
        puts, put = [], two.shared._records.put
        two.shared._records.put = lambda *given, **by: puts.append(by["names"]) or put(*given, **by)
        assert not (await two.reads("/page", headers=[("accept-language", "fr")]))[1]
        await two.settled()
        assert puts == [(b"accept-language", b"x-client")]
        assert (await one.reads("/page", headers=[("accept-language", "fr")]))[1]


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_that_a_known_url_varies_by_more_is_told(redis_server):
    one, two = (Process(Pages(), redis_server.url, namespace="by-more") for _ in range(2))
    async with running(one, two):
        writer, reader = one.shared._records, two.shared._records
        primary = b"http://h\n/page"
        key = record_key(primary)
        reader.known.begin()
        for names in ((), (b"x",), (b"x", b"y")):
            assert await writer.put(
                b"http://h/page", key, CONTENT, ttl_ms=60_000, indexes=[], seen=writer.seen,
                message=message("key", primary), names=names, secondary=b"-" * bool(names),
            )  # fmt: skip
            await until(lambda: reader.known.names_of(key) is None)
            reader.known.learn(key, names)
