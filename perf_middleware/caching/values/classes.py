"""The classes whose objects may come back from bytes, by name: what is not known here is a miss.

Objects are rebuilt as `copy` does it, without `__init__` or validators: what was put in comes back,
with what a dataclass holds beside its fields (of its `__post_init__`, say).
Names of fields and their annotations are part of a class's record, so that a value written by
another version of the program, whose class had other fields, is a miss and not a broken object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

from perf_middleware.caching.values.keys import name_of
from perf_middleware.errors import UnpackableValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRIES_MAX: Final = 100  # of an annotation that cannot be read
NESTED_MAX: Final = 1_000  # classes that one annotation may lead to
PLACE: Final = "_perf_cached_"
"""How the names begin under which objects hold what their cached properties worked out."""
_MADE_IN_PYTHON: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE, which `copyreg` looks at for the same reason
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_MODEL_STATE: Final = (
    "__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allowed:
    """One class: `take` gives the state of an object, `make` an object of such a state.

    `make` raises ValueError for a state that is none of this class.
    """

    cls: type
    name: str
    take: Callable[[Any], Any]
    make: Callable[[Any], Any]


class Classes:
    """Which classes may come back; each under one name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Allowed] = {}
        self._by_class: dict[type, Allowed] = {}
        self._to_learn: dict[Callable[..., Any], int] = {}  # and how often it was tried

    def register(self, cls: type, *, name: str | None = None) -> None:
        """Allow `cls` and the classes that its fields are annotated with.

        Raises TypeError for what is no dataclass, pydantic model, enum or named tuple, ValueError
        for a name that another class has.
        """
        if _allowed(cls, "") is None:
            raise TypeError(f"{cls!r} is no dataclass, pydantic model, enum or named tuple")
        if name is None:
            self._allow_all([cls])
            return
        taken = self._by_name.get(name)
        if taken is not None and taken.cls is not cls:
            raise ValueError(f"{name!r} is the name of {taken.cls!r}")
        self._allow_all(list(_hints(cls)))
        self._allow(cls, name)

    def learn(self, function: Callable[..., Any]) -> None:
        """Allow the classes of what `function` is annotated to return.

        An annotation that names what is not defined yet is read again when a class is looked for.
        """
        try:
            returned = get_type_hints(function).get("return")
        except Exception:  # noqa: BLE001 - annotations are any code
            tries = self._to_learn[function] = self._to_learn.get(function, 0) + 1
            if tries > TRIES_MAX:
                del self._to_learn[function]
            return
        self._to_learn.pop(function, None)
        self._allow_all([returned])

    def of(self, cls: type) -> Allowed | None:
        """What is known of a class."""
        if cls not in self._by_class:
            self._learn_later()
        return self._by_class.get(cls)

    def named(self, name: object) -> Allowed:
        """The class of this name.  Raises KeyError."""
        if name not in self._by_name:
            self._learn_later()
        return self._by_name[name]  # type: ignore[index]

    def _learn_later(self) -> None:
        for function in list(self._to_learn):
            self.learn(function)

    def _allow_all(self, annotations: list[Any]) -> None:
        left = annotations
        for _ in range(NESTED_MAX):
            if not left:
                return
            annotation = left.pop()
            left += get_args(annotation)
            cls = get_origin(annotation) or annotation
            if not isinstance(cls, type):
                left += [cls.__value__] if hasattr(cls, "__value__") else []  # type X = ...
            elif cls not in self._by_class and self._allow(cls, name_of(cls)):
                left += _hints(cls)

    def _allow(self, cls: type, name: str) -> bool:
        allowed = _allowed(cls, name)
        if allowed is None:
            return False
        before = self._by_name.get(name)
        if before is not None and before.cls is not cls:
            self._by_class.pop(before.cls, None)  # a module that was loaded again
        self._by_name[name] = self._by_class[cls] = allowed
        return True


def _hints(cls: type) -> Iterator[Any]:
    if issubclass(cls, Enum):
        return
    models = getattr(cls, "model_fields", None)
    if isinstance(models, dict):
        yield from [field.annotation for field in models.values()]
        return
    try:
        yield from get_type_hints(cls).values()
    except Exception:  # noqa: BLE001 - annotations are any code; what is in them is not allowed
        return


def _allowed(cls: Any, name: str) -> Allowed | None:
    if not isinstance(cls, type):
        return None
    if issubclass(cls, Enum):
        return Allowed(cls, name, _value_of_enum, cls)
    if is_dataclass(cls):
        return _of_dataclass(cls, name)
    if isinstance(getattr(cls, "model_fields", None), dict):
        return _of_model(cls, name)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        names = cls._fields
        return Allowed(cls, name, _items_of, lambda state: _tuple_of(cls, names, state))
    return None


def _value_of_enum(member: Enum) -> Any:
    return member.value


def _items_of(value: Any) -> Any:
    if getattr(value, "__dict__", None):  # of a class below the named tuple
        raise UnpackableValueError(name_of(type(value)), "it has attributes beside its fields")
    return list(value)


def _tuple_of(cls: Any, names: tuple[str, ...], state: Any) -> Any:
    if type(state) is not list or len(state) != len(names):
        raise ValueError("other fields")
    return tuple.__new__(cls, state)


def _of_dataclass(cls: Any, name: str) -> Allowed:
    names = [field.name for field in fields(cls)]
    known = frozenset(names)
    shape = _digest([f"{field.name}: {field.type}" for field in fields(cls)])
    native = next(base for base in cls.__mro__ if not base.__flags__ & _MADE_IN_PYTHON)

    def take(value: Any) -> Any:
        if native is not object:  # what a list with fields holds is in none of them
            raise UnpackableValueError(name, f"its fields are not all of it: {native.__name__}")
        values = [getattr(value, name) for name in names]
        beside = _beside_fields(value, known)
        return [shape, values, beside] if beside else [shape, values]

    def make(state: Any) -> Any:
        beside: Any = None
        if type(state) is list and len(state) == 3:
            *state, beside = state
        values = _state_of(shape, state)
        if type(values) is not list or len(values) != len(names):
            raise ValueError("other fields")
        if beside is not None and (type(beside) is not dict or not cls.__dictoffset__):
            raise ValueError("other attributes")
        made = cls.__new__(cls)
        for name, value in zip(names, values, strict=True):
            object.__setattr__(made, name, value)
        if beside:
            made.__dict__.update(beside)
        return made

    return Allowed(cls, name, take, make)


def _beside_fields(value: Any, names: frozenset[str]) -> dict[str, Any] | None:
    """What an object holds that is no field, but for what it can work out again."""
    inside = getattr(value, "__dict__", None)
    if not inside or inside.keys() <= names:
        return None
    return {
        name: held
        for name, held in inside.items()
        if not (
            name in names
            or name.startswith(PLACE)
            or isinstance(getattr(type(value), name, None), cached_property)
        )
    }


def _of_model(cls: Any, name: str) -> Allowed:
    shape = _digest([f"{name}: {field.annotation!r}" for name, field in cls.model_fields.items()])
    names = frozenset(cls.model_fields)
    is_root = getattr(cls, "__pydantic_root_model__", False)

    def take(value: Any) -> Any:
        state = value.__getstate__()
        inside, extra, given, private = (state.get(part) for part in _MODEL_STATE)
        own = {name: inside[name] for name in inside if name in names}  # no cached property
        return [shape, [own, extra, sorted(given), private]]

    def make(state: Any) -> Any:
        values = _state_of(shape, state)
        if type(values) is not list or len(values) != len(_MODEL_STATE):
            raise ValueError("other fields")
        inside, extra, given, private = values
        if not (
            isinstance(inside, dict)
            and inside.keys() <= names
            and isinstance(extra, dict | None)
            and isinstance(given, list)
            and isinstance(private, dict | None)
        ):
            raise ValueError("other fields")
        made = cls.__new__(cls)
        for part, value in zip(_MODEL_STATE, (inside, extra, set(given), private), strict=True):
            if value is not None or not is_root:  # a root model has neither of the two
                object.__setattr__(made, part, value)
        return made

    return Allowed(cls, name, take, make)


def _state_of(shape: str, state: Any) -> Any:
    if type(state) is not list or len(state) != 2 or state[0] != shape:
        raise ValueError("written by a class with other fields")
    return state[1]


def _digest(lines: list[str]) -> str:
    text = _ADDRESS.sub("", "\n".join(lines))  # of a validator, say: another in every process
    return blake2b(text.encode(), digest_size=8).hexdigest()
