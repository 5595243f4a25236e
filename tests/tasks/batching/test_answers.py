"""What a bulk call has given, key by key."""

import asyncio

import pytest

from perf_middleware.tasks.batching.answers import by_key
from perf_middleware.tasks.batching.errors import (
    BatchCancelledError,
    BatchResultError,
    MissingResultError,
)
from perf_middleware.tasks.batching.options import MISSING
from perf_middleware.tasks.failures import Failed

BROKEN = ValueError("broken")


class OneLess(list):
    def __iter__(self):
        return iter(self[:-1])


def read(results, keys=("a", "b"), default=MISSING, given=("a", "b")):
    return by_key(list(keys), results, given=list(given), name="load", default=default)


@pytest.mark.parametrize(
    ("results", "outcomes"),
    [
        pytest.param([1, 2], [1, 2], id="a list by position"),
        pytest.param((1, 2), [1, 2], id="a tuple too"),
        pytest.param({"b": 2, "a": 1, "c": 3}, [1, 2], id="a dict by key, more does not matter"),
        pytest.param([None, False], [None, False], id="None is an answer"),
        pytest.param([BROKEN, 2], [Failed(BROKEN), 2], id="an exception fails its key alone"),
        pytest.param({"a": Failed(BROKEN), "b": 2}, [Failed(BROKEN), 2], id="Failed does too"),
    ],
)
def test_each_key_gets_its_own(results, outcomes):
    assert read(results) == outcomes


@pytest.mark.parametrize("given", [("b", "a"), ("a",), ("a", "b", "c"), ()])
def test_a_list_for_keys_that_the_call_has_changed_is_nobodys_order(given):
    with pytest.raises(BatchResultError, match="changed the list of keys"):
        read([1, 2], given=given)
    assert read({"a": 1, "b": 2}, given=given) == [1, 2]


def test_what_a_dict_does_not_have_is_missing():
    one, two = read({"a": 1})
    assert one == 1
    assert isinstance(two.error, MissingResultError)
    assert str(two.error) == "load: there is no result for 'b'"


def test_what_a_dict_does_not_have_is_the_default_where_one_is_given():
    assert read({"a": 1}, default=None) == [1, None]


@pytest.mark.parametrize(
    ("results", "told"),
    [
        pytest.param([1], "a list of 1 for 2 keys", id="a list too short"),
        pytest.param([1, 2, 3], "a list of 3 for 2 keys", id="a list too long"),
        pytest.param(None, "it gave None", id="nothing returned"),
        pytest.param("ab", "it gave a str", id="a text, though it has a length"),
        pytest.param({1, 2}, "it gave a set", id="what has no order"),
        pytest.param(iter([1, 2]), "it gave a list_iterator", id="what can be read once"),
        pytest.param(
            OneLess([1, 2]), "a list of 1 for 2 keys", id="a list that tells a wrong length"
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(results, told):
    with pytest.raises(BatchResultError, match=told):
        read(results)


def test_a_cancellation_among_the_values_cancels_nobody_who_asked():
    lost = asyncio.CancelledError()
    for results in ([lost, 2], {"a": Failed(lost), "b": 2}):
        one, two = read(results)
        assert isinstance(one.error, BatchCancelledError)
        assert one.error.__cause__ is lost
        assert two == 2


@pytest.mark.parametrize("wrong", ["not found", None, KeyError])
def test_a_failure_needs_an_error_that_can_be_raised(wrong):
    """One without was noticed when it was too late: those who asked waited for ever."""
    with pytest.raises(TypeError, match="Failed takes an exception, not"):
        Failed(wrong)
