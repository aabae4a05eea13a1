"""Waiting for other threads and processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil


def wait_until(holds: Callable[[], bool], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Say whether a process has ended, whether or not its parent has noticed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True
