"""Patterns over the paths of requests, as rules in settings name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PARAMETER = re.compile(r"\\\{(\w+)(?::(\w+))?\\\}")
_ANYTHING = re.compile(r"\\\*|\\\{\w+:path\\\}")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern over decoded paths: `/items/{id}`, `/files/{path:path}`, `/static/*`.

    `{name}` is one segment, `{name:path}` and `*` are anything.
    """

    text: str
    literal: str | None
    regex: re.Pattern[str]
    named: re.Pattern[str] | None = None

    @classmethod
    def of(cls, text: str) -> PathPattern:
        """Raises ValueError for what cannot match any path."""
        if not text.startswith(("/", "*")):
            raise ValueError(f"{text!r} does not start with /")
        if "?" in text or "#" in text:
            raise ValueError(f"{text!r} has a query: a pattern is one of paths alone")
        literal = None if "{" in text or "*" in text else text
        first, *pieces = (
            _PARAMETER.sub("[^/]+?", piece) for piece in _ANYTHING.split(re.escape(text))
        )
        if any(r"\{" in piece or r"\}" in piece for piece in (first, *pieces)):
            raise ValueError(f"{text!r} has a brace that is no {{name}}")
        # Each piece but the last where it comes first, for good: what is anything behind it takes
        # the rest anyway, and no long path is tried in all the ways to cut it.
        between = "".join(f"(?>.*?{piece})" for piece in pieces[:-1])
        last = f".*{pieces[-1]}" if pieces else ""
        regex = re.compile(first + between + last, re.DOTALL)
        # Not for what could be cut in many ways: only segments have a name.
        named = None if pieces or literal is not None else _named(text)
        return cls(text, literal, regex, named)

    def parameters(self, path: str) -> dict[str, str]:
        """What `path` has in the place of each `{name}`; nothing for a pattern with stars."""
        found = None if self.named is None else self.named.fullmatch(path)
        return {} if found is None else found.groupdict()

    def example(self, word: str) -> str:
        """A path that it matches, with `word` for each parameter and star."""
        return _PARAMETER.sub(word, re.escape(self.text)).replace(r"\*", word).replace("\\", "")

    def matches(self, path: str) -> bool:
        if self.literal is not None:
            return path == self.literal
        return self.regex.fullmatch(path) is not None


def _named(text: str) -> re.Pattern[str]:
    seen: set[str] = set()

    def group(found: re.Match[str]) -> str:
        if found[1] in seen or not found[1].isidentifier():
            return "[^/]+"
        seen.add(found[1])
        return f"(?P<{found[1]}>[^/]+)"

    return re.compile(_PARAMETER.sub(group, re.escape(text)), re.DOTALL)
