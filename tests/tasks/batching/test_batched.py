"""Single look-ups of the same moment are one call: on asyncio, uvloop and trio."""

import asyncio
import functools
import gc
import pickle
import weakref
from contextlib import suppress
from contextvars import ContextVar

import anyio
import pytest

from perf_middleware.tasks.batching import Failed, batch_scope, batched
from perf_middleware.tasks.batching.errors import (
    BatchCancelledError,
    BatchLineFullError,
    BatchResultError,
    BatchTimeoutError,
    MissingResultError,
)
from perf_middleware.tasks.batching.runtime.batches import GONE_MAX
from tests.tasks.any_loop import at_once, on_each_loop, until


class Bulk:
    """A bulk function that remembers its calls; it waits where `gate` is given."""

    def __init__(self, answer=None):
        self.answer = answer or (lambda keys: [key * 10 for key in keys])
        self.calls = []
        self.ended = []
        self.gate = None

    def open(self, **options):
        async def load(keys):
            self.calls.append(keys)
            if self.gate is not None:
                try:
                    await self.gate.wait()
                except BaseException:
                    self.ended.append("cancelled")
                    raise
            self.ended.append("done")
            return self.answer(keys)

        return batched(**{"wait_s": 0, **options})(load)


@on_each_loop
async def test_what_is_asked_in_the_same_moment_is_one_call_in_order():
    bulk = Bulk()
    load = bulk.open()
    assert await at_once(load, 3, 1, 2, 1) == [30, 10, 20, 10]
    assert bulk.calls == [[3, 1, 2]]


@on_each_loop
async def test_keys_that_come_within_wait_s_are_collected_too():
    bulk = Bulk()
    load = bulk.open(wait_s=60, size_max=3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load, 1)
        await until(lambda: load.reading().waiting == 1)
        tasks.start_soon(load, 2)
        await until(lambda: load.reading().waiting == 2)
        assert bulk.calls == []
        tasks.start_soon(load, 3)  # full: it waits no longer
    assert bulk.calls == [[1, 2, 3]]


@on_each_loop
async def test_a_full_batch_goes_and_the_next_begins():
    bulk = Bulk()
    assert await at_once(bulk.open(size_max=2), 1, 2, 3, 4, 5) == [10, 20, 30, 40, 50]
    assert bulk.calls == [[1, 2], [3, 4], [5]]


@on_each_loop
async def test_many_keys_of_one_task_are_asked_together():
    bulk = Bulk(lambda keys: {key: key * 10 for key in keys if key != 2})
    load = bulk.open()
    assert await load.many([1, 3, 1]) == [10, 30, 10]
    with pytest.raises(MissingResultError):
        await load.many([1, 2])
    one, two = await load.many([1, 2], return_failures=True)
    assert one == 10
    assert (type(two.error), two.index) == (MissingResultError, 1)
    assert bulk.calls == [[1, 3], [1, 2], [1, 2]]


# --- failures -------------------------------------------------------------------------------------


async def outcomes_of(load, *keys):
    async def one(key):
        try:
            return await load(key)
        except Exception as error:  # noqa: BLE001 - whichever it was told
            return error

    return await at_once(one, *keys)


@on_each_loop
async def test_an_error_of_one_key_is_that_ones_alone():
    broken = ValueError("broken")
    load = Bulk(lambda keys: [broken, Failed(broken), 3]).open()
    assert await outcomes_of(load, 1, 2, 3) == [broken, broken, 3]
    assert load.reading().counts.failed_keys == 2


@on_each_loop
async def test_a_call_that_raises_fails_all_who_asked_in_it_and_nobody_else():
    broken = ValueError("broken")

    def answer(keys):
        if 1 in keys:
            raise broken
        return keys

    load = Bulk(answer).open(size_max=2)
    assert await outcomes_of(load, 1, 2, 3) == [broken, broken, 3]
    assert load.reading().counts.failed_calls == 1


@on_each_loop
async def test_what_a_call_raises_that_is_no_exception_ends_nothing_but_who_asked():
    stopped = SystemExit(3)

    def answer(keys):
        if 1 in keys:
            raise stopped
        return keys

    load = Bulk(answer).open()
    with pytest.raises(SystemExit) as caught:
        await load(1)
    assert caught.value is stopped
    assert await load(2) == 2
    reading = load.reading()
    assert (reading.counts.failed_calls, reading.in_flight) == (1, 0)


@on_each_loop
async def test_a_call_that_changes_its_list_of_keys_gives_nobody_anothers_value():
    def with_list(change, keys):
        change(keys)
        return [key * 10 for key in keys]

    def with_dict(change, keys):
        values = {key: key * 10 for key in keys}
        change(keys)
        return values

    for change in (list.reverse, list.clear, list.pop):
        load = Bulk(functools.partial(with_list, change)).open(timeout_s=5)
        told = await outcomes_of(load, 1, 2)
        assert [type(each) for each in told] == [BatchResultError] * 2
        load = Bulk(functools.partial(with_dict, change)).open(timeout_s=5)
        assert await outcomes_of(load, 1, 2) == [10, 20]


@on_each_loop
async def test_what_is_missing_is_an_error_or_the_default():
    def none(keys):
        return {}

    (error,) = await outcomes_of(Bulk(none).open(), 1)
    assert isinstance(error, MissingResultError)
    assert await Bulk(none).open(default=None)(1) is None


@on_each_loop
async def test_a_list_of_another_length_is_told_to_all():
    first, second = await outcomes_of(Bulk(lambda keys: [1]).open(name="load"), 1, 2)
    assert str(first).startswith("load: it gave a list of 1 for 2 keys")
    assert isinstance(second, BatchResultError)


@on_each_loop
async def test_a_stop_iteration_of_the_bulk_function_hangs_nobody():
    (error,) = await outcomes_of(Bulk(lambda keys: [StopIteration()]).open(), 1)
    assert isinstance(error, RuntimeError)


@on_each_loop
async def test_a_key_without_a_hash_is_refused_at_once_and_leaves_nothing():
    load = Bulk().open()
    with pytest.raises(TypeError, match="unhashable"):
        await load([1])
    assert load.reading().waiting == 0
    assert await load(1) == 10


@on_each_loop
async def test_a_call_without_an_answer_in_time_is_cancelled():
    bulk = Bulk()
    load = bulk.open(timeout_s=0.01)
    bulk.gate = anyio.Event()
    first, second = await outcomes_of(load, 1, 2)
    assert isinstance(first, BatchTimeoutError)
    assert isinstance(second, BatchTimeoutError)
    await until(lambda: load.reading().in_flight == 0)
    assert bulk.ended == ["cancelled"]


@on_each_loop
async def test_the_time_in_line_counts_and_a_call_that_does_not_end_holds_only_its_place():
    release = anyio.Event()
    calls = []

    @batched(wait_s=0, timeout_s=0.01, in_flight_max=1)
    async def load(keys):
        calls.append(keys)
        with anyio.CancelScope(shield=True):
            while not release.is_set():
                with suppress(asyncio.CancelledError):  # which a shield of anyio does not hold back
                    await release.wait()
        return keys

    assert [type(each) for each in await outcomes_of(load, 1)] == [BatchTimeoutError]
    assert [type(each) for each in await outcomes_of(load, 2)] == [BatchTimeoutError]
    assert calls == [[1]]  # the second has never begun
    assert load.reading().in_flight == 1
    release.set()
    await until(lambda: load.reading().in_flight == 0)


@on_each_loop
async def test_more_than_may_wait_are_refused():
    bulk = Bulk()
    load = bulk.open(waiting_max=2)
    assert [type(each) for each in await outcomes_of(load, 1, 2, 3)] == [
        int, int, BatchLineFullError,
    ]  # fmt: skip
    assert bulk.calls == [[1, 2]]
    assert load.reading().counts.refused == 1
    assert await load(3) == 30


@on_each_loop
async def test_no_more_than_in_flight_max_run_and_the_line_fills_up_meanwhile():
    bulk = Bulk()
    load = bulk.open(size_max=2, in_flight_max=1)
    bulk.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load, 1)
        await until(lambda: bulk.calls == [[1]])
        for waiting, key in enumerate((2, 3, 4), start=2):
            tasks.start_soon(load, key)  # the batch of 2 stands in line, and takes 3
            await until(lambda waiting=waiting: load.reading().waiting == waiting)
        assert load.reading().in_flight == 1
        bulk.gate.set()
    assert bulk.calls == [[1], [2, 3], [4]]


# --- cancellation ---------------------------------------------------------------------------------


@on_each_loop
async def test_one_who_goes_harms_no_other():
    bulk = Bulk()
    load = bulk.open()
    bulk.gate = anyio.Event()
    got = []

    async def ask(key):
        got.append(await load(key))

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as goes:
                goes.start_soon(ask, 1)
                tasks.start_soon(ask, 1)
                tasks.start_soon(ask, 2)
                await until(lambda: bulk.calls == [[1, 2]])
                scope.cancel()
        assert load.reading().waiting == 2
        bulk.gate.set()
    assert sorted(got) == [10, 20]
    assert bulk.ended == ["done"]


@on_each_loop
async def test_a_call_that_nobody_waits_for_any_more_is_cancelled():
    bulk = Bulk()
    load = bulk.open(in_flight_max=1)
    bulk.gate = anyio.Event()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 1)
            tasks.start_soon(load, 2)
            await until(lambda: bulk.calls == [[1, 2]])
            scope.cancel()
    await until(lambda: load.reading().in_flight == 0)
    assert bulk.ended == ["cancelled"]
    bulk.gate = None
    assert await load(3) == 30


@on_each_loop
async def test_a_key_that_nobody_wants_any_more_is_not_asked():
    bulk = Bulk()
    load = bulk.open(wait_s=60, size_max=2)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 1)
            await until(lambda: load.reading().waiting == 1)
            scope.cancel()
    assert load.reading().waiting == 0
    assert await at_once(load, 2, 3) == [20, 30]
    assert bulk.calls == [[2, 3]]


@on_each_loop
async def test_a_key_is_taken_out_of_a_batch_that_others_wait_for():
    bulk = Bulk()
    load = bulk.open(wait_s=60, size_max=3)
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as goes:
            goes.start_soon(load, 1)
            await until(lambda: load.reading().waiting == 1)
            tasks.start_soon(load, 2)
            await until(lambda: load.reading().waiting == 2)
            goes.cancel_scope.cancel()
        tasks.start_soon(load, 3)
        await until(lambda: load.reading().waiting == 2)
        assert bulk.calls == []
        tasks.start_soon(load, 4)
    assert bulk.calls == [[2, 3, 4]]


def test_who_goes_before_the_call_has_begun_leaves_its_place_free():
    bulk = Bulk()

    async def main():
        load = bulk.open(size_max=1, in_flight_max=1)
        bulk.gate = asyncio.Event()
        first, second = (asyncio.create_task(load(key)) for key in (1, 2))
        await until(lambda: bulk.calls == [[1]])
        bulk.gate.set()  # in one turn: the first call ends, the second's task is made,
        second.cancel()  # and before that runs, who waits for it goes
        await asyncio.wait([first, second])
        assert load.reading().in_flight == 0
        assert await load(3) == 30

    asyncio.run(main())
    assert bulk.calls == [[1], [3]]


def test_a_call_that_something_else_cancels_is_an_error_and_no_cancellation():
    @batched(wait_s=0)
    async def load(keys):
        raise asyncio.CancelledError

    async def main():
        with pytest.raises(BatchCancelledError):
            await load(1)
        assert load.reading().in_flight == 0

    asyncio.run(main())


def test_the_end_of_the_loop_cancels_what_runs_and_what_stands_in_line():
    bulk = Bulk()
    load = bulk.open(size_max=1, in_flight_max=1)

    async def main():
        bulk.gate = anyio.Event()
        kept = [asyncio.create_task(load(key)) for key in (1, 2, 3)]
        await until(lambda: bulk.calls == [[1]])
        return kept

    kept = asyncio.run(main())
    assert all(task.cancelled() for task in kept)
    assert bulk.calls == [[1]]


# --- contextvars ----------------------------------------------------------------------------------

USER = ContextVar("user", default="nobody")
TENANT = ContextVar("tenant", default="none")


def whose(**options):
    seen = []

    @batched(wait_s=0, **options)
    async def load(keys):
        seen.append((USER.get(), TENANT.get(), keys))
        return [f"{USER.get()}'s {key}" for key in keys]

    return load, seen


async def asked_as(load, *asks):
    async def one(ask):
        user, tenant, key = ask
        if user is not None:
            USER.set(user)
        if tenant is not None:
            TENANT.set(tenant)
        return await load(key)

    return await at_once(one, *asks)


@on_each_loop
async def test_two_who_differ_in_a_contextvar_share_no_call():
    load, seen = whose()
    told = await asked_as(load, ("ann", None, 1), ("bob", None, 1), ("ann", None, 2))
    assert told == ["ann's 1", "bob's 1", "ann's 2"]
    assert sorted(seen) == [("ann", "none", [1, 2]), ("bob", "none", [1])]


@on_each_loop
async def test_two_values_that_are_equal_are_not_the_same():
    holder = ContextVar("holder")
    seen = []

    @batched(wait_s=0)
    async def load(keys):
        holder.get().extend(keys)
        seen.append(keys)
        return keys

    async def request(key):
        mine = []
        holder.set(mine)
        await load(key)
        return mine

    assert await at_once(request, 1, 2) == [[1], [2]]
    assert sorted(seen) == [[1], [2]]


@on_each_loop
async def test_named_variables_say_who_shares_and_are_all_that_is_seen():
    load, seen = whose(context=TENANT)
    await asked_as(load, ("ann", "x", 1), ("bob", "x", 2), ("cid", "y", 3))
    assert sorted(seen) == [("nobody", "x", [1, 2]), ("nobody", "y", [3])]


@on_each_loop
async def test_an_empty_context_is_shared_by_all_and_shows_nobody():
    load, seen = whose(context="empty")
    await asked_as(load, ("ann", "x", 1), ("bob", "y", 2))
    assert seen == [("nobody", "none", [1, 2])]


@on_each_loop
async def test_the_context_of_the_first_is_taken_only_where_that_is_asked_for():
    load, seen = whose(context="first")
    USER.set("ann")
    await asked_as(load, (None, None, 1), ("bob", None, 2))
    assert [keys for *_, keys in seen] == [[1, 2]] or [keys for *_, keys in seen] == [[2, 1]]
    assert seen[0][0] in ("ann", "bob")


@on_each_loop
async def test_a_named_value_without_a_hash_is_told_apart_by_itself():
    load, seen = whose(context=[TENANT])
    await asked_as(load, (None, ["x"], 1), (None, ["x"], 2))
    assert sorted(keys for *_, keys in seen) == [[1], [2]]


# --- methods, loops, use --------------------------------------------------------------------------


class Shop:
    def __init__(self, name):
        self.name = name
        self.calls = []

    @batched(wait_s=0)
    async def load(self, keys):
        """Bulk."""
        self.calls.append(keys)
        return [f"{self.name} {key}" for key in keys]

    @batched(wait_s=0)
    @classmethod
    async def kinds(cls, keys):
        return [f"{cls.__name__} {key}" for key in keys]

    @staticmethod
    @batched(wait_s=0)
    async def plain(keys):
        return [key * 10 for key in keys]

    @batched(wait_s=0)
    @staticmethod
    async def plain_too(keys):
        return [key * 10 for key in keys]


@on_each_loop
async def test_a_method_asks_for_each_object_apart():
    one, two = Shop("one"), Shop("two")

    async def ask(shop_and_key):
        shop, key = shop_and_key
        return await shop.load(key)

    assert await at_once(ask, (one, 1), (two, 1), (one, 2)) == ["one 1", "two 1", "one 2"]
    assert (one.calls, two.calls) == ([[1, 2]], [[1]])
    assert await one.kinds(1) == await Shop.kinds(1) == "Shop 1"
    assert await one.plain(1) == await Shop.plain(1) == await one.plain_too(1) == 10
    assert Shop.load.reading().counts.calls >= 2


@on_each_loop
async def test_nothing_of_an_object_is_kept_after_its_calls():
    shop = Shop("gone")
    gone = weakref.ref(shop)
    assert await shop.load(1) == "gone 1"
    del shop
    await anyio.sleep(0)
    gc.collect()
    assert gone() is None


def test_each_loop_has_batches_of_its_own_and_none_is_kept():
    bulk = Bulk()
    load = bulk.open()
    assert [asyncio.run(load(key)) for key in (1, 2)] == [10, 20]
    gc.collect()
    assert load._core.loops.states() in ([], [load._core.loops._last[1]])
    assert load.reading().counts.calls == 2


def test_without_a_loop_it_says_so():
    load = Bulk().open(name="load")
    with pytest.raises(RuntimeError, match="load needs a running event loop"):
        load(1).send(None)


def test_it_stands_on_an_async_function_of_a_list():
    def sync(keys):
        return keys

    async def two(keys, more, again):
        return keys

    async def none():
        return []

    async def named(*, keys):
        return keys

    with pytest.raises(TypeError, match="async function of a list"):
        batched(sync)
    for wrong in (two, none, named):
        with pytest.raises(TypeError, match="must need one argument"):
            batched(wrong)


def test_a_class_method_below_says_how_to_stand():
    class Wrong:
        @batched
        async def kinds(cls, keys):  # noqa: N805 - as one that stands in the wrong place
            return keys

    with pytest.raises(TypeError, match="above @classmethod"):
        Wrong.kinds(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_max": 0}, {"wait_s": -1}, {"wait_s": float("nan")}, {"timeout_s": 0},
        {"in_flight_max": 0}, {"waiting_max": 0}, {"context": "all"}, {"context": [1]},
        {"cache": "forever"}, {"remembered_max": 0},
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_where_it_is_written(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        batched(**wrong)(Shop.plain._core.function)


def test_a_function_keeps_its_name_and_words():
    load = Shop("a").load
    assert (load.__name__, load.__doc__) == ("load", "Bulk.")


@pytest.mark.parametrize(
    "error",
    [
        BatchResultError("load", "why"),
        MissingResultError("load", "1"),
        BatchTimeoutError("load", 1.0),
        BatchCancelledError("load"),
        BatchLineFullError("load", 5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


@on_each_loop
async def test_an_error_that_was_handled_leaves_no_garbage():
    class OurError(Exception):
        pass

    def each_fails(keys):
        return [OurError() for _ in keys]

    def all_fail(keys):
        raise OurError

    async def seen(call, *args):
        try:
            await call(*args)
        except OurError as error:
            return weakref.ref(error)

    gc.collect()
    gc.disable()
    try:
        for answer in (each_fails, all_fail):
            load = Bulk(answer).open()
            for call, args in ((load, (1,)), (load.many, ([1, 2],))):
                error = await seen(call, *args)
                await until(lambda error=error: error() is None)  # as the call's own task ends
    finally:
        gc.enable()


@on_each_loop
async def test_an_error_shows_nobody_what_another_one_was_handling():
    def all_fail(keys):
        raise ValueError("shared")

    load = Bulk(all_fail).open(context="empty")
    shown = []

    async def one(secret):
        try:
            if secret:
                {}[secret]
            await load(1)
        except KeyError:
            with suppress(ValueError):
                await load(1)
        except ValueError as error:
            shown.append(error.__context__)

    await at_once(one, "a password", "")
    assert shown == [None]


@on_each_loop
async def test_who_comes_and_goes_leaves_nothing_while_a_call_runs():
    bulk = Bulk()
    bulk.gate = anyio.Event()
    load = bulk.open(timeout_s=None, cache="request")
    with batch_scope():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 1)
            await until(lambda: bulk.calls == [[1]])
            here = load._core.loops.here()
            (batch,) = here._running
            for _ in range(10 * GONE_MAX):
                with anyio.CancelScope() as goes:
                    goes.cancel()
                    await load(1)
            assert len(batch.entries[1].waiters) <= GONE_MAX + 3
            bulk.gate.set()
    assert load.reading().waiting == 0


def test_a_plain_function_of_two_arguments_is_told_that_it_is_taken_for_a_method():
    @batched
    async def load(session, keys):
        return keys

    with pytest.raises(TypeError, match="a plain function takes the list of keys alone"):
        load(1)


@on_each_loop
async def test_a_function_with_an_argument_bound_needs_no_name():
    async def rows(table, keys):
        return [f"{table} {key}" for key in keys]

    load = batched(wait_s=0)(functools.partial(rows, "users"))
    assert await load(1) == "users 1"
    assert "partial" in load.reading().name
