"""The question before something is lost. Imports `terminal` and `errors`."""

from __future__ import annotations

import sys

from llamalite.cli import terminal
from llamalite.errors import InvalidParameter


def confirmed(question: str) -> bool:
    """Ask on stderr, and return whether the line on stdin says yes; anything but y and yes is no.

    Raises:
        InvalidParameter: there is nobody to ask.
    """
    terminal.show_on_stderr(f"{terminal.one_line(question)} [y/N]")
    try:
        answer = sys.stdin.readline() if sys.stdin is not None else ""
    except (OSError, ValueError):
        answer = ""
    if not answer:
        raise InvalidParameter("nobody answered, and nothing was removed: add -f to remove unasked")
    return answer.strip().lower() in ("y", "yes")
