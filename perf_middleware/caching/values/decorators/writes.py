"""`@memo.invalidates(...)`: what a function has changed is forgotten once it has succeeded.

Its arguments may be what it changes: an item that goes from one category to another concerns both,
one that is deleted, or expired by a commit, has no category any more.  So tags and patterns are
told before the call and after it, and what either names is forgotten.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from perf_middleware.caching.values.decorators.functions import require_function
from perf_middleware.caching.values.signatures import Arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.caching.values.runtime.core import Core

Concerned: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Tags, and patterns over keys."""


def invalidating_form(
    function: Any,
    cache: Core,
    *,
    tags: Sequence[str],
    patterns: Sequence[str],
    functions: Sequence[str],
) -> Any:
    """What stands in for `function`; raises TypeError for what is no function."""
    if isinstance(function, staticmethod | classmethod):
        inner = invalidating_form(
            function.__func__, cache, tags=tags, patterns=patterns, functions=functions
        )
        return type(function)(inner)
    is_async = require_function(function, what="invalidates")
    called = getattr(function, "__qualname__", repr(function))
    tags_of = Arguments(function, name=called, texts=cache.texts).tags(tags)
    patterns_of = Arguments(function, name=called, texts=cache.texts).tags(patterns)
    names = [f"{name}:*" for name in functions]

    def told(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Concerned:
        return tags_of(*args, **kwargs), (*patterns_of(*args, **kwargs), *names)

    def told_before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Concerned | None:
        try:
            return told(args, kwargs)
        except Exception:  # noqa: BLE001 - of what is not there yet, or wrong arguments: after it
            return None

    def forgotten(
        before: Concerned | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Concerned:
        try:
            after = told(args, kwargs)
        except Exception:
            if before is None:
                raise
            return before
        if before is None or before == after:
            return after
        (tags_before, patterns_before), (tags_after, patterns_after) = before, after
        return (
            tuple({*tags_before, *tags_after}),
            tuple({*patterns_before, *patterns_after}),
        )

    made: Callable[..., Any]
    if is_async:

        async def invalidating(*args: Any, **kwargs: Any) -> Any:
            before = told_before(args, kwargs)
            result = await function(*args, **kwargs)
            # What is written is written: whoever leaves now, the old values must go.
            with anyio.CancelScope(shield=True):
                of_tags, of_patterns = forgotten(before, args, kwargs)
                if of_tags:
                    await cache.purge(of_tags)
                for pattern in of_patterns:
                    await cache.clear(pattern)
            return result

        made = invalidating
    else:

        def invalidating_now(*args: Any, **kwargs: Any) -> Any:
            before = told_before(args, kwargs)
            result = function(*args, **kwargs)
            of_tags, of_patterns = forgotten(before, args, kwargs)
            cache.forget_tagged(of_tags)
            for pattern in of_patterns:
                cache.forget_matching(pattern)
            return result

        made = invalidating_now
    return functools.update_wrapper(made, function)
