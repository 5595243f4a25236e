"""What of an app's answers was not stored lately, and whether the next one will be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.caching.runtime.flights import Outcome

REFUSED_MAX: Final = 10_000  # of each kind; then it is forgotten, and learnt again
IN_A_ROW_MAX: Final = 8
"""Answers with an error that speaks of one client: so many in a row speak of the URL."""


class Refused:
    """Why the last answer of a URL was not stored, by its key's hash: a client may send long ones.

    `of_urls` are those of which the next answer most likely is not stored either; their requests
    need not wait for each other.
    """

    def __init__(self) -> None:
        self.of_urls: dict[int, str] = {}
        self.of_answers: dict[int, tuple[str, int]] = {}  # with the number of those in a row

    def note(self, key: bytes, why: str, outcome: Outcome) -> None:
        """`outcome` is what it means for those who wait (`judgement.outcome_of_refusal`)."""
        at = hash(key)
        if outcome != "unstorable" and at not in self.of_urls:
            in_a_row = self.of_answers.get(at, ("", 0))[1] + (outcome != "failed")
            if in_a_row < IN_A_ROW_MAX:
                if len(self.of_answers) >= REFUSED_MAX and at not in self.of_answers:
                    self.of_answers.clear()
                self.of_answers[at] = (why, in_a_row)
                return
        if len(self.of_urls) >= REFUSED_MAX and at not in self.of_urls:
            self.of_urls.clear()
        self.of_urls[at] = why

    def forget(self, key: bytes) -> None:
        """Something was stored."""
        at = hash(key)
        self.of_urls.pop(at, None)
        self.of_answers.pop(at, None)

    def last(self, key: bytes) -> str | None:
        """Why, as far as it is known."""
        at = hash(key)
        return self.of_urls.get(at) or self.of_answers.get(at, (None, 0))[0]
