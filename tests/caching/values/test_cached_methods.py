"""`@memo.cached` on methods, and `@memo.cached_property`."""

import copy
import gc
import inspect
import pickle
import threading
from dataclasses import dataclass
from weakref import ref

import anyio
import pytest
from pydantic import BaseModel

from perf_middleware import UnkeyableArgumentError, ValueCache
from perf_middleware.caching.values.decorators.properties import CachedProperty
from tests.caching.values.stage import BACKENDS, Calls, Gate, made, run, settled

MEMO = ValueCache()


def service(memo, calls):
    class Service:
        def __init__(self, tenant="a"):
            self.tenant = tenant

        @memo.cached(ttl=60, exclude=("self",))
        async def load(self, user_id):
            """Load it."""
            return calls(self.tenant, user_id)

        @memo.cached(ttl=60, key="{self.tenant}/{user_id}", tags=("tenant:{self.tenant}",))
        def by_tenant(self, user_id):
            return calls(self.tenant, user_id)

        @memo.cached(ttl=60)
        async def unnamed(self): ...

        @memo.cached(ttl=60)
        @classmethod
        async def of_class(cls, user_id):
            return calls(cls.__name__, user_id)

        @classmethod
        @memo.cached(ttl=60)
        async def below(cls, user_id):
            return calls(cls.__name__, user_id)

        @memo.cached(ttl=60)
        @staticmethod
        async def static(user_id):
            return calls(user_id)

        @staticmethod
        @memo.cached(ttl=60)
        async def static_below(user_id):
            return calls(user_id)

    return Service


def test_a_method_has_its_actions_bound_as_well():
    async def main():
        memo, _ = made()
        calls = Calls()
        one = service(memo, calls)()
        assert await one.load(5) == await one.load(user_id=5) == 1
        assert await one.load.bypass(5) == 2
        assert await one.load.refresh(5) == 3
        assert await one.load(5) == 3
        assert await one.load.invalidate(5) is True
        assert await one.load(5) == 4
        assert one.load.key(5).endswith("Service.load:user_id=5")
        assert one.load.stats().hits == 2
        assert await one.load.clear() == 1
        assert inspect.iscoroutinefunction(one.load)
        assert list(inspect.signature(one.load).parameters) == ["user_id"]
        assert type(one).load.__doc__ == "Load it."
        assert await type(one).load(one, 5) == 5
        assert await type(one).load.invalidate(one, 5) is True

    run(main)


def test_objects_are_told_apart_as_the_key_says():
    memo, _ = made()
    calls = Calls()
    cls = service(memo, calls)
    assert [cls("a").by_tenant(5), cls("b").by_tenant(5), cls("a").by_tenant(5)] == [1, 2, 1]
    assert memo._core.forget_tagged(["tenant:a"]) == 1
    assert [cls("a").by_tenant(5), cls("b").by_tenant(5)] == [3, 2]
    assert cls("b").by_tenant.invalidate(5) is True


def test_an_object_that_nothing_names_is_an_error_that_says_what_to_do():
    async def main():
        memo, _ = made()
        one = service(memo, Calls())()
        with pytest.raises(UnkeyableArgumentError, match=r"argument self .*exclude=\('self',\)"):
            await one.unnamed()

    run(main)


@pytest.mark.parametrize("name", ["of_class", "below"])
def test_a_class_method_is_kept_for_each_class(name):
    async def main():
        memo, _ = made()
        calls = Calls()
        cls = service(memo, calls)

        class Other(cls):
            pass

        assert [await getattr(cls, name)(5), await getattr(cls, name)(5)] == [1, 1]
        assert [await getattr(Other, name)(5), await getattr(cls(), name)(5)] == [2, 1]
        if name == "of_class":
            assert await cls.of_class.invalidate(5) is True
            assert await Other.of_class(5) == 2

    run(main)


@pytest.mark.parametrize("name", ["static", "static_below"])
def test_a_static_method_is_a_function(name):
    async def main():
        memo, _ = made()
        load = getattr(service(memo, Calls())(), name)
        assert [await load(5), await load(5)] == [1, 1]
        assert await load.invalidate(5) is True

    run(main)


class Account(BaseModel):
    number: int

    @MEMO.cached(ttl=60)
    async def balance(self, currency):
        return [self.number, currency]

    @MEMO.cached_property(ttl=60)
    async def history(self):
        return [self.number]


@dataclass(frozen=True)
class Order:
    number: int

    @MEMO.cached(ttl=60)
    def total(self):
        return (self.number,)


def test_models_and_dataclasses_are_named_by_their_fields():
    async def main():
        assert await Account(number=1).balance("EUR") == [1, "EUR"]
        assert await Account(number=1).balance("EUR") == [1, "EUR"]
        assert await Account(number=2).balance("EUR") == [2, "EUR"]
        assert (Account.balance.stats().hits, Account.balance.stats().misses) == (1, 2)
        assert Order(1).total() is Order(1).total() != Order(2).total()
        account = Account(number=1)
        assert await account.history is await account.history
        assert account == Account(number=1)
        assert account.model_dump() == {"number": 1}

    run(main)


# --- properties -----------------------------------------------------------------------------------


def user_class(memo, calls=None, gate=None, **options):
    calls = Calls() if calls is None else calls
    options = {"ttl": 60} | options

    class User:
        def __init__(self, number):
            self.number = number

        @memo.cached_property(**options)
        async def profile(self):
            """The profile."""
            calls(self.number)
            if gate is not None:
                await gate.wait()
            return [self.number, len(calls)]

        @memo.cached_property(**options)
        def plain(self):
            calls(self.number)
            return [self.number, len(calls)]

    return User


@BACKENDS
def test_a_property_is_worked_out_once_for_each_object(backend):
    async def main():
        memo, clock = made()
        one, two = map(user_class(memo), (1, 2))
        first = await one.profile
        assert await one.profile is first == [1, 1]
        assert await two.profile == [2, 2]
        assert one.plain is one.plain == [1, 3]
        clock.pass_s(61)
        assert await one.profile == [1, 4]
        assert one.plain == [1, 5]
        assert type(one).profile.stats().hits == 1
        assert type(one).profile.__doc__ == "The profile."

    run(main, backend)


def test_a_property_is_forgotten_by_del_and_not_set():
    async def main():
        memo, _ = made()
        user = user_class(memo, ttl=None)(1)
        await user.profile
        del user.profile
        del user.plain
        assert await user.profile == [1, 2]
        with pytest.raises(AttributeError):
            user.profile = 5

    run(main)


@BACKENDS
def test_those_who_ask_an_object_at_once_share_one_run(backend):
    async def main():
        memo, _ = made()
        gate, got = Gate(), []
        user = user_class(memo, gate=gate)(1)

        async def ask():
            got.append(await user.profile)

        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(ask)
                await settled()
                for _ in range(10):
                    tasks.start_soon(ask)
                await settled()
                first.cancel_scope.cancel()
            await settled()
            gate.open.set()
        assert got == [[1, 2]] * 10
        assert type(user).profile.stats().collapsed == 9

    run(main, backend)


def test_a_run_that_was_begun_before_a_del_is_not_kept():
    async def main():
        memo, _ = made()
        gate = Gate()
        user = user_class(memo, gate=gate)(1)
        async with anyio.create_task_group() as tasks:

            async def ask():
                await user.profile

            tasks.start_soon(ask)
            await settled()
            del user.profile
            gate.open.set()
        assert await user.profile == [1, 2]

    run(main)


def test_an_error_of_a_property_is_not_kept():
    memo, _ = made()
    results = [ValueError("broken"), 5]

    class User:
        @memo.cached_property(ttl=60)
        def plain(self):
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

    user = User()
    with pytest.raises(ValueError, match="broken"):
        _ = user.plain
    assert user.plain == user.plain == 5
    assert User.plain.stats().errors == 1


def test_a_value_goes_with_its_object():
    memo, _ = made()
    user = user_class(memo)(1)
    user.plain.append(user)
    gone = ref(user)
    del user
    gc.collect()
    assert gone() is None


def test_a_class_with_cached_attributes_can_be_freed():
    memo, _ = made()
    gone = [ref(user_class(memo)), ref(service(memo, Calls()))]
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_a_property_goes_with_its_class():
    memo, _ = made()
    user_class(memo)
    gc.collect()
    left = [one for one in gc.get_objects() if type(one) is CachedProperty]
    assert [one for one in left if one._cache is memo._core] == []


class Pickled:
    def __init__(self, number):
        self.number = number

    @MEMO.cached_property(ttl=60)
    def plain(self):
        return [self.number]


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_of_an_object_works_its_own_out(copied):
    one = Pickled(1)
    assert one.plain == [1]
    other = copied(one)
    other.number = 2
    assert (other.plain, one.plain) == ([2], [1])


def test_an_object_without_a_dict_is_told_so():
    memo, _ = made()

    class Slotted:
        __slots__ = ()

        @memo.cached_property(ttl=60)
        def plain(self):
            return 1

    with pytest.raises(TypeError, match="Slotted has no __dict__"):
        _ = Slotted().plain


def test_a_property_is_asked_from_threads():
    memo, _ = made()
    gate, calls = threading.Event(), []

    class User:
        @memo.cached_property(ttl=60)
        def plain(self):
            calls.append(1)
            assert gate.wait(10)
            return "x"

    user, got = User(), []
    threads = [threading.Thread(target=lambda: got.append(user.plain)) for _ in range(5)]
    threads[0].start()
    while not calls:
        pass
    for thread in threads[1:]:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(10)
    assert (got, len(calls)) == (["x"] * 5, 1)
