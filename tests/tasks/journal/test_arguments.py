"""Arguments come back from the journal as they were, or are refused."""

import inspect
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware import TaskArgumentsError
from perf_middleware.tasks.journal.arguments import (
    ARGUMENTS_BYTES_MAX,
    check_fit,
    packed,
    unpacked,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(args=st.lists(JSON, max_size=3), kwargs=st.dictionaries(TEXT, JSON, max_size=3))
def test_what_is_json_comes_back_as_it_was(args, kwargs):
    assert unpacked("task", packed("task", tuple(args), kwargs)) == (args, kwargs)


@dataclass
class Order:
    number: int


class Kind(StrEnum):
    NEW = "new"


class Level(IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ((1, 2), "argument 2 (tuple) would not come back"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "argument 2 (dict) is not JSON"),
        (float("nan"), "argument 2 (float) would not come back"),
        (UUID(int=1), "argument 2 (UUID) would not come back"),
        (Kind.NEW, "argument 2 (Kind) would not come back"),
        (Level.LOW, "argument 2 (Level) would not come back"),
        ({"of": [1, {"kind": Kind.NEW}]}, "argument 2 (dict) would not come back"),
        (Order(1), "argument 2 (Order) is not JSON"),
        ({1: "a"}, "argument 2 (dict) is not JSON"),
        (b"raw", "argument 2 (bytes) is not JSON"),
        (2**70, "argument 2 (int) is not JSON"),
        ("\ud800", "argument 2 (str) is not JSON"),
        (object(), "argument 2 (object) is not JSON"),
        ("a" * ARGUMENTS_BYTES_MAX, "are the most"),
    ],
)
def test_what_would_not_come_back_is_refused_by_its_place_and_type(value, told):
    with pytest.raises(TaskArgumentsError, match=r"^the arguments of send: ") as refused:
        packed("send", (1, value), {})
    assert told in str(refused.value)
    with pytest.raises(TaskArgumentsError, match="argument to"):
        packed("send", (), {"to": {1, 2}})


@pytest.mark.parametrize("kept", [b"", b"{", b"{}", b"[[]]", b"[{},{}]", b"[[],[]]", b"\xff"])
def test_what_was_never_written_so_is_no_call(kept):
    with pytest.raises(TaskArgumentsError):
        unpacked("send", kept)


def test_a_call_must_fit_its_function():
    def send(to, *, times=1): ...

    signature = inspect.signature(send)
    check_fit("send", signature, ["kim"], {"times": 2})
    with pytest.raises(TaskArgumentsError, match="missing a required argument: 'to'"):
        check_fit("send", signature, [], {})
