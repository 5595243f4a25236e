"""What runs in a worker process around each call.

anyio talks to the process through descriptors 0 and 1, and reads 2 from nobody knows when: a call
that starts a program, or a library in C, would read and write the middle of that talk, or wait for
ever in a full pipe.  So all three are /dev/null while a call runs.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

IN, OUT, ERRORS = 0, 1, 2


def begin() -> None:
    """The first call of a process: it is there, and has the main module."""
    # A terminal sends Ctrl-C to all; the app decides how it ends.  Not SIG_IGN: a program that a
    # call starts would inherit it.
    signal.signal(signal.SIGINT, _nothing)


def call_apart(call: bytes) -> Any:
    """The call that `pickled` has made, which sees neither the talk with the app nor its Ctrl-C.

    Its error has the traceback as a note, and is a RuntimeError where it cannot be pickled.  What
    would end the process (SystemExit, also KeyboardInterrupt and cancellations) does so: given to
    the app it would end that, or cancel the one who called.
    """
    begin()  # perhaps anyio has put a new one in the place of one that has died
    nothing = os.open(os.devnull, os.O_RDWR)
    talk = os.dup(IN), os.dup(OUT)
    for descriptor in (IN, OUT, ERRORS):
        os.dup2(nothing, descriptor)
    try:
        function, args = pickle.loads(call)  # noqa: S301 - our own app's
        return function(*args)
    except Exception as error:  # noqa: BLE001 - sent
        raise _to_send(error) from None
    except BaseException:  # noqa: BLE001 - it ends
        os._exit(1)
    finally:
        for kept, descriptor in zip(talk, (IN, OUT), strict=True):
            os.dup2(kept, descriptor)
            os.close(kept)
        os.close(nothing)


def pickled(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """A call, for `call_apart`.

    Were it sent as it is, anyio's own loop would unpickle it, and one that cannot be (a function
    that the process does not find, say) would be read again and again: its error would be the
    answer to every later call.
    """
    return pickle.dumps((function, args), protocol=pickle.HIGHEST_PROTOCOL)


def _nothing(*_: object) -> None:
    """No KeyboardInterrupt."""


def _to_send(error: Exception) -> Exception:
    where = f"In the worker process:\n{''.join(traceback.format_exception(error))}"
    sent: object
    try:
        sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - a constructor that wants more than `args`, a lock in it
        sent = RuntimeError(f"{type(error).__qualname__}: {error}")
    if not isinstance(sent, Exception):
        sent = RuntimeError(f"{type(error).__qualname__}: {error}")
    sent.add_note(where)
    return sent
