"""A Lua script, which the server keeps under its digest."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files


class Script:
    """The script in `scripts/NAME.lua`."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (files(__package__) / "scripts" / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
