"""What is wrong with the settings, one sentence each: the key as written, what is allowed, the
nearest name.  No sentence repeats the value of a secret, or of a key that is not known.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

from perf_middleware.configuration.schema import CONFIG, PREFIX, Schema, Setting
from perf_middleware.configuration.words import allowed_in_words, shown_name, shown_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel, ValidationError

    from perf_middleware.configuration.json_text import Place
    from perf_middleware.configuration.sources import Given


def unknown_env_name(schema: Schema, written: str, upper: str) -> str:
    """For a `PERFORMANCE_*` name that is no setting."""
    rest = upper.removeprefix(PREFIX).lower()
    section, separator, name = rest.partition("_")
    if section in schema.sections and not (separator and name):
        example = next(iter(schema.names_in(section)), "enabled")
        return (
            f"{written} names a section, not a setting: "
            f"name one of its settings, such as {PREFIX}{section.upper()}_{example.upper()}"
        )
    if difflib.get_close_matches(rest, (CONFIG,), cutoff=0.8):
        return f"{written} is not a setting; did you mean {PREFIX}{CONFIG.upper()} (a path)?"
    known = section if section in schema.sections else None
    nearest = schema.nearest_key(name, section=known) if known else schema.nearest_key(rest)
    if nearest is not None and nearest in schema.settings:
        setting = schema.settings[nearest]
        return (
            f"{written} is not a setting; did you mean {_with_allowed(setting.env_name, setting)}?"
        )
    return f"{written} is not a setting; {_what_there_is(schema, known)}"


def unknown_key(schema: Schema, written: str, name: object, *, section: str | None = None) -> str:
    """For a key of TOML or of the arguments that is no setting, or no section."""
    nearest = schema.nearest_key(str(name), section=section)
    if nearest is None:
        return f"{written} is not a setting; {_what_there_is(schema, section)}"
    setting = schema.settings.get(nearest)
    meant = nearest if setting is None else _with_allowed(nearest, setting)
    return f"{written} is not a setting; did you mean {meant}?"


def bad_section_value(schema: Schema, written: str, section: str, from_python: bool) -> str:
    """For a section that is given as something else than a table of its settings."""
    kind = f"a dict or {schema.sections[section].__name__}" if from_python else "a table"
    return f"{written} must be {kind}: {_what_there_is(schema, section)}"


def spelled_twice(one: str, other: str) -> str:
    return f"{one} and {other} name the same setting: keep one of them"


def given_twice(written: str, place: Place) -> str:
    """For a name that one table of the JSON in `written` gives more than once."""
    *above, name = place
    where = [f"item {at + 1}" if isinstance(at, int) else shown_name(at) for at in above]
    return f"{', '.join((written, *where))}: {shown_name(name)} is given twice: keep one of them"


def invalid_values(error: ValidationError, schema: Schema, given: Mapping[str, Given]) -> list[str]:
    """One sentence for each key that `error` refuses, in the order of the schema."""
    sentences: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        loc = detail["loc"]
        setting = schema.settings.get(".".join(map(str, loc[:1]))) or schema.settings.get(
            ".".join(map(str, loc[:2]))
        )
        if setting is None:
            # A check across fields: the model's own sentence, and no single key to blame.
            key = ".".join(map(str, loc)) or "settings"
            sentences.setdefault(key, f"{key}: {_own_words(detail) or detail['msg']}")
        else:
            inner = loc[setting.key.count(".") + 1 :]
            # Of a table each field, of any other value the first thing that is wrong with it.
            which = ".".join(map(str, (setting.key, *inner[: 2 if setting.table else 0])))
            if which not in sentences:
                sentences[which] = _invalid(setting, given.get(setting.key), inner, detail)
    return list(sentences.values())


def _invalid(
    setting: Setting, given: Given | None, inner: tuple[int | str, ...], detail: Any
) -> str:
    written = setting.key if given is None else given.written
    must = f"{written} must be {allowed_in_words(setting.info)}"
    if setting.is_secret:
        error = (detail.get("ctx") or {}).get("error")
        if getattr(error, "holds_no_value", False):
            return f"{written}: {error} (its value is a secret and not shown)"
        # Neither the value nor the words of a validator, which may repeat it.
        return f"{must} (its value is a secret and not shown)"
    if inner and setting.table is not None:
        return _invalid_in_table(written, setting.table, inner, detail)
    not_this = "" if given is None else f", not {shown_value(given.raw)}"
    own_words = _own_words(detail)
    if own_words:
        return f"{written}: {own_words}{not_this}"
    if setting.table is not None and given is not None and isinstance(given.raw, str):
        return f"{must}, written as JSON{_why_no_json(given.raw)}{not_this}"
    if inner and isinstance(inner[0], int):
        return f"{must}{not_this} (item {inner[0] + 1})"
    return f"{must}{not_this}"


def _invalid_in_table(
    written: str, table: type[BaseModel], inner: tuple[int | str, ...], detail: Any
) -> str:
    """For one of a list of tables, or one of its fields."""
    first, *rest = inner
    where = f"{written}, item {first + 1}" if isinstance(first, int) else written
    not_this = f", not {shown_value(detail['input'])}"
    fields = table.model_fields
    if not rest:
        what = _own_words(detail)
        return f"{where}: {what}" if what else f"{where} must be a table of {', '.join(fields)}"
    name = str(rest[0])
    if name not in fields:
        nearest = difflib.get_close_matches(name.lower(), fields, n=1)
        meant = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(fields)}"
        return f"{where}: {shown_name(name)} is not a setting of it; {meant}"
    if detail["type"] == "missing":
        return f"{where} needs {name}: {fields[name].description}"
    own_words = _own_words(detail)
    if own_words:
        return f"{where}: {name}: {own_words}{not_this}"
    return f"{where}: {name} must be {allowed_in_words(fields[name])}{not_this}"


def _why_no_json(text: str) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f" ({error.msg} at character {error.pos + 1})"
    except (ValueError, RecursionError):
        return ""
    return ""


def _own_words(detail: Any) -> str | None:
    """The sentence of a validator of ours, None for one of pydantic's."""
    if detail["type"] not in ("value_error", "assertion_error"):
        return None
    return str(detail["ctx"]["error"])


def _with_allowed(name: str, setting: Setting) -> str:
    return f"{name} ({allowed_in_words(setting.info)})"


def _what_there_is(schema: Schema, section: str | None) -> str:
    if section is not None:
        return f"the settings of {section} are {', '.join(schema.names_in(section))}"
    plain = [setting.name for setting in schema.settings.values() if setting.section is None]
    return f"there are {', '.join(plain)} and the sections {', '.join(schema.sections)}"
