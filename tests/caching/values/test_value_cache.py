"""`ValueCache` itself: values by key, what a write forgets, what operators see."""

import anyio
import pytest
from pydantic import BaseModel

from perf_middleware import UnpackableValueError, ValueCache
from perf_middleware.caching.values.keys import KEY_CHARS_MAX
from tests.caching.values.stage import Calls, Gate, made, run, settled


def test_values_are_set_got_and_deleted_by_key():
    async def main():
        memo, clock = made()
        assert await memo.set("a", [1], ttl=60) is True
        assert await memo.set("b", None, ttl=None, tags="t") is True
        assert await memo.get("a") == [1]
        assert await memo.get("b", "nothing") is None
        assert await memo.get("c") is None
        assert await memo.get("c", "nothing") == "nothing"
        assert [await memo.exists(key) for key in "abc"] == [True, True, False]
        assert await memo.get_many(["a", "c", "b"]) == {"a": [1], "b": None}
        clock.pass_s(61)
        assert await memo.get("a", "gone") == "gone"
        assert await memo.get_many(["a", "b"]) == {"b": None}
        assert await memo.delete("a", "b", "c") in (1, 2)
        assert not await memo.exists("b")

    run(main)


def test_many_are_set_and_cleared_by_namespace_pattern_and_tag():
    async def main():
        memo, _ = made()
        values = {f"{name}:{number}": number for name in ("users", "users2") for number in range(3)}
        assert await memo.set_many(values, ttl=60, tags=("all",)) == 6
        assert await memo.clear(namespace="users") == 3
        assert await memo.clear(pattern="*:1") == 1
        assert await memo.purge(tags=("all", "none")) == 2
        await memo.set_many(values, ttl=60)
        assert await memo.clear() == 6
        assert memo.status()["entries"] == 0
        with pytest.raises(ValueError, match="not both"):
            await memo.clear(namespace="a", pattern="b")

    run(main)


def test_numbers_are_counted():
    async def main():
        memo, clock = made()
        assert [await memo.incr("n"), await memo.incr("n", 5), await memo.incr("n", -2)] == [
            1,
            6,
            4,
        ]
        assert await memo.incr("short", ttl=1) == 1
        clock.pass_s(2)
        assert await memo.incr("short", ttl=1) == 1
        with pytest.raises(TypeError, match="whole number"):
            await memo.incr("n", 1.5)

    run(main)


@pytest.mark.parametrize("key", [5, None, b"k"])
def test_a_key_that_is_no_text_is_refused(key):
    async def main():
        memo, _ = made()
        for call in (memo.get(key), memo.set(key, 1, ttl=1), memo.delete(key), memo.incr(key)):
            with pytest.raises(TypeError, match="a key must be a text"):
                await call

    run(main)


def test_a_long_key_is_shortened_and_told_apart():
    async def main():
        memo, _ = made()
        first, second = "users:" + "x" * 1000, "users:" + "x" * 999 + "y"
        await memo.set_many({first: 1, second: 2}, ttl=60)
        assert await memo.get_many([first, second]) == {first: 1, second: 2}
        assert max(map(len, memo._core.memory.keys())) == KEY_CHARS_MAX + 1
        assert await memo.clear(namespace="users") == 2

    run(main)


def test_what_is_set_is_not_overwritten_by_what_was_begun_before():
    async def main():
        memo, _ = made()
        gate = Gate()

        @memo.cached(ttl=60, name="user", key="{user_id}")
        async def load(user_id):
            await gate.wait()
            return "older"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 5)
            await settled()
            await memo.set("user:5", "newer", ttl=60)
            gate.open.set()
        assert await load(5) == await memo.get("user:5") == "newer"

    run(main)


# --- writes ---------------------------------------------------------------------------------------


def reader(memo, **options):
    calls = Calls()

    @memo.cached(ttl=60, **options)
    async def load(user_id):
        return calls(user_id)

    return load


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("how", ["tags", "pattern", "function"])
def test_a_write_that_succeeds_forgets_what_it_changed(how, sync):
    async def main():
        memo, _ = made()
        load = reader(memo, tags=("user:{user_id}",))
        other = reader(memo)
        by = {
            "tags": {"tags": ("user:{user_id}", "users")},
            "pattern": {"pattern": f"{load.cached_as}:user_id={{user_id}}"},
            "function": {"function": [load]},
        }[how]
        written = []

        @memo.invalidates(**by)
        async def rename(user_id, name="x"):
            written.append(await load(user_id))
            return name

        @memo.invalidates(**by)
        def rename_now(user_id, name="x"):
            return name

        for one in (load, other):
            assert [await one(5), await one(6)] == [1, 2]
        assert (rename_now(5, "new") if sync else await rename(5, "new")) == "new"
        assert written == ([] if sync else [1]), "while it runs, what was kept still holds"
        assert await load(5) == 3
        assert await load(6) == (4 if how == "function" else 2)
        assert await other(5) == 1

    run(main)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_a_write_that_fails_forgets_nothing(sync):
    async def main():
        memo, _ = made()
        load = reader(memo, tags="users")

        @memo.invalidates(tags="users")
        async def rename(user_id):
            raise ValueError("broken")

        @memo.invalidates(tags="users")
        def rename_now(user_id):
            raise ValueError("broken")

        await load(5)
        with pytest.raises(ValueError, match="broken"):
            rename_now(5) if sync else await rename(5)
        assert await load(5) == 1

    run(main)


class Item:
    def __init__(self, shelf):
        self.shelf = shelf


@pytest.mark.parametrize("by", ["tags", "pattern"])
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("change", "shelves"),
    [
        pytest.param(lambda item: setattr(item, "shelf", "b"), "ab", id="moved"),
        pytest.param(lambda item: delattr(item, "shelf"), "a", id="gone, as by a commit"),
    ],
)
def test_a_write_that_changes_its_argument_forgets_what_that_was_and_what_it_is(
    change, shelves, sync, by
):
    async def main():
        memo, _ = made()
        load = reader(memo, tags="shelf:{user_id}", name="load", key="{user_id}")
        concerned = {by: {"tags": "shelf:{item.shelf}", "pattern": "load:'{item.shelf}'"}[by]}

        @memo.invalidates(**concerned)
        async def write(item):
            change(item)

        @memo.invalidates(**concerned)
        def write_now(item):
            change(item)

        kept = {shelf: await load(shelf) for shelf in "abc"}
        write_now(Item("a")) if sync else await write(Item("a"))
        assert {shelf for shelf in "abc" if await load(shelf) != kept[shelf]} == set(shelves)

    run(main)


def test_a_write_whose_tags_never_can_be_told_says_so():
    memo, _ = made()

    @memo.invalidates(tags="shelf:{item.shelf}")
    def write(item):
        item.written = True

    item = Item("a")
    del item.shelf
    with pytest.raises(AttributeError, match="shelf"):
        write(item)


def test_a_write_is_a_method_as_well():
    memo, _ = made()
    calls = Calls()

    @memo.cached(ttl=60, tags="user:{user_id}")
    def load(user_id):
        return calls(user_id)

    class Users:
        @memo.invalidates(tags="user:{user_id}")
        def rename(self, user_id):
            return user_id

        @memo.invalidates(tags="user:{user_id}")
        @classmethod
        def rename_by_class(cls, user_id):
            return cls

        @memo.invalidates(tags="user:{user_id}")
        @staticmethod
        def rename_static(user_id):
            return user_id

    for write in (Users().rename, Users.rename_by_class, Users.rename_static):
        before = load(5)
        assert load(5) == before
        write(5)
        assert load(5) == before + 1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        pytest.param({}, ValueError, "needs tags, a pattern or a function", id="nothing"),
        pytest.param({"tags": "{b}"}, ValueError, "names 'b'", id="a wrong name"),
        pytest.param({"function": len}, TypeError, "not decorated", id="a plain function"),
    ],
)
def test_a_wrong_invalidation_is_refused_where_it_is_written(options, error, said):
    memo, _ = made()
    with pytest.raises(error, match=said):
        memo.invalidates(**options)(lambda a: a)


def test_a_generator_that_writes_is_refused():
    memo, _ = made()

    def write():
        yield

    with pytest.raises(TypeError, match="generator"):
        memo.invalidates(tags="t")(write)


# --- figures --------------------------------------------------------------------------------------


def figures(memo):
    return {
        (family.name, *(value for _, value in point.labels.pairs)): point.value
        for family in memo.families()
        for point in family.points
    }


def test_the_figures_tell_what_became_of_each_function():
    async def main():
        memo, clock = made()
        load = reader(memo, name="users")
        await load(5)
        await load(5)
        await load.bypass(5)
        told = figures(memo)
        assert told["perf_memo_calls", "users"] == 3
        assert told["perf_memo_hits", "users"] == 1
        assert told["perf_memo_misses", "users"] == 1
        assert told["perf_memo_bypassed", "users"] == 1
        assert told["perf_memo_entries",] == 1
        assert 700 < told["perf_memo_bytes",] < 2000
        assert told["perf_memo_bytes_max",] == 32 << 20
        clock.pass_s(100)
        assert figures(memo)["perf_memo_entries",] == 0, "what has expired is not counted"
        memo.reset_counts()
        assert figures(memo)["perf_memo_calls", "users"] == 0
        assert load.stats().calls == 0

    run(main)


def test_other_bounds_hold_at_once():
    async def main():
        memo, _ = made()
        load = reader(memo)
        for number in range(100):
            await load(number)
        memo.adjust(entries_max=10)
        assert memo.status()["entries"] == 10
        memo.adjust(enabled=False, bytes_max=1 << 16, collapse_wait_s=1, waiting_max=5)
        assert memo.status() | {"entries": 0, "bytes_max": 1 << 16} == memo.status()
        assert (await load(1), await load(1)) == (101, 102)

    run(main)


# --- what a store outside of the process needs --------------------------------------------------


class Row(BaseModel):
    number: int


def test_what_a_function_is_annotated_to_return_can_be_packed():
    memo = ValueCache()

    @memo.cached(ttl=60)
    async def load(user_id) -> list[Row] | None: ...

    packed = memo.packer.pack([Row(number=1)], key="k")
    assert memo.packer.unpack(packed, key="k") == [Row(number=1)]
    with pytest.raises(UnpackableValueError):
        ValueCache().packer.pack([Row(number=1)], key="k")
