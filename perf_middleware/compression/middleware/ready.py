"""A hit whose coded form and head are known: what is still to be asked of its two messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.coded_forms import FORMS
from perf_middleware.coding_choice import CHOSEN
from perf_middleware.compression.encoding import coded

if TYPE_CHECKING:
    from perf_middleware.asgi import Message, Scope
    from perf_middleware.coded_forms import CodedHead, Forms
    from perf_middleware.compression.encoding import Headers
    from perf_middleware.compression.runtime import Coding


def ready_answer(scope: Scope, start: Message, headers: Headers, coding: str) -> CodedHead | None:
    """What is known of the coded answer to this GET, whose head `start` is and whose FORMS it has.

    None where an endpoint has a word in it, or a better form may come: the longer way decides.
    """
    forms: Forms = scope[FORMS]
    known = forms.coded_head
    if (
        known is not None
        and known[3] == coding
        and start.get("status") == 200
        and known[1] == headers
        and scope["method"] == "GET"
        and CHOSEN not in scope
        and CHOSEN not in start
        and "trailers" not in start
    ):
        return known
    return None


def is_its_body(known: CodedHead, message: Message) -> bool:
    """Whether `message` brings the whole body of the forms of which `known` is still to go.

    Something between may have put in another body; a better form may have been made.
    """
    forms: Forms | None = message.get(FORMS)
    return (
        forms is not None
        and forms.coded_head is known  # which is of no other forms
        and message.get("body") is forms.body
        and ("more_body" not in message or not message["more_body"])
    )


def known_head(
    coding: Coding, form: bytes, plain: Headers, forms: Forms, *, is_best: bool
) -> CodedHead:
    """What goes with `form` where `plain` was to go; `is_best` of those that the client accepts."""
    headers = coded(plain, coding.content_encoding, suffix=coding.suffix, body_bytes=len(form))
    is_last = is_best and forms.is_claimed(coding.name, "kept")
    return form, [*plain], headers, coding.name if is_last else None
