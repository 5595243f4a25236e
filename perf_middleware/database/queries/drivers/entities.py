"""Objects of mapped classes as plain values, with what was loaded together with them, and back.

    [classes]  name, and a digest of what its objects are made of
    [shapes]   names of the columns that were loaded
    [records]  class, shape, token, primary key, values, relations (name, record or records)

They come back into a session as if they had just been loaded: persistent, unchanged, and what was
not loaded is loaded when it is asked for.  One that the session has already stays as it is, and
gets only what it lacks, as with any query.  Classes are those mapped beside the statement's own: no
name that is stored is imported.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy.orm import collections
from sqlalchemy.orm.attributes import instance_state

from perf_middleware.database.queries.drivers.cells import Unstorable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import InstanceState, Mapper, Session

    from perf_middleware.database.queries.drivers.cells import Cells
    from perf_middleware.database.queries.drivers.naming import Names

OBJECTS_MAX: Final = 100_000
Graph = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


class Changed(Exception):  # noqa: N818 - an answer within this feature: what is kept is a miss
    """What is kept was made of classes that are others now."""


class Entities:
    """Makes graphs and reads them; the classes are those of the statement's own registries."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._digests: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._known: dict[str, Mapper[Any] | None] = {}

    def digest(self, mapper: Mapper[Any]) -> str:
        """What tells another version of a class apart.  Raises Nameless."""
        known = self._digests.get(mapper)
        if known is None:
            text = self._names.of_mapper(mapper).encode("utf-8", "surrogatepass")
            known = self._digests[mapper] = blake2b(text, digest_size=8).hexdigest()
        return known

    def graph(self, found: Iterable[Any], cells: Cells) -> tuple[Graph, list[InstanceState[Any]]]:
        """The graph of `found`, whose records are in its order, and the states of all objects.

        Raises Unstorable and Nameless.
        """
        return _Writing(self, cells).graph(found)

    def objects(self, graph: Graph, session: Session, near: Iterable[Mapper[Any]]) -> list[Any]:
        """The objects of a graph's records, in `session`.  Raises Changed."""
        classes, shapes, records = graph
        known = self._known
        if not all(name in known for name, _ in classes):
            known |= _classes_near(near)
        mappers = []
        for name, digest in classes:
            mapper = known.get(name)
            if mapper is None or self.digest(mapper) != digest:
                raise Changed(name)
            mappers.append(mapper)
        return _objects(mappers, shapes, records, session)


class _Writing:
    """One graph on its way."""

    def __init__(self, entities: Entities, cells: Cells) -> None:
        self._entities = entities
        self._cells = cells
        self._at: dict[int, int] = {}  # by id: all are held by `_states`
        self._states: list[InstanceState[Any]] = []
        self._objects: list[Any] = []
        self._classes: dict[Mapper[Any], int] = {}
        self._shapes: dict[tuple[str, ...], int] = {}

    def graph(self, found: Iterable[Any]) -> tuple[Graph, list[InstanceState[Any]]]:
        for each in found:
            self._place(each)
        records: list[Any] = []
        while len(records) < len(self._states):  # it grows by what is met
            records.append(self._record(self._states[len(records)]))
        classes = tuple(
            (_name_of(mapper), self._entities.digest(mapper)) for mapper in self._classes
        )
        return (classes, tuple(self._shapes), tuple(records)), self._states

    def _place(self, found: Any) -> int:
        at = self._at.get(id(found))
        if at is None:
            if len(self._objects) >= OBJECTS_MAX:
                raise Unstorable(found)
            at = self._at[id(found)] = len(self._objects)
            self._objects.append(found)
            self._states.append(instance_state(found))
        return at

    def _record(self, state: InstanceState[Any]) -> tuple[Any, ...]:
        mapper, loaded = state.mapper, state.dict
        columns = tuple([each.key for each in mapper.column_attrs if each.key in loaded])
        relations = []
        for relation in mapper.relationships:
            name = relation.key
            if name in loaded:
                relations.append((name, self._related(loaded[name], relation.uselist)))
        _, primary_key, token = state.key or (None, (), None)
        return (
            self._classes.setdefault(mapper, len(self._classes)),
            self._shapes.setdefault(columns, len(self._shapes)),
            self._cells.cell(token),
            self._cells.row(primary_key),
            self._cells.row([loaded[name] for name in columns]),
            tuple(relations),
        )

    def _related(self, value: Any, is_several: bool | None) -> Any:
        if not is_several:
            return None if value is None else self._place(value)
        members = collections.collection_adapter(value)
        return tuple([self._place(each) for each in members or ()])


class _Making:
    """Objects of one class of which the same columns are there."""

    __slots__ = ("identity", "is_told", "make", "manager", "names", "told", "unloaded")

    def __init__(self, mapper: Mapper[Any], names: tuple[str, ...], session: Session) -> None:
        manager: Any = mapper.class_manager
        self.make = manager.new_instance
        self.manager = manager
        self.identity = mapper.identity_key_from_primary_key(())[0]
        self.names = names
        self.unloaded = [each.key for each in mapper.column_attrs if each.key not in names]
        self.told = manager.dispatch.load
        self.is_told = bool(manager.dispatch.load or session.dispatch.loaded_as_persistent)


def _objects(mappers: list[Any], shapes: Any, records: Any, session: Session) -> list[Any]:
    """As SQLAlchemy's own loading does it (orm/loading.py, `_instance`)."""
    identities: Any = session.identity_map
    session_id = session.hash_key
    makings: dict[tuple[int, int], _Making] = {}
    made: list[Any] = []
    fresh: list[tuple[Any, _Making]] = []
    for class_at, shape_at, token, primary_key, values, _ in records:
        making = makings.get((class_at, shape_at))
        if making is None:
            making = _Making(mappers[class_at], shapes[shape_at], session)
            makings[class_at, shape_at] = making
        key = (making.identity, primary_key, token)
        found = identities.get(key)
        if found is None:
            found = making.make()
            state = instance_state(found)
            state.dict.update(zip(making.names, values, strict=True))
            state.key, state.identity_token, state.session_id = key, token, session_id
            identities._add_unpresent(state, key)  # noqa: SLF001 no public name
            fresh.append((state, making))
        else:
            state = instance_state(found)
            for name, value in zip(making.names, values, strict=True):
                if name not in state.dict:
                    making.manager[name].impl.set_committed_value(state, state.dict, value)
        made.append(found)
    for found, record in zip(made, records, strict=True):
        if record[-1]:
            _relate(instance_state(found), makings[record[0], record[1]], record[-1], made)
    for state, making in fresh:
        if making.unloaded:
            state._expire_attributes(state.dict, making.unloaded)  # noqa: SLF001 the same
        if making.is_told:
            making.told(state, None)
            session.dispatch.loaded_as_persistent(session, state)
    return made


def _relate(state: Any, making: _Making, relations: Any, made: list[Any]) -> None:
    for name, related in relations:
        if name in state.dict:
            continue
        if type(related) is tuple:
            members: Any = [made[at] for at in related]
        else:
            members = None if related is None else made[related]
        making.manager[name].impl.set_committed_value(state, state.dict, members)


def _classes_near(near: Iterable[Mapper[Any]]) -> dict[str, Mapper[Any] | None]:
    """All classes of the same registries by name; None where two have one name."""
    known: dict[str, Mapper[Any] | None] = {}
    for registry in {mapper.registry for mapper in near}:
        for mapper in registry.mappers:
            name = _name_of(mapper)
            known[name] = mapper if name not in known else None
    return known


def _name_of(mapper: Mapper[Any]) -> str:
    return f"{mapper.class_.__module__}.{mapper.class_.__qualname__}"
