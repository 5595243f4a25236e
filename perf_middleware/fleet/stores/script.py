"""A Lua script, which the server keeps under its digest."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files


class Script:
    """The script in `scripts/NAME.lua` of a package."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, *, package: str = __package__) -> None:
        self.name = name
        self.text = (files(package) / "scripts" / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
