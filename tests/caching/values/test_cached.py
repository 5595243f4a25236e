"""`@memo.cached` on functions: hits, ends, keys, None, bypass, stale on error, early refresh."""

import functools
import inspect
import logging
import threading
from datetime import timedelta

import anyio
import pytest

from perf_middleware import UnkeyableArgumentError
from perf_middleware.caching.values.figures import FUNCTIONS_MAX
from tests.caching.values.stage import BACKENDS, Calls, made, run


def loader(memo, *, sync=False, result=None, **options):
    """A cached function of one argument, and its calls."""
    calls = Calls()
    options = {"ttl": 60} | options

    if sync:

        @memo.cached(**options)
        def load(user_id):
            number = calls(user_id)
            return number if result is None else result()
    else:

        @memo.cached(**options)
        async def load(user_id):
            number = calls(user_id)
            return number if result is None else result()

    return load, calls


async def called(load, *args, **kwargs):
    """The result of a sync or an async function."""
    result = load(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


BOTH = pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])


@BACKENDS
@BOTH
def test_the_second_call_with_the_same_arguments_is_a_hit(sync, backend):
    async def main():
        memo, _ = made()
        load, calls = loader(memo, sync=sync)
        assert [await called(load, 5), await called(load, user_id=5), await called(load, 6)] == [
            1,
            1,
            2,
        ]
        assert calls == [(5,), (6,)]
        stats = load.stats()
        assert (stats.calls, stats.hits, stats.misses, stats.hit_ratio) == (3, 1, 2, 1 / 3)

    run(main, backend)


@BOTH
def test_a_value_is_over_after_its_ttl(sync):
    async def main():
        memo, clock = made()
        load, _ = loader(memo, sync=sync, ttl=timedelta(seconds=10))
        assert await called(load, 5) == 1
        clock.pass_s(9.9)
        assert await called(load, 5) == 1
        clock.pass_s(0.2)
        assert await called(load, 5) == 2
        for_ever, _ = loader(memo, sync=sync, ttl=None)
        await called(for_ever, 5)
        clock.pass_s(10**9)
        assert await called(for_ever, 5) == 1

    run(main)


@BOTH
def test_none_is_kept_only_by_choice(sync):
    async def main():
        memo, _ = made()
        calls = Calls()

        def nothing(user_id):
            calls(user_id)

        async def nothing_async(user_id):
            calls(user_id)

        function = nothing if sync else nothing_async
        plain, kept = memo.cached(ttl=60)(function), memo.cached(ttl=60, none=True)(function)
        assert [await called(plain, 5) for _ in range(3)] == [None] * 3
        assert len(calls) == 3
        assert [await called(kept, 5) for _ in range(3)] == [None] * 3
        assert len(calls) == 4

    run(main)


@BOTH
def test_an_error_is_raised_and_never_kept(sync):
    async def main():
        memo, _ = made()
        errors = [ValueError("first"), None]

        def result():
            error = errors.pop(0)
            if error is not None:
                raise error
            return "fine"

        load, calls = loader(memo, sync=sync, result=result)
        with pytest.raises(ValueError, match="first"):
            await called(load, 5)
        assert await called(load, 5) == "fine"
        assert (len(calls), load.stats().errors, load.stats().misses) == (2, 1, 2)

    run(main)


@BOTH
def test_a_stale_value_stands_in_for_an_error_by_choice(sync, caplog):
    async def main():
        memo, clock = made()
        broken = []

        def result():
            if broken:
                raise ValueError("broken")
            return ["fine"]

        load, calls = loader(memo, sync=sync, result=result, ttl=10, stale_if_error=60)
        first = await called(load, 5)
        broken.append(True)
        first.append("mine")
        clock.pass_s(11)
        assert await called(load, 5) == ["fine"]
        assert await called(load, 5) == ["fine"]
        assert len(calls) == 3, "each call tries anew"
        assert len(caplog.records) == 1
        assert load.stats().stale == 2
        clock.pass_s(60)
        with pytest.raises(ValueError, match="broken"):
            await called(load, 5)
        assert load.stats().errors == 3

    run(main)


@BOTH
def test_a_refresh_that_fails_raises_and_keeps_what_there_is(sync):
    async def main():
        memo, _ = made()
        results = [1, ValueError("broken")]

        def result():
            one = results.pop(0)
            if isinstance(one, Exception):
                raise one
            return one

        load, _ = loader(memo, sync=sync, result=result, stale_if_error=60)
        assert await called(load, 5) == 1
        with pytest.raises(ValueError, match="broken"):
            await called(load.refresh, 5)
        assert await called(load, 5) == 1

    run(main)


@BOTH
def test_refresh_bypass_invalidate_and_clear(sync):
    async def main():
        memo, _ = made()
        load, _ = loader(memo, sync=sync)
        other, _ = loader(memo, sync=sync)
        assert await called(load, 5) == 1
        assert await called(other, 5) == 1
        assert await called(load.bypass, 5) == 2
        assert await called(load, 5) == 1, "a bypass keeps nothing"
        assert await called(load.refresh, 5) == 3
        assert await called(load, 5) == 3
        assert await called(load.invalidate, 6) is False
        assert await called(load.invalidate, 5) is True
        assert await called(load, 5) == 4
        await called(load, 6)
        assert await called(load.clear) == 2
        assert await called(load, 5) == 6
        assert await called(other, 5) == 1, "another function's are its own"
        assert load.stats().bypassed == 1
        assert memo.status()["invalidated"] == 3

    run(main)


def test_a_key_function_may_say_not_to_cache():
    async def main():
        memo, _ = made()
        load, _ = loader(memo, key=lambda user_id: user_id or None)
        assert [await load(0), await load(0), await load(7), await load(7)] == [1, 2, 3, 3]
        assert load.stats().bypassed == 2
        assert load.key(0) is None
        assert await load.invalidate(0) is False
        assert await load.refresh(0) == 4

    run(main)


def test_keys_are_readable_and_begin_with_the_function():
    memo, _ = made()
    load, _ = loader(memo)
    assert load.key(5) == f"{__name__}.loader.<locals>.load:user_id=5"

    @memo.cached(ttl=1, name="user", namespace="shop", key="{user_id}")
    async def named(user_id): ...

    assert named.key("a") == "shop:user:'a'"


def test_two_functions_never_share_a_key():
    memo, _ = made()
    first, _ = loader(memo)
    second, _ = loader(memo)
    assert first.key(5) != second.key(5)
    memo.cached(ttl=1, name="user")(lambda a: a)
    with pytest.raises(ValueError, match="another function is cached as 'user'"):
        memo.cached(ttl=1, name="user")(lambda a: a)


def test_an_argument_that_has_no_key_is_an_error_at_the_call():
    async def main():
        memo, _ = made()
        load, calls = loader(memo)
        with pytest.raises(UnkeyableArgumentError, match=r"argument user_id .*exclude="):
            await load(object())
        assert calls == []

    run(main)


def test_objects_of_a_class_are_left_out_or_named_by_rule():
    class Session:
        pass

    async def main():
        memo, _ = made()
        memo.keyed_by(Session, None)
        calls = Calls()

        @memo.cached(ttl=60)
        async def load(session, user_id):
            return calls(user_id)

        assert await load(Session(), 5) == await load(Session(), 5) == 1
        memo.keyed_by(Session, id)
        assert await load(Session(), 5) == 2

    run(main)


@BOTH
@pytest.mark.parametrize(
    ("value", "change"),
    [([1], list.clear), ({"a": [1]}, lambda v: v["a"].clear()), ({1}, set.clear)],
    ids=["list", "nested", "set"],
)
def test_a_caller_who_changes_what_he_got_changes_nobody_elses(value, change, sync):
    async def main():
        memo, _ = made()
        load, _ = loader(memo, sync=sync, result=lambda: value)
        before = repr(value)
        change(await called(load, 5))
        change(await called(load, 5))
        assert repr(await called(load, 5)) == before

    run(main)


def test_without_copies_all_callers_get_the_very_same():
    async def main():
        memo, _ = made()
        load, _ = loader(memo, result=lambda: [1], copy=False)
        assert await load(5) is await load(5)

    run(main)


@BOTH
def test_a_result_that_can_be_read_once_is_not_kept(sync, caplog):
    async def main():
        memo, _ = made()
        load, _ = loader(memo, sync=sync, result=lambda: iter([1, 2]))
        assert [list(await called(load, 5)) for _ in range(3)] == [[1, 2]] * 3
        assert load.stats().uncached == 3
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "list_iterator" in caplog.text

    run(main)


@BOTH
def test_a_result_that_finds_no_room_is_returned_and_told_once(sync, caplog):
    async def main():
        memo, _ = made(bytes_max=10_000)
        load, calls = loader(memo, sync=sync, result=lambda: "x" * 20_000)
        assert [len(await called(load, 5)) for _ in range(3)] == [20_000] * 3
        assert (len(calls), load.stats().uncached, len(caplog.records)) == (3, 3, 1)

    run(main)


@BOTH
def test_a_popular_value_is_made_anew_before_it_is_over(sync):
    async def main():
        draws = []
        memo, clock = made(draw=lambda: draws.pop(0))

        def slow():
            clock.pass_s(1)
            return clock.us

        load, calls = loader(memo, sync=sync, result=slow, ttl=60, early=1.0)
        first = await called(load, 5)
        clock.pass_s(50)
        assert await called(load, 5) == first, "before the window nothing is drawn"
        clock.pass_s(8)
        draws += [0.5, 0.95]  # 0.7 s and 3 s early, of the 2 s that are left
        assert await called(load, 5) == first
        assert await called(load, 5) != first
        assert len(calls) == 2
        assert draws == []

    run(main)


@BOTH
def test_under_overload_nobody_makes_anew_what_is_still_good(sync):
    async def main():
        overloaded = [True]
        memo, clock = made(draw=lambda: 0.999)
        memo.obey(lambda: overloaded[0])

        def slow():
            clock.pass_s(1)
            return clock.us

        load, calls = loader(memo, sync=sync, result=slow, ttl=60, early=1.0)
        first = await called(load, 5)
        clock.pass_s(58)
        assert await called(load, 5) == first
        overloaded[0] = False
        assert await called(load, 5) != first
        overloaded[0] = True
        clock.pass_s(61)
        assert len(calls) == 2
        await called(load, 5)
        assert len(calls) == 3, "what is over is made anew all the same"

    run(main)


def test_who_refreshes_early_holds_up_nobody_else_and_hides_an_error():
    async def main():
        memo, clock = made(draw=lambda: 0.999)
        results = ["first", ValueError("broken")]
        inside = anyio.Event()
        leave = anyio.Event()

        @memo.cached(ttl=60, early=1.0)
        async def load(user_id):
            clock.pass_s(2)
            result = results.pop(0)
            if result != "first":
                inside.set()
                await leave.wait()
                raise result
            return result

        await load(5)
        clock.pass_s(57)
        got = []

        async def early():
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(early)
            await inside.wait()
            clock.pass_s(-2)
            assert await load(5) == "first"
            leave.set()
        assert got == ["first"]
        assert load.stats().errors == 1

    run(main)


def test_saved_seconds_are_what_the_hits_would_have_taken():
    async def main():
        memo, clock = made()
        load, _ = loader(memo, result=lambda: clock.pass_s(0.25) or "x")
        for _ in range(5):
            await load(5)
        assert load.stats().saved_s == 1.0
        assert memo.status()["saved_s"] == 1.0

    run(main)


def test_a_switched_off_cache_calls_the_function():
    async def main():
        memo, _ = made(enabled=False)
        load, _ = loader(memo)
        assert [await load(5), await load(5), await load.refresh(5)] == [1, 2, 3]
        assert load.stats().bypassed == 3
        assert await memo.set("k", 1, ttl=60) is False
        assert await memo.get("k") is None

    run(main)


def test_a_function_keeps_its_nature():
    memo, _ = made()
    load, _ = loader(memo)
    plain, _ = loader(memo, sync=True)
    assert inspect.iscoroutinefunction(load)
    assert not inspect.iscoroutinefunction(plain)
    assert load.__name__ == "load"
    assert list(inspect.signature(load).parameters) == ["user_id"]
    assert load.__wrapped__ is not load


def test_partials_and_objects_whose_call_is_async_are_cached():
    class Loader:
        async def __call__(self, user_id):
            return [user_id]

    async def main():
        memo, _ = made()
        load = memo.cached(ttl=60)(Loader())
        assert await load(5) == await load(5) == [5]
        part = memo.cached(ttl=60)(functools.partial(pow, 2))
        assert part(5) == part(5) == 32
        assert part.stats().hits == 1

    run(main)


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        pytest.param(generator, "cannot stand on the generator generator", id="a generator"),
        pytest.param(async_generator, "the generator async_generator", id="an async one"),
        pytest.param(dict, "stands on a function", id="a class"),
        pytest.param(5, "stands on a function", id="no function"),
        pytest.param(max, "tells no signature", id="a function without signature"),
    ],
)
def test_what_cannot_be_cached_is_refused(function, said):
    memo, _ = made()
    with pytest.raises(TypeError, match=said):
        memo.cached(ttl=60)(function)


async def async_key(a):
    return a


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        pytest.param({}, TypeError, "ttl", id="no ttl"),
        pytest.param({"ttl": 0}, ValueError, "above 0", id="no time"),
        pytest.param({"ttl": -1}, ValueError, "above 0", id="less"),
        pytest.param({"ttl": float("nan")}, ValueError, "above 0", id="nan"),
        pytest.param({"ttl": 10**12}, ValueError, "at most", id="too long"),
        pytest.param({"ttl": "60"}, TypeError, "seconds or a timedelta", id="a text"),
        pytest.param({"ttl": True}, TypeError, "seconds or a timedelta", id="a flag"),
        pytest.param({"ttl": 1, "early": -1}, ValueError, "from 0 to 100", id="early"),
        pytest.param({"ttl": 1, "stale_if_error": 0}, ValueError, "above 0", id="stale"),
        pytest.param({"ttl": 1, "tags": 5}, TypeError, "a text or several", id="tags"),
        pytest.param({"ttl": 1, "tags": ["t"] * 65}, ValueError, "at most 64", id="many tags"),
        pytest.param({"ttl": 1, "tags": "{b}"}, ValueError, "names 'b'", id="a tag's name"),
        pytest.param({"ttl": 1, "exclude": "b"}, ValueError, "no parameter 'b'", id="exclude"),
        pytest.param({"ttl": 1, "key": "{a}", "exclude": "a"}, ValueError, "either", id="both"),
        pytest.param({"ttl": 1, "key": ["a"]}, TypeError, "a plain function", id="a list as key"),
        pytest.param({"ttl": 1, "key": async_key}, TypeError, "plain function", id="an async key"),
        pytest.param({"ttl": 1, "name": "a*"}, ValueError, r"nor contain \*", id="a star"),
        pytest.param({"ttl": 1, "name": " "}, ValueError, "blank", id="a blank name"),
    ],
)
def test_wrong_options_are_refused_where_they_are_written(options, error, said):
    memo, _ = made()
    with pytest.raises(error, match=said):
        memo.cached(**options)(lambda a: a)


def test_the_decorators_need_their_brackets():
    memo, _ = made()
    for decorator in (memo.cached, memo.invalidates):
        with pytest.raises(TypeError, match="needs its brackets"):
            decorator(lambda: 1, **({"ttl": 1} if decorator == memo.cached else {"tags": "t"}))
    with pytest.raises(TypeError, match="needs its brackets"):
        memo.cached_property(lambda self: 1, ttl=1)


def test_two_caches_share_nothing():
    async def main():
        (one, _), (two, _) = made(), made()
        first, _ = loader(one)
        second, _ = loader(two)
        await first(5)
        await second(5)
        await one.clear()
        assert (await second(5), await first(5)) == (1, 2)

    run(main)


def test_a_cache_serves_one_event_loop_after_the_other():
    memo, _ = made()
    load, calls = loader(memo)
    for backend in ("asyncio", "trio", "asyncio"):
        run(lambda: load(5), backend)
    assert len(calls) == 1


def test_functions_beyond_the_bound_count_together():
    async def main():
        memo, _ = made()
        loads = [loader(memo)[0] for _ in range(FUNCTIONS_MAX + 2)]
        for load in loads[-2:]:
            await load(5)
        assert loads[-1].stats() == loads[-2].stats()
        assert memo._core.figures.by_function["other"].misses == 2

    run(main)


def test_a_sync_function_may_be_called_from_many_threads():
    memo, _ = made()
    load, calls = loader(memo, sync=True, ttl=60)
    results = []

    def work():
        results.extend(load(number % 50) for number in range(500))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4000
    assert len(calls) == 50
