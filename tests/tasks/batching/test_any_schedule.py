"""Whatever is asked, cancelled, failed and in whatever order: nobody is lost, or told wrongly."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.tasks.batching import batched
from perf_middleware.tasks.batching.errors import (
    BatchCancelledError,
    BatchLineFullError,
    MissingResultError,
)
from tests.tasks.any_loop import run_on

KEYS = st.integers(0, 5)
BROKEN = 3  # fails alone
MISSING = 4
POISON = 5  # fails its whole call, now and then

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), KEYS),
        st.tuples(st.just("many"), st.lists(KEYS, max_size=4)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("kill"), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=40,
)


class WholeError(Exception):
    """A whole call has failed."""


class AloneError(Exception):
    """A key has."""


def value_of(key):
    if key == BROKEN:
        return AloneError(key)
    return key * 10


def may_be_told(key, told):
    """Whether this is right for who has asked for `key` and was not cancelled."""
    match told:
        case WholeError() | BatchLineFullError() | BatchCancelledError():
            return True
        case AloneError():
            return key == BROKEN
        case MissingResultError():
            return key == MISSING
        case _:
            return key not in (BROKEN, MISSING) and told == key * 10


@settings(max_examples=60)
@given(
    steps=STEPS,
    size_max=st.integers(1, 4),
    in_flight_max=st.integers(1, 3),
    waiting_max=st.sampled_from([3, 100]),
)
def test_everybody_gets_what_is_theirs_once(steps, size_max, in_flight_max, waiting_max):
    async def main():
        running = {}
        seen = []

        @batched(wait_s=0, size_max=size_max, in_flight_max=in_flight_max, waiting_max=waiting_max)
        async def load(keys):
            assert 1 <= len(keys) <= size_max
            assert len(set(keys)) == len(keys)
            gate = asyncio.get_running_loop().create_future()
            number = len(seen)
            seen.append(keys)
            running[number] = gate
            assert len(running) <= in_flight_max
            try:
                await gate
            finally:
                del running[number]
            return {key: value_of(key) for key in keys if key != MISSING}

        def some_gate(index):
            gates = [gate for gate in running.values() if not gate.done()]
            return gates[index % len(gates)] if gates else None

        asked = []
        for what, argument in steps:
            if what == "ask":
                asked.append((argument, asyncio.create_task(load(argument))))
            elif what == "many":
                many = load.many(argument, return_failures=True)
                asked.append((argument, asyncio.create_task(many)))
            elif what == "cancel" and asked:
                asked[argument % len(asked)][1].cancel()
            elif what == "turn":
                for _ in range(argument):
                    await asyncio.sleep(0)
            elif what in ("finish", "fail", "kill"):
                gate = some_gate(argument)
                if gate is not None:
                    if what == "finish":
                        gate.set_result(None)
                    elif what == "fail":
                        gate.set_exception(WholeError())
                    else:
                        gate.cancel()
        turns = 0
        while not all(task.done() for _, task in asked):
            gate = some_gate(0)
            if gate is not None:
                gate.set_result(None)
            await asyncio.sleep(0)
            turns += 1
            assert turns < 10_000, "somebody is stuck"
        for key, task in asked:
            if task.cancelled():
                continue
            told = task.exception() or task.result()
            if isinstance(key, int):
                assert may_be_told(key, told)
            elif not isinstance(told, BatchLineFullError):
                assert len(told) == len(key)
                for each, one in zip(key, told, strict=True):
                    assert may_be_told(each, getattr(one, "error", one))
        for _ in range(5):
            await asyncio.sleep(0)
        reading = load.reading()
        assert (reading.waiting, reading.in_flight, running) == (0, 0, {})
        for here in load._core.loops.states():  # none where nobody has come so far as to ask
            assert (here._open, here._line, here._running) == ({}, {}, set())
        assert reading.counts.calls >= len(seen)  # one that was given up may not have begun

    run_on("asyncio", main)
