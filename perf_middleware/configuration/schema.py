"""The settings that exist, read from the models: their keys, names and kinds.

    key              metrics.buckets_s               service
    environment      PERFORMANCE_METRICS_BUCKETS_S   PERFORMANCE_SERVICE
    TOML             [metrics] buckets_s             service

A section's name has no underscore, so an environment name splits at its first one.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from pydantic.fields import FieldInfo

PREFIX = "PERFORMANCE_"
CONFIG = "config"  # PERFORMANCE_CONFIG names a TOML file and is no setting itself


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: where it stands, and the field that validates it."""

    section: str | None  # None: a field of Settings itself
    name: str
    info: FieldInfo

    @property
    def key(self) -> str:
        return self.name if self.section is None else f"{self.section}.{self.name}"

    @property
    def env_name(self) -> str:
        return PREFIX + self.key.replace(".", "_").upper()

    @property
    def is_optional(self) -> bool:
        """Whether None is a value of it, written `none` in TOML and the environment."""
        return NoneType in _parts(self.info.annotation)

    @property
    def is_secret(self) -> bool:
        """Whether it is a secret or contains one."""
        return _any_is(self._all_parts, SecretStr, SecretBytes, Secret)

    @property
    def is_sequence(self) -> bool:
        return _any_is(_parts(self.info.annotation), tuple, list, set, frozenset)

    @property
    def is_table(self) -> bool:
        return _any_is(_parts(self.info.annotation), dict, BaseModel)

    @property
    def table(self) -> type[BaseModel] | None:
        """The model of the tables that it is a list of, or None."""
        for part in self._all_parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                return part
        return None

    @property
    def _all_parts(self) -> tuple[Any, ...]:
        return _parts(self.info.annotation, deep=True)


@dataclass(frozen=True, slots=True)
class Schema:
    """Every setting by its key, and every section by its name, in the order of the models."""

    settings: Mapping[str, Setting]
    sections: Mapping[str, type[Section]]
    _key_of_spelling: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, model: type[BaseModel]) -> Schema:
        """The schema of `model`, whose fields are sections or plain settings."""
        settings: list[Setting] = []
        sections: dict[str, type[Section]] = {}
        for name, info in model.model_fields.items():
            kind = info.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                if "_" in name or name == CONFIG:
                    raise TypeError(f"a section cannot be named {name!r}: see {__name__}")
                sections[name] = kind
                settings.extend(Setting(name, *item) for item in kind.model_fields.items())
            else:
                settings.append(Setting(None, name, info))
        spellings = {setting.key.replace(".", "_"): setting.key for setting in settings}
        spellings.update({name: name for name in sections})
        return cls({setting.key: setting for setting in settings}, sections, spellings)

    def names_in(self, section: str) -> AbstractSet[str]:
        return self.sections[section].model_fields.keys()

    def nearest_key(self, spelling: str, *, section: str | None = None) -> str | None:
        """The key (or section) that `spelling` most likely means, None where nothing is like it.

        `spelling` is a name inside of `section`, or a whole one such as `metrcs_enabled`.
        """
        if section is not None:
            found = difflib.get_close_matches(spelling.lower(), self.names_in(section), n=1)
            return f"{section}.{found[0]}" if found else None
        found = difflib.get_close_matches(spelling.lower(), self._key_of_spelling, n=1)
        return self._key_of_spelling[found[0]] if found else None


def _any_is(parts: Iterable[Any], *kinds: type) -> bool:
    classes = (get_origin(part) or part for part in parts)
    return any(isinstance(kind, type) and issubclass(kind, kinds) for kind in classes)


def _parts(annotation: Any, *, deep: bool = False) -> tuple[Any, ...]:
    """The members of a union, or the type itself; `deep` adds what lists and tables contain."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _parts(get_args(annotation)[0], deep=deep)
    if origin in (Union, UnionType):
        return tuple(part for arg in get_args(annotation) for part in _parts(arg, deep=deep))
    if not deep:
        return (annotation,)
    inner: Iterable[Any] = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [info.annotation for info in annotation.model_fields.values()]
    return (annotation, *(part for arg in inner for part in _parts(arg, deep=True)))
