"""From what a step brought to the sinks of those who asked for it.

A sink is its caller's: one that raises costs itself its news, and nobody else anything. Imports the
standard library and its siblings.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamalite.engine.handle import Sink

_log = logging.getLogger("llamalite.engine")


class Delivery:
    """Puts items into sinks and flushes those that got some; one thread at a time."""

    def __init__(self) -> None:
        self._touched: dict[int, Sink] = {}

    def put(self, sink: Sink, request_id: int, item: Any) -> None:
        """Put a delta, a result or an error into a sink."""
        self._touched[id(sink)] = sink
        try:
            sink.put(request_id, item)
        except Exception:
            _log.exception("a request's sink failed")

    def flush(self) -> None:
        """Tell the sinks that a step is over."""
        touched, self._touched = self._touched, {}
        for sink in touched.values():
            try:
                sink.flush()
            except Exception:
                _log.exception("a request's sink failed")
