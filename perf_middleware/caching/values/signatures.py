"""From the arguments of a call to its key and its tags, by a function made once for each function.

    async def load(user_id, /, limit=10, *, session): ...       exclude=("session",)

    def load(user_id, /, limit=d1, *, session):                 what is made of it
        if type(user_id) in PLAIN and type(limit) in PLAIN:
            key = f"app.users.load:user_id={user_id!r},limit={limit!r}"
        else:
            key = slow(user_id, limit)
        return key if len(key) <= KEY_CHARS_MAX else shortened(key)

It has the signature of the function, so Python itself binds the arguments, fills in the defaults
and refuses wrong ones in its own words: about 0.2 us, where `inspect.Signature.bind` takes 4.  The
source is made of names of parameters alone, as `dataclasses` makes its `__init__`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter
from itertools import pairwise
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.values.keys import (
    KEY_CHARS_MAX,
    PLAIN,
    Texts,
    Unkeyable,
    name_of,
    shortened,
)
from perf_middleware.errors import UnkeyableArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PARAMETERS_MAX: Final = 200
_SEPARATING: Final = frozenset(":/|,;=&@")  # no text of a value has one outside of its brackets


@dataclass(frozen=True, slots=True)
class _Part:
    """Fixed text, then what `expression` (a parameter, or an attribute of one) is."""

    literal: str
    expression: str = ""


class Arguments:
    """The parameters of one function, and what is made of them.

    Raises TypeError for a function without signature, ValueError for a template or an exclusion
    that names no parameter.
    """

    def __init__(self, function: Callable[..., Any], *, name: str, texts: Texts) -> None:
        self.name = name
        self._texts = texts
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:  # some functions written in C
            raise TypeError(f"{name} tells no signature: wrap it in a function of yours") from None
        if len(parameters) > PARAMETERS_MAX:
            raise ValueError(f"{name} has more than {PARAMETERS_MAX} parameters")
        self._parameters = list(parameters)
        self._names = [parameter.name for parameter in parameters]
        self._our = "_our_"  # how what is not the function's own begins
        while any(name.startswith(self._our) for name in self._names):
            self._our += "_"
        self._function_name = getattr(function, "__name__", "cached")

    def key_by_arguments(self, exclude: Iterable[str]) -> Callable[..., str]:
        """The key of a call, of all arguments but those excluded."""
        left_out = frozenset(exclude)
        for name in left_out - set(self._names):
            raise ValueError(f"{self.name} has no parameter {name!r} to exclude: {self._listed()}")
        names = [name for name in self._names if name not in left_out]
        parts = [_Part(f"{',' if at else ''}{name}=", name) for at, name in enumerate(names)]
        return self._key([_Part(f"{self.name}:"), *parts])

    def key_by_template(self, template: str) -> Callable[..., str]:
        """The key of a call, of what `user:{user_id}` names."""
        parts = self._parsed("key", template)
        for part, after in pairwise(parts):
            if part.expression and after.expression and not _SEPARATING.intersection(after.literal):
                raise ValueError(
                    f"{self.name}: key={template!r} needs one of {' '.join(sorted(_SEPARATING))} "
                    f"before {{{after.expression}}}: other arguments could give the same key"
                )
        return self._key([_Part(f"{self.name}:"), *parts])

    def key_by_function(self, key_of: Any) -> Callable[..., str | None]:
        """The key of a call, of what `key_of` returns for its arguments; None: not to be cached.

        Raises TypeError for what is no plain function.
        """
        if not callable(key_of) or inspect.iscoroutinefunction(key_of):
            raise TypeError(
                f"{self.name}: key must be a text such as '{{user_id}}', or a plain function of "
                f"the arguments, not {key_of!r}"
            )
        prefix = f"{self.name}:"

        def key(*args: Any, **kwargs: Any) -> str | None:
            value = key_of(*args, **kwargs)
            return None if value is None else shortened(prefix + self._text(value, "key"))

        return key

    def tags(self, templates: Sequence[str]) -> Callable[..., tuple[str, ...]]:
        """The tags of a call, its arguments as `str` writes them."""
        if not templates:
            return _no_tags
        texts = []
        for template in templates:
            parts = self._parsed("tags", template)
            joined = ", ".join(
                f"{part.literal!r}"
                + (f", {self._our}tag({part.expression})" if part.expression else "")
                for part in parts
            )
            texts.append(f"''.join(({joined},))" if parts else "''")
        return self._made([f"    return ({', '.join(texts)},)"], {"tag": _tag_text})

    def _key(self, parts: list[_Part]) -> Callable[..., str]:
        values = [part.expression for part in parts if part.expression]
        # What may hold several arguments is never plain; an attribute is read once.
        gathered = {
            parameter.name
            for parameter in self._parameters
            if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        }
        our = self._our
        read = {value: f"{our}v{at}" for at, value in enumerate(values) if "." in value}
        lines = [f"    {local} = {value}" for value, local in read.items()]
        locals_ = [read.get(value, value) for value in values]
        template = "".join(
            part.literal.replace("{", "{{").replace("}", "}}")
            + (f"{{{read.get(part.expression, part.expression)}!r}}" if part.expression else "")
            for part in parts
        )
        slow = f"{our}slow({', '.join(locals_)})"
        if not values or gathered & set(values):
            lines.append(f"    {our}key = {slow}")
        else:
            plain = " and ".join(f"{our}type({local}) in {our}plain" for local in locals_)
            lines += [
                f"    if {plain}:",
                "        try:",
                f"            {our}key = f{template!r}",
                f"        except {our}ValueError:",  # a whole number of thousands of digits
                f"            {our}key = {slow}",
                "    else:",
                f"        {our}key = {slow}",
            ]
        lines.append(
            f"    return {our}key if {our}len({our}key) <= {KEY_CHARS_MAX}"
            f" else {our}shortened({our}key)"
        )
        return self._made(
            lines,
            {
                "plain": PLAIN, "slow": self._slow(parts), "shortened": shortened, "len": len,
                "type": type, "ValueError": ValueError,
            },
        )  # fmt: skip

    def _slow(self, parts: list[_Part]) -> Callable[..., str]:
        def text(*values: Any) -> str:
            left = iter(values)
            return "".join(
                part.literal + (self._text(next(left), part.expression) if part.expression else "")
                for part in parts
            )

        return text

    def _text(self, value: object, argument: str) -> str:
        try:
            return self._texts.of(value)
        except Unkeyable as found:
            error = UnkeyableArgumentError(
                self.name, argument + found.path, name_of(type(found.value)), found.why
            )
        raise error  # out here, so that nothing holds on to the value

    def _parsed(self, argument: str, template: str) -> list[_Part]:
        parts = []
        try:
            pieces = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{self.name}: {argument}={template!r}: {error}") from None
        for literal, field, spec, conversion in pieces:
            if field is None:
                parts.append(_Part(literal))
                continue
            root, *attributes = field.split(".")
            if root not in self._names:
                raise ValueError(
                    f"{self.name}: {argument}={template!r} names {root!r}, and the parameters are "
                    f"{self._listed()}"
                )
            if spec or conversion or not all(name.isidentifier() for name in attributes):
                raise ValueError(
                    f"{self.name}: {argument}={template!r}: {{{field}}} must be a parameter or an "
                    "attribute of one, such as {user_id} or {user.id}"
                )
            parts.append(_Part(literal, field))
        return parts

    def _listed(self) -> str:
        return ", ".join(self._names) or "none"

    def _made(self, body: list[str], known: dict[str, Any]) -> Callable[..., Any]:
        """A function with these parameters, the defaults the very objects of the function's own."""
        listed: list[str] = []
        known = {self._our + name: value for name, value in known.items()}
        kinds = [parameter.kind for parameter in self._parameters]
        for at, parameter in enumerate(self._parameters):
            kind, text = parameter.kind, parameter.name
            if kind is Parameter.VAR_POSITIONAL:
                text = f"*{text}"
            elif kind is Parameter.VAR_KEYWORD:
                text = f"**{text}"
            elif parameter.default is not Parameter.empty:
                known[f"{self._our}d{at}"] = parameter.default
                text = f"{text}={self._our}d{at}"
            if kind is Parameter.KEYWORD_ONLY and (
                Parameter.VAR_POSITIONAL not in kinds and kind not in kinds[:at]
            ):
                listed.append("*")
            listed.append(text)
            if kind is Parameter.POSITIONAL_ONLY and kind not in kinds[at + 1 :]:
                listed.append("/")
        source = "\n".join([f"def {self._our}made({', '.join(listed)}):", *body])
        exec(source, known)  # noqa: S102 - names of parameters and our own text, as dataclasses do
        made: Callable[..., Any] = known[f"{self._our}made"]
        # Python's own words for wrong arguments name the function that was called.
        made.__code__ = made.__code__.replace(
            co_name=self._function_name, co_qualname=self._function_name
        )
        made.__qualname__ = made.__name__ = self._function_name
        return made


def _no_tags(*_args: Any, **_kwargs: Any) -> tuple[str, ...]:
    return ()


def _tag_text(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)
