"""Where settings come from, lowest first; each field is taken from the highest that names it.

    pyproject.toml        [tool.perf_middleware] of the working directory
    PERFORMANCE_CONFIG    a TOML file, sections at top level or below [tool.perf_middleware]
    environment           PERFORMANCE_<SECTION>_<FIELD>
    arguments             Settings(section={"field": value})

A source only says what was given, under which name and by whom.  Whether a value is allowed is for
the models to say, once, about the values that win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from perf_middleware.configuration.json_text import read_json
from perf_middleware.configuration.problems import (
    bad_section_value,
    given_twice,
    spelled_twice,
    unknown_env_name,
    unknown_key,
)
from perf_middleware.configuration.schema import CONFIG, PREFIX, Schema, Setting
from perf_middleware.configuration.toml_file import TomlFileError, TomlFileMissingError, load_toml
from perf_middleware.configuration.words import shown_name

if TYPE_CHECKING:
    from pathlib import Path

    from perf_middleware.configuration.json_text import Place

ARGUMENT = "argument"
PYPROJECT = "pyproject.toml"
TABLE = "perf_middleware"  # below [tool]


@dataclass(frozen=True, slots=True)
class Given:
    """One value, as some source gave it."""

    written: str  # the key as the user wrote it
    origin: str
    raw: Any  # as the user wrote it, for an error to show
    value: Any  # for the model to validate

    @classmethod
    def of(cls, setting: Setting, value: Any, *, written: str, origin: str, raw: Any) -> Given:
        # From here on only validation sees a secret's text: no repr and no debug log does.
        if setting.is_secret and isinstance(value, str):
            value = SecretStr(value)
        return cls(written, origin, raw, value)


@dataclass(slots=True)
class Gathered:
    """What was given, by key, and one sentence for each name or file that is wrong."""

    values: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def overlay(self, higher: Gathered) -> None:
        self.values.update(higher.values)
        self.problems.extend(higher.problems)


def gather(
    schema: Schema, arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path
) -> Gathered:
    """All sources as one; `directory` is where pyproject.toml and relative paths are looked for."""
    environment, config = read_environment(schema, environ)
    gathered = read_pyproject(schema, directory)
    if config:
        gathered.overlay(read_toml(schema, directory, config))
    gathered.overlay(environment)
    gathered.overlay(read_arguments(schema, arguments))
    return gathered


def read_environment(schema: Schema, environ: Mapping[str, str]) -> tuple[Gathered, str | None]:
    """The `PERFORMANCE_*` names in any case, and the path in PERFORMANCE_CONFIG if there is one."""
    gathered = Gathered()
    settings = {setting.env_name: setting for setting in schema.settings.values()}
    seen: dict[str, str] = {}
    for name, text in environ.items():
        upper = name.upper()
        if not upper.startswith(PREFIX):
            continue
        written = shown_name(name)
        if upper in seen:
            # Which of two spellings a process sees last is chance: neither may win silently.
            gathered.problems.append(spelled_twice(seen[upper], written))
            continue
        seen[upper] = written
        setting = settings.get(upper)
        if setting is not None:
            value, repeated = decode_text(setting, text)
            gathered.problems += [given_twice(written, place) for place in repeated]
            gathered.values[setting.key] = Given.of(
                setting, value, written=written, origin=written, raw=text
            )
        elif upper != PREFIX + CONFIG.upper():
            gathered.problems.append(unknown_env_name(schema, written, upper))
    config = PREFIX + CONFIG.upper()
    return gathered, next((text for name, text in environ.items() if name.upper() == config), None)


def decode_text(setting: Setting, text: str) -> tuple[Any, list[Place]]:
    """`text` as the model takes it: None, a list (JSON or comma separated), a table (JSON), text.

    Beside it the places of the names that its JSON gives twice.
    Text that is none of what the setting needs stays as it is: the model refuses it by name.
    """
    if _means_none(setting, text):
        return None, []
    stripped = text.strip()
    if (setting.is_sequence and stripped.startswith("[")) or (
        setting.is_table and stripped.startswith("{")
    ):
        try:
            return read_json(stripped)
        except (ValueError, RecursionError):
            return text, []
    if setting.is_sequence and setting.table is None:
        return [part.strip() for part in stripped.split(",")] if stripped else [], []
    return text, []


def _means_none(setting: Setting, value: Any) -> bool:
    if not (setting.is_optional and isinstance(value, str)):
        return False
    # A secret that came out empty was not injected: taking it for "none" would open what it guards.
    return value.strip().lower() in (("none",) if setting.is_secret else ("", "none"))


def read_pyproject(schema: Schema, directory: Path) -> Gathered:
    """`[tool.perf_middleware]` of pyproject.toml; nothing where there is no file or no table."""
    try:
        document = load_toml(directory / PYPROJECT)
    except TomlFileMissingError:
        return Gathered()
    except TomlFileError as error:
        return Gathered(problems=[f"{PYPROJECT} {error}"])
    tool = document.get("tool")
    if not isinstance(tool, dict):
        return Gathered()
    if TABLE in tool:
        return _read_table(schema, tool[TABLE], f"tool.{TABLE}", PYPROJECT)
    return Gathered(
        problems=[
            f"[tool.{name}] in {PYPROJECT} is not read: name the table [tool.{TABLE}]"
            for name in tool
            if name.lower().replace("-", "_") == TABLE
        ]
    )


def read_toml(schema: Schema, directory: Path, config: str) -> Gathered:
    """The file that PERFORMANCE_CONFIG names: its `[tool.perf_middleware]`, or all of it."""
    shown = shown_name(config)
    try:
        document = load_toml(directory / config)
    except TomlFileError as error:
        return Gathered(problems=[f"{shown} (from {PREFIX}{CONFIG.upper()}) {error}"])
    tool = document.get("tool")
    if isinstance(tool, dict) and TABLE in tool:
        return _read_table(schema, tool[TABLE], f"tool.{TABLE}", shown)
    return _read_table(schema, document, "", shown)


def read_arguments(
    schema: Schema, arguments: Mapping[str, Any], *, call: str = "Settings"
) -> Gathered:
    """The keyword arguments of `call`: sections as mappings or as section objects."""
    tree = {
        # Only what was set in an object counts, so that the environment still fills in the rest.
        name: {key: getattr(value, key) for key in value.model_fields_set}
        if name in schema.sections and isinstance(value, schema.sections[name])
        else value
        for name, value in arguments.items()
    }

    def spell(*path: str) -> str:
        """An argument as the user wrote it: `Settings(metrics={'path': …})`."""
        inner = f"{{{path[1]!r}: …}}" if len(path) > 1 else "…"
        return f"{call}({path[0]}={inner})"

    return _read_tree(schema, tree, ARGUMENT, spell)


def _read_table(schema: Schema, table: Any, above: str, file: str) -> Gathered:
    def spell(*path: str) -> str:
        return f"{'.'.join(filter(None, (above, *path)))} in {file}"

    if not isinstance(table, dict):
        return Gathered(problems=[f"{above} in {file} must be a table of settings"])
    return _read_tree(schema, table, file, spell)


def _read_tree(
    schema: Schema, tree: Mapping[str, Any], origin: str, spell: Callable[..., str]
) -> Gathered:
    """Sections of fields, as TOML and arguments both give them."""
    gathered = Gathered()

    def take(setting: Setting, value: Any, written: str) -> None:
        decoded = value
        # TOML has no null; a Python argument has, and its "none" is a text like any other.
        if origin != ARGUMENT and _means_none(setting, value):
            decoded = None
        gathered.values[setting.key] = Given.of(
            setting, decoded, written=written, origin=origin, raw=value
        )

    for name, value in tree.items():
        written = spell(shown_name(name))
        plain = schema.settings.get(name)
        if plain is not None and plain.section is None:
            take(plain, value, written)
        elif name not in schema.sections:
            gathered.problems.append(unknown_key(schema, written, name))
        elif not isinstance(value, Mapping):
            gathered.problems.append(bad_section_value(schema, written, name, origin == ARGUMENT))
        else:
            for inner, given in value.items():
                written = spell(name, shown_name(inner))
                setting = schema.settings.get(f"{name}.{inner}")
                if setting is None:
                    gathered.problems.append(unknown_key(schema, written, inner, section=name))
                else:
                    take(setting, given, written)
    return gathered
