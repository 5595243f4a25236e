"""The settings of a layer that stands alone: arguments, and nothing from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from perf_middleware.configuration.problems import invalid_values
from perf_middleware.configuration.schema import Schema
from perf_middleware.configuration.sources import read_arguments
from perf_middleware.errors import SettingsError
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

S = TypeVar("S", bound=Section)


def require_whole(given: object, kind: type, settings: Mapping[str, Any], *, call: str) -> None:
    """`given`, in the place of settings, is a `kind` that exists already, and `settings` are none.

    Raises TypeError.
    """
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    if not isinstance(given, kind):
        raise TypeError(
            f"{call} takes its settings by name, or {article} {kind.__name__}, not a "
            f"{type(given).__name__}"
        )
    if settings:
        raise TypeError(
            f"{article} {kind.__name__} has its settings: {call} takes no {', '.join(settings)} "
            "beside it"
        )


def section_of(model: type[S], arguments: Mapping[str, Any], *, call: str) -> S:
    """`model` with these values, given to `call`.

    Raises SettingsError, which names each argument that is wrong as Settings does.
    """
    schema = Schema.of(model)
    gathered = read_arguments(schema, arguments, call=call)
    problems = gathered.problems
    try:
        section = model(**{key: given.value for key, given in gathered.values.items()})
    except ValidationError as error:
        problems.extend(invalid_values(error, schema, gathered.values))
    if problems:
        # Raised out here so that no error in its context holds the refused values.
        raise SettingsError(tuple(problems))
    return section
