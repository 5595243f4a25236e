"""The text of a statement's cache key: the same in every process, another for another statement.

SQLAlchemy's own cache key (`_generate_cache_key`) tells apart what compiles or loads differently:
types, loader options, annotations, all but the values.  It is a tuple of Python objects; here each
becomes text.  A table is its name, its columns and their types; a mapped class its name, its table
and its attributes.  What has no text that is the same elsewhere (a lambda, a class inside of a
function) gets a number of this process; what has none at all makes the statement nameless.
"""

from __future__ import annotations

import secrets
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy.orm import Mapper
from sqlalchemy.orm.interfaces import MapperProperty
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.sql.schema import Column, Table
from sqlalchemy.sql.selectable import TableClause
from sqlalchemy.types import TypeEngine

NODES_MAX: Final = 20_000
LOCALS_MAX: Final = 1_000
_PLAIN: Final = frozenset({str, int, float, bool, bytes, complex, type(None)})


class Nameless(Exception):  # noqa: N818 - an answer within this feature: the statement is not cached
    """`what` has no text of its own."""

    def __init__(self, what: object) -> None:
        super().__init__(what)
        self.what = what


class Names:
    """Texts of cache keys; what is looked at twice is kept."""

    def __init__(self) -> None:
        self._tables: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._mappers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._process = secrets.token_hex(8)
        self._locals: dict[Any, str] = {}  # holds on to them: their numbers are not given again

    def of_key(self, key: tuple[Any, ...]) -> str:
        """The text of a cache key.  Raises Nameless."""
        parts: list[str] = []
        self._write(key, parts)
        return "".join(parts)

    def of_type(self, type_: TypeEngine[Any]) -> str:
        """The text of a column's type.  Raises Nameless for one that says it cannot be cached."""
        key = type_._static_cache_key  # noqa: SLF001 no public name
        if not isinstance(key, tuple):
            raise Nameless(type_)
        return self.of_key(key)

    def of_mapper(self, mapper: Mapper[Any]) -> str:
        """A mapped class: what its objects are made of."""
        text = self._mappers.get(mapper)
        if text is None:
            columns = ",".join(
                f"{each.key}:{self.of_type(each.columns[0].type)}" for each in mapper.column_attrs
            )
            loaded = ",".join(f"{each.key}:{each.lazy}" for each in mapper.relationships)
            text = self._mappers[mapper] = f"<{self._class(mapper.class_)}({columns};{loaded})>"
        return text

    def _write(self, value: Any, parts: list[str]) -> None:
        if len(parts) > NODES_MAX:
            raise Nameless(value)
        kind = type(value)
        if kind in _PLAIN:
            parts.append(repr(value) + " ")
        elif kind is tuple or kind is list:
            parts.append("(")
            for inner in value:
                self._write(inner, parts)
            parts.append(")")
        elif kind is dict or kind is frozenset or kind is set:
            inside = value.items() if kind is dict else value
            texts = sorted(self.of_key((inner,)) for inner in inside)
            parts.append("{" + ",".join(texts) + "}")
        elif isinstance(value, quoted_name):
            parts.append(f"q{str(value)!r}{value.quote} ")
        elif isinstance(value, Enum):
            parts.append(f"{self._class(kind)}.{value.name} ")
        else:
            parts.append(self._named(value) + " ")

    def _named(self, value: Any) -> str:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, Mapper):
            return self.of_mapper(value)
        if isinstance(value, TableClause):
            return self._table(value)
        if isinstance(value, Column) and isinstance(value.table, Table):
            return f"{self._table(value.table)}.{value.key!r}"
        if isinstance(value, MapperProperty):
            return f"{self.of_mapper(value.parent)}.{value.key!r}"
        if isinstance(value, TypeEngine):
            return self.of_type(value)
        if isinstance(value, FunctionType | BuiltinFunctionType):
            return self._at_home(value)
        if isinstance(value, MethodType):
            return f"{self._at_home(value.__func__)}@{self._local(value.__self__)}"
        key = getattr(value, "_generate_cache_key", None)
        if key is not None and not isinstance(value, type):
            own = key()
            if own is not None and not own.bindparams:
                return f"{self._class(type(value))}{self.of_key(own.key)}"
        raise Nameless(value)

    def _table(self, table: TableClause) -> str:
        text = self._tables.get(table)
        if text is None:
            columns = ",".join(f"{c.key!r}:{c.name!r}:{self.of_type(c.type)}" for c in table.c)
            schema = getattr(table, "schema", None)
            text = self._tables[table] = f"<{schema!r}.{table.name!r}({columns})>"
        return text

    def _class(self, cls: type) -> str:
        return self._at_home(cls)

    def _at_home(self, value: Any) -> str:
        """Where it is defined; with a number of this process where that is inside of a function."""
        module = getattr(value, "__module__", None) or "?"
        name = getattr(value, "__qualname__", None) or repr(type(value))
        full = f"{module}.{name}"
        return f"{full}#{self._local(value)}" if "<" in name else full

    def _local(self, value: Any) -> str:
        try:
            number = self._locals.get(value)
            if number is None:
                if len(self._locals) >= LOCALS_MAX:
                    raise Nameless(value)
                number = self._locals[value] = f"{self._process}.{len(self._locals)}"
        except TypeError:  # it cannot be a key
            raise Nameless(value) from None
        return number
