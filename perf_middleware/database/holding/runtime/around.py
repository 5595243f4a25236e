"""Functions of ours in the place of one object's methods, and off again.

They stand in the object's own `__dict__`, so that others of its class know nothing of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def put_around(target: Any, functions: Mapping[str, Callable[..., Any]], owner: object) -> None:
    """Each of these is called for the method of its name; they belong to `owner`."""
    for name, function in functions.items():
        function.owner = owner  # type: ignore[attr-defined]
        function.before = target.__dict__.get(name)  # type: ignore[attr-defined]
        setattr(target, name, function)


def take_off(target: Any, owner: object) -> None:
    """What belongs to `owner` goes, but for what something else has wrapped since: that stays."""
    for name, function in list(getattr(target, "__dict__", {}).items()):
        if getattr(function, "owner", None) is owner:
            delattr(target, name)
            if function.before is not None:
                setattr(target, name, function.before)
