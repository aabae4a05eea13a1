"""How many threads fit this machine. Imports psutil and the standard library."""

from __future__ import annotations

import os


def default_n_threads() -> int:
    """Return the number of physical cores this process may use, at least 1.

    ggml's threads spin while they wait, so hyper-threads and cores that belong to others only
    slow it down.
    """
    import psutil

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else physical
    return max(1, min(physical, allowed))
