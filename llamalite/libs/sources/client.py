"""Patience with the user's own clients, npm and pip, which say nothing while they work.

Owns how long they may take and what a person is told meanwhile. Doesn't know how one is started.
Imports the standard library and `transfer.progress`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from llamalite.libs.transfer.progress import Say, say_on_stderr

SAY_AFTER_S: Iterable[float] = (10.0, 60.0, 300.0)
"""When a client that is still at work is spoken of."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Patience:
    """How long a client may take.

    Attributes:
        client: its name.
        what: what it fetches; "" for nothing that is worth a line.
        limit_s: longest time altogether.
        say: takes the lines; None for stderr.
    """

    client: str
    what: str
    limit_s: float
    say: Say | None = None

    def wait(self, call: Callable[[float], _T]) -> _T:
        """Call with a limit of seconds until it no longer raises TimeoutExpired, and return that.

        Raises:
            subprocess.TimeoutExpired: the limit is over.
        """
        started = time.monotonic()
        for after_s in SAY_AFTER_S if self.what else ():
            if after_s >= self.limit_s:
                break
            try:
                return call(max(0.0, started + after_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                (self.say or say_on_stderr)(f"{self.client} is still fetching {self.what}")
        return call(max(0.0, started + self.limit_s - time.monotonic()))
