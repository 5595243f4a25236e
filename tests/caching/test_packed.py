"""Stored responses as bytes: what goes in comes out, and what is damaged is none."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.packed import COMPRESSED_MIN_BYTES, STORES_OWN, VERSION, pack, unpack
from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.stored import US_PER_S
from tests.caching.entries import entry

SERVER_MS = 1_800_000_000_000
KEPT = (
    "status", "headers", "lines", "body", "lifetimes", "produced_us", "received_s", "target",
    "vary", "tags", "route", "rule_name", "shares_authorization", "size_bytes", "etag",
    "last_modified", "is_of_any_query", "primary",
)  # fmt: skip


def packed(stored, *, now_us=0, server_ms=SERVER_MS):
    return pack(stored, identity=b"identity", now_us=now_us, server_ms=server_ms)


def unpacked(content, stored, *, now_us=0, server_ms=SERVER_MS, body_bytes_max=1 << 20):
    return unpack(
        content, primary=stored.primary, key_of=lambda vary: stored.key,
        now_us=now_us, server_ms=server_ms, body_bytes_max=body_bytes_max,
    )  # fmt: skip


def responses():
    return [
        pytest.param(entry(), id="the least"),
        pytest.param(
            entry(
                b"/a?q=1", (b"etag", b'W/"1"'), (b"last-modified", b"x"), (b"set-cookie", b"a"),
                (b"set-cookie", b"b"), status=404, body=b"\0\xff", vary=(b"accept",),
                tags=("item:5", "ü"), lines={b"etag": [b'W/"1"'], b"set-cookie": [b"a", b"b"]},
                stale_while_revalidate_s=5, stale_if_error_s=7,
            ),
            id="fields of many kinds",
        ),
        pytest.param(entry(body=b"x" * COMPRESSED_MIN_BYTES), id="a body worth compressing"),
        pytest.param(
            entry(b"/a", (b"content-encoding", b"gzip"), body=b"x" * COMPRESSED_MIN_BYTES),
            id="a body that is compressed already",
        ),
        pytest.param(entry(rule=CachePolicy(name="r", shared=True, ttl_s=5)), id="a shared rule"),
        pytest.param(
            entry(rule=CachePolicy(name="r", private_by=("cookie:a",), query=("p",))),
            id="a rule that tells users apart",
        ),
        pytest.param(entry(must_validate=True, may_be_stale=False), id="to be validated each time"),
    ]  # fmt: skip


@pytest.mark.parametrize("stored", responses())
def test_a_response_comes_back_as_it_was(stored):
    again = unpacked(packed(stored), stored)
    for name in KEPT:
        assert getattr(again, name) == getattr(stored, name), name
    assert again.identity == b"identity"
    for credentials in (frozenset(), frozenset({b"cookie"}), frozenset({b"authorization"})):
        assert again.is_safe_for(credentials) == stored.is_safe_for(credentials)


def test_its_age_goes_on_in_another_process_whose_clock_began_elsewhere():
    stored = entry(fresh_s=60, initial_age_us=7 * S, now_us=100 * S)
    content = packed(stored, now_us=103 * S, server_ms=SERVER_MS)
    again = unpacked(content, stored, now_us=5 * S, server_ms=SERVER_MS + 20_000)
    assert again.age_s(5 * S) == stored.age_s(103 * S) + 20 == 30
    left_us = stored.fresh_until_us - 103 * S - 20 * S
    assert again.fresh_until_us - 5 * S == left_us
    assert again.usable_if_error_us - again.fresh_until_us == 0


S = US_PER_S


def test_a_rule_by_function_covers_whom_its_key_tells_apart():
    stored = entry(rule=CachePolicy(name="r", private_by=lambda scope: "me"))
    assert unpacked(packed(stored), stored).is_safe_for(frozenset({b"cookie", b"authorization"}))


def test_a_compressed_body_takes_less_room():
    stored = entry(body=b"x" * COMPRESSED_MIN_BYTES)
    assert len(packed(stored)) < COMPRESSED_MIN_BYTES / 10


def test_another_version_is_a_miss():
    content = packed(entry())
    assert unpacked(bytes((VERSION + 1,)) + content[1:], entry()) is None


def test_what_is_larger_than_an_entry_may_be_is_a_miss_and_never_inflated():
    stored = entry(body=b"x" * COMPRESSED_MIN_BYTES)
    assert unpacked(packed(stored), stored, body_bytes_max=COMPRESSED_MIN_BYTES - 1) is None


def test_a_body_that_inflates_to_more_than_it_says_is_a_miss():
    stored = entry(body=b"x" * COMPRESSED_MIN_BYTES)
    content = bytearray(packed(stored))
    at = content.index(struct.pack(">I", COMPRESSED_MIN_BYTES))  # msgpack's number, big-endian
    content[at : at + 4] = struct.pack(">I", COMPRESSED_MIN_BYTES - 10)
    assert unpacked(bytes(content), stored) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_response_or_none(content):
    unpacked(content, entry())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_record_is_a_response_or_none(data):
    stored = entry(b"/a", (b"etag", b'"1"'), tags=("t",), rule=CachePolicy(name="r", shared=True))
    content = bytearray(packed(stored))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(STORES_OWN, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    unpacked(bytes(content[:end]), stored)
