"""`@memo.invalidates(...)`: what a function has changed is forgotten once it has succeeded."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import anyio

from perf_middleware.caching.values.decorators.functions import require_function
from perf_middleware.caching.values.signatures import Arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.caching.values.runtime.core import Core


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

    def forgotten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[str], list[str]]:
        return list(tags_of(*args, **kwargs)), [*patterns_of(*args, **kwargs), *names]

    made: Callable[..., Any]
    if is_async:

        async def invalidating(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            # What is written is written: whoever leaves now, the old values must go.
            with anyio.CancelScope(shield=True):
                of_tags, of_patterns = forgotten(args, kwargs)
                if of_tags:
                    await cache.purge(of_tags)
                for pattern in of_patterns:
                    await cache.clear(pattern)
            return result

        made = invalidating
    else:

        def invalidating_now(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            of_tags, of_patterns = forgotten(args, kwargs)
            cache.forget_tagged(of_tags)
            for pattern in of_patterns:
                cache.forget_matching(pattern)
            return result

        made = invalidating_now
    return functools.update_wrapper(made, function)
