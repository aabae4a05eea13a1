"""One question to the Hub or another web server, asked again where the failure may pass.

Owns how often and how long is waited, and whose token goes where. Doesn't know what is asked, nor
what the answer means. May import `address`, `libs` and `errors`.

NOTE: huggingface_hub's own requests have no limit of time, believe any answer and log what fails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from llamalite.models.hub.address import identity

if TYPE_CHECKING:
    from llamalite.libs.transfer.web import Answer, Refused, Unanswered

LIMIT_S = 20.0
"""Longest time that an answer of usual size may take."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that may be gone when the same is asked again."""

_WAITS_S = (0.5, 1.5)
_LONGEST_WAIT_S = 30.0
_SECONDS = re.compile(r"[0-9]{1,9}")
_T = TypeVar("_T")


def ask(
    url: str, max_bytes: int, headers: Mapping[str, str] | None = None, limit_s: float = LIMIT_S
) -> Answer:
    """Return an answer with at most `max_bytes` of its body.

    Raises:
        Refused: its status is an error.
        Unanswered: there is none, it broke off, or it is too slow.
        DownloadError: the user's token is none.
    """
    from llamalite.libs.transfer.web import read_answer

    return read_answer(url, max_bytes, headers, identity(url), limit_s)


def patiently(question: Callable[[], _T]) -> _T:
    """Return what a question comes to, asked up to three times.

    Raises:
        Refused, Unanswered: as the question does, where it is of no use to ask again.
    """
    from llamalite.libs.transfer.web import Refused, Unanswered

    for usual_s in _WAITS_S:
        try:
            return question()
        except (Refused, Unanswered) as failure:
            wait_s = _wait_of(failure, usual_s)
            if wait_s is None or wait_s > _LONGEST_WAIT_S:
                raise
        time.sleep(wait_s)
    return question()


def seconds_of(retry_after: str | None) -> int | None:
    """Return the seconds that a `Retry-After` asks to wait; None where it says no such number."""
    said = (retry_after or "").strip()
    return int(said) if _SECONDS.fullmatch(said) else None


def _wait_of(failure: Refused | Unanswered, usual_s: float) -> float | None:
    """Return how long to wait before asking again, or None if that is of no use."""
    from llamalite.libs.transfer.web import Refused

    if not isinstance(failure, Refused):
        return usual_s if failure.broke else None
    said = seconds_of(failure.headers.get("Retry-After"))
    return None if failure.status not in PASSING else usual_s if said is None else said
