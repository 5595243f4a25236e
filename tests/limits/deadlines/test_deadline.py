"""Deadlines as values, and as one server tells them to another."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf_middleware.limits.deadlines.deadline import (
    MILLISECOND_NS,
    SECOND_NS,
    UNITS_NS,
    Deadline,
    parse_timeout_us,
    timeout_value,
    unit_ns_of,
)

NAMES = ("grpc-timeout", "x-envoy-expected-rq-timeout-ms", "x-request-timeout")


@pytest.mark.parametrize(
    ("value", "timeout_us"),
    [
        pytest.param(b"2", 2_000_000, id="a number is seconds"),
        pytest.param(b"1.5", 1_500_000, id="with a fraction"),
        pytest.param(b" 1.5\t", 1_500_000, id="and spaces around it"),
        pytest.param(b"150ms", 150_000, id="or milliseconds"),
        pytest.param(b"0.5ms", 500, id="or half of one"),
        pytest.param(b"7us", 7, id="or microseconds"),
        pytest.param(b"2s", 2_000_000, id="or named seconds"),
        pytest.param(b"1H", 3_600_000_000, id="gRPC hours"),
        pytest.param(b"2M", 120_000_000, id="gRPC minutes"),
        pytest.param(b"3S", 3_000_000, id="gRPC seconds"),
        pytest.param(b"100m", 100_000, id="gRPC milliseconds, not minutes"),
        pytest.param(b"5u", 5, id="gRPC microseconds"),
        pytest.param(b"1001n", 2, id="gRPC nanoseconds, rounded up"),
        pytest.param(b"0", None, id="0 is no time: for some senders no limit"),
        pytest.param(b"0.000", None, id="however it is written"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"m", None, id="a unit alone"),
        pytest.param(b"ms", None, id="two letters of one"),
        pytest.param(b"-1", None, id="before now"),
        pytest.param(b"+1", None, id="a sign"),
        pytest.param(b"1e3", None, id="an exponent"),
        pytest.param(b"inf", None, id="for ever"),
        pytest.param(b"nan", None, id="no number"),
        pytest.param(b"1_000", None, id="Python's own digits"),
        pytest.param(b"\xd9\xa1", None, id="digits of others"),
        pytest.param(b".5", None, id="no whole part"),
        pytest.param(b"5.", None, id="a point and nothing"),
        pytest.param(b"1.2.3", None, id="two points"),
        pytest.param(b"1, 2", None, id="a list"),
        pytest.param(b"1 m", None, id="a space inside"),
        pytest.param(b"9" * 16, None, id="more digits than a time has"),
    ],
)
def test_a_timeout_is_read_or_ignored(value, timeout_us):
    assert parse_timeout_us(value) == timeout_us


@pytest.mark.parametrize(
    ("name", "unit_ns"),
    [
        ("x-envoy-expected-rq-timeout-ms", MILLISECOND_NS),
        ("X-Timeout-MS", MILLISECOND_NS),
        ("x-request-timeout", SECOND_NS),
        ("grpc-timeout", SECOND_NS),
    ],
)
def test_the_name_of_a_field_says_what_a_bare_number_is(name, unit_ns):
    assert unit_ns_of(name) == unit_ns


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"[0-9.]{0,8}[A-Za-z]{0,3}")))
@example(b"9" * 15 + b"." + b"9" * 15 + b"H")
def test_any_bytes_are_a_positive_time_or_ignored(value):
    read = parse_timeout_us(value)
    assert read is None or (type(read) is int and read >= 1)


@given(st.integers(1, 10**9), st.sampled_from(sorted(UNITS_NS)))
def test_a_whole_number_with_a_unit_is_read_exactly_and_rounded_up(number, unit):
    read = parse_timeout_us(b"%d" % number + unit)
    exact_ns = number * UNITS_NS[unit]
    assert read is not None
    assert 0 <= read * 1_000 - exact_ns < 1_000


@given(st.integers(0, 99_999_999_000), st.sampled_from(NAMES))
def test_what_is_told_to_the_next_server_is_what_is_left(remaining_us, name):
    told = timeout_value(remaining_us, name).encode()
    read = parse_timeout_us(told, unit_ns=unit_ns_of(name))
    assert read == max(remaining_us // 1_000, 1) * 1_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc-timeout", "1500m"),
        ("x-envoy-expected-rq-timeout-ms", "1500"),
        ("x-request-timeout", "1.500"),
    ],
)
def test_each_field_has_its_own_form(name, value):
    assert timeout_value(1_500_999, name) == value


def test_grpc_has_eight_digits_at_most():
    assert timeout_value(10**15, "grpc-timeout") == "99999999m"


def test_time_runs_out_and_stays_out():
    deadline = Deadline(1_000)
    assert [deadline.remaining_us(now_us) for now_us in (0, 400, 1_000, 2_000)] == [
        1_000,
        600,
        0,
        0,
    ]


def test_of_two_deadlines_the_sooner_holds():
    soon, late = Deadline(1), Deadline(2)
    assert soon.sooner(late) == late.sooner(soon) == soon.sooner(None) == soon
