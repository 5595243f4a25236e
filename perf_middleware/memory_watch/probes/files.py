"""Small files of the kernel, read whole and opened anew each time.

A descriptor that is kept would save 3 us a file, measured, and lie in two cases: after a fork
/proc/self of it is still the parent's, and a daemon that closes what it has inherited may get the
same number for a socket of its own.
"""

from __future__ import annotations

import errno
import os
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
BYTES_MAX: Final = 1 << 20  # a longer one is not what we look for, and is cut
_FULL: Final = (errno.EMFILE, errno.ENFILE)


class NoDescriptorLeftError(OSError):
    """This process, or the system, may not open one more file: what was read last is all there is.

    Never leaves the probes.
    """


def read_text(path: str) -> str:
    """The text of the file; empty where it is not there, may not be read or says nothing.

    Raises NoDescriptorLeftError: that a file cannot be opened says nothing about it then.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        if error.errno in _FULL:
            raise NoDescriptorLeftError(*error.args) from error
        return ""
    except ValueError:  # a zero byte in a path that was read from another file
        return ""
    try:
        text = b""
        while len(text) < BYTES_MAX and (chunk := os.read(descriptor, _CHUNK_BYTES)):
            text += chunk
    except OSError:  # a group that was just removed; pressure where the kernel measures none
        return ""
    finally:
        os.close(descriptor)
    return text[:BYTES_MAX].decode("utf-8", "replace")
