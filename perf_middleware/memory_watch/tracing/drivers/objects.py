"""The objects that the garbage collector knows: how many, how long, and who holds them.

Nothing that is looked at is kept.  Each call reads all objects of the process: per million of them
14 ms for the list and 17 ms for their types, in which no other thread runs (CPython 3.11, shared
two-core machine), and some 40 ms in which others do.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from itertools import chain
from types import CellType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.memory_watch.tracing.counts import longest

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE: Final = 20_000  # half a millisecond of counting in C, then others may run
LENGTH_MIN: Final = 1_000
CONTAINERS_MAX: Final = 10_000
KINDS: Final = frozenset((list, dict, set, deque, OrderedDict, defaultdict, Counter))
"""By their exact type: the length of anybody else's class would run anybody else's code."""

SEARCHES_MAX: Final = 12
"""Searches for holders in one call: each goes through all objects, 17 ms per million."""

DEPTH_MAX: Final = 3  # a list in a dict in an attribute
HOLDERS_MAX: Final = 50


def count_types() -> dict[str, int]:
    """Objects by the name of their type; each look at an object lasts for that one line."""
    kinds = list(map(type, gc.get_objects()))
    counts: Counter[type] = Counter()
    for start in range(0, len(kinds), SLICE):
        counts.update(kinds[start : start + SLICE])
    named: dict[str, int] = {}
    for kind, count in counts.items():
        name = type_name(kind)
        named[name] = named.get(name, 0) + count
    return named


def type_name(kind: type) -> str:
    """`module.Class`; builtins without their module."""
    # Asked of `type` itself: a metaclass may answer with code of its own.
    name = str(type.__getattribute__(kind, "__qualname__"))
    module = type.__getattribute__(kind, "__module__")
    return f"{module}.{name}" if type(module) is str and module != "builtins" else name


def look_at_containers(
    *, length_min: int = LENGTH_MIN, containers_max: int = CONTAINERS_MAX
) -> dict[int, tuple[str, int]]:
    """Kind and length by identity of every container that has at least `length_min` items.

    A dict of plain values is not known to the garbage collector before Python 3.14, so what modules
    hold is looked at as well.
    """
    return longest(
        (
            (id(found), type(found).__name__, len(found))
            for found in chain(gc.get_objects(), (value for _, _, value in module_globals()))
            if type(found) in KINDS and len(found) >= length_min
        ),
        containers_max=containers_max,
    )


def module_globals() -> Iterator[tuple[str, str, Any]]:
    """Module, name and value of all that modules hold; no module is asked for anything."""
    for module in list(sys.modules.values()):
        if is_instance(module, ModuleType):
            namespace = object.__getattribute__(module, "__dict__")
            name = str(namespace.get("__name__", "?"))
            for key, value in list(namespace.items()):
                yield name, str(key), value


def name_holders(identities: frozenset[int]) -> dict[int, str]:
    """Who holds each of these objects: a module's global, an attribute, a function's closure.

    What is not there any more, or is held by nobody with a name within a few steps, is left out.
    """
    search = _Search()
    names = {identity: search.globals[identity] for identity in identities & search.globals.keys()}
    wanted = identities - names.keys()
    objects = {id(found): found for found in gc.get_objects() if id(found) in wanted}
    for identity, found in objects.items():
        name = search.name(found, DEPTH_MAX, hidden=(objects,))
        if name:
            names[identity] = name
    return names


class _Search:
    """Goes from an object to who refers to it, a bounded number of times."""

    def __init__(self) -> None:
        self.left = SEARCHES_MAX
        self.globals: dict[int, str] = {}
        for module, key, value in module_globals():
            self.globals.setdefault(id(value), f"{module}.{key}")

    def name(self, target: Any, depth: int, *, hidden: tuple[Any, ...]) -> str:
        """Who holds `target`, in at most `depth` steps; empty where nobody is found."""
        if id(target) in self.globals:
            return self.globals[id(target)]
        holders = self.holders(target, hidden)
        for holder in holders:
            name = _held_by(holder, target)
            if name:
                return name
        for holder in holders:
            if type(holder) is CellType:
                name = self.variable(holder, (*hidden, holders))
                if name:
                    return name
        further = [holder for holder in holders if type(holder) in (dict, tuple, list)]
        for holder in further[:2] if depth > 1 else ():
            name = self.name(holder, depth - 1, hidden=(*hidden, holders, further))
            if name:
                return name + _key_of(holder, target)
        return ""

    def variable(self, cell: CellType, hidden: tuple[Any, ...]) -> str:
        """The variable of an enclosing function that `cell` is, for the functions inside."""
        closures = [held for held in self.holders(cell, hidden) if type(held) is tuple]
        for closure in closures[:2]:
            for function in self.holders(closure, (*hidden, closures)):
                if is_instance(function, FunctionType) and function.__closure__ is closure:
                    where = next(at for at, held in enumerate(closure) if held is cell)
                    outer = function.__qualname__.rpartition(".")[0]
                    variable = function.__code__.co_freevars[where]
                    return ".".join(filter(None, (str(function.__module__), outer, variable)))
        return ""

    def holders(self, target: Any, hidden: tuple[Any, ...]) -> list[Any]:
        """Who refers to `target`, a bounded number; nobody when all searches are used up."""
        if self.left <= 0:
            return []
        self.left -= 1
        mine = {id(hidden), *map(id, hidden)}
        return [
            holder
            for holder in gc.get_referrers(target)
            if id(holder) not in mine and not is_instance(holder, FrameType)
        ][:HOLDERS_MAX]


def _held_by(holder: Any, target: Any) -> str:
    """The name of `target` at `holder`, where that is a module, a class or another object."""
    if type(holder) in KINDS or is_instance(holder, tuple, CellType, FunctionType):
        return ""
    if is_instance(holder, ModuleType):
        return str(object.__getattribute__(holder, "__dict__").get("__name__", ""))
    if is_instance(holder, type) and type(target) is dict:
        return type_name(holder)  # its namespace
    kind = holder if is_instance(holder, type) else type(holder)
    for name, value in _attributes(holder):
        if value is target:
            return f"{type_name(kind)}.{name}"
    try:
        if object.__getattribute__(holder, "__dict__") is target:
            return type_name(kind)
    except Exception:  # noqa: BLE001 - anybody's class: it has no such dict, or does not show it
        pass
    return ""


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    try:
        if is_instance(holder, type):
            yield from list(type.__getattribute__(holder, "__dict__").items())
            return
        for kind in type(holder).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else tuple(slots):
                member = kind.__dict__.get(slot)
                if member is not None and type(member).__name__ == "member_descriptor":
                    try:
                        yield slot, member.__get__(holder)
                    except AttributeError:  # not set
                        continue
        yield from list(object.__getattribute__(holder, "__dict__").items())
    except Exception:  # noqa: BLE001 - anybody's class: what it does not show is not named
        return


def is_instance(found: Any, *kinds: type) -> bool:
    """Whether it is one of `kinds`, without asking it for its `__class__` as isinstance does: a
    proxy would run anybody's code for that.
    """
    return issubclass(type(found), kinds)


def _key_of(holder: Any, target: Any) -> str:
    """How `target` is called in a holder that has no name itself."""
    if type(holder) is dict:
        for key, value in list(holder.items()):
            if value is target:
                return f".{key}" if type(key) is str and key.isidentifier() else "[…]"
    return "[…]" if type(holder) in (list, tuple) else ""
