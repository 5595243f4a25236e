"""Read a TOML file, or say in a few words what is wrong with it."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TOML_BYTES_MAX = 1_000_000  # a mistaken path (a log, /dev/zero) must not fill the memory


class TomlFileError(Exception):
    """A TOML file could not be read; the words follow its name."""


class TomlFileMissingError(TomlFileError):
    """There is no such file, or its directory may not be entered: fine for pyproject.toml, a
    problem for a file that was named.
    """


def load_toml(path: Path) -> dict[str, Any]:
    """The document in `path`.

    Raises TomlFileError, which says what is wrong and on which line, and quotes no value.
    """
    try:
        with path.open("rb") as file:
            content = file.read(TOML_BYTES_MAX + 1)
    except FileNotFoundError:
        raise TomlFileMissingError("does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        # Of `sudo -u app` in somebody else's home: whether the file is there cannot be known.
        is_out_of_reach = isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK)
        kind = TomlFileMissingError if is_out_of_reach else TomlFileError
        raise kind(f"cannot be read: {reason}") from None
    if len(content) > TOML_BYTES_MAX:
        raise TomlFileError(f"is larger than {TOML_BYTES_MAX} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TomlFileError(f"is not UTF-8: line {line}") from None
    except (ValueError, RecursionError) as error:
        raise TomlFileError(f"is not valid TOML: {error}") from None
