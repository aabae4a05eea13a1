"""Rows, counts and times as people read them, JSON as programs do.

Imports `terminal` and `libs.transfer.wording`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from llamalite.cli import terminal
from llamalite.libs.transfer.wording import printable


def print_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print rows on stdout, in columns as wide as they need.

    Args:
        rows: all of one length.
        right: numbers of the columns that are aligned right, the first being 0.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    terminal.write("".join(lines))


def print_json(value: Any) -> None:
    """Print a value on one line of stdout."""
    terminal.write(json.dumps(value, ensure_ascii=False) + "\n")


def count_text(number: int) -> str:
    """Return a number of weights: 134.5 M."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)


def time_text(seconds: float) -> str:
    """Return a time since 1970 as this computer's clock shows it: 2026-03-01 14:05; or ""."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OSError, ValueError, OverflowError):  # a file's time can be anything
        return ""


def iso_time(seconds: float | None) -> str | None:
    """Return a time since 1970 as JSON has it: 2026-03-01T13:05:00Z; None = not known."""
    if seconds is None:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OSError, ValueError, OverflowError):
        return None
