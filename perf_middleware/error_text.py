"""Errors in words: of the app's own code, so anything may be in them."""


def told(error: BaseException) -> str:
    """`error` as `Kind: text`; its kind alone where its text cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its `__str__` is the app's
        return type(error).__name__
