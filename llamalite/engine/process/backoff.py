"""How long to wait before a process that died is started anew. Imports the standard library."""

from __future__ import annotations

MOST_DEATHS_AT_LOAD = 4
_LOAD_DELAYS_S = (0.0, 0.5, 2.0)
_SETTLED_S = 5.0
_FIRST_DELAY_S, _MOST_DELAY_S = 0.05, 0.25


class Backoff:
    """Counts deaths.

    One that dies soon after it was ready is started anew ever more slowly, but within a
    quarter of a second; one that dies while it loads is given up after MOST_DEATHS_AT_LOAD deaths
    in a row.

    Attributes:
        n_at_load: deaths in a row while it loaded.
    """

    def __init__(self) -> None:
        self.n_at_load = self._n_soon = 0

    def died(self, served_s: float | None) -> float | None:
        """Return how many seconds to wait, or None to give up.

        Args:
            served_s: how long it was ready; None = it died while it loaded.
        """
        if served_s is None:
            self.n_at_load += 1
            if self.n_at_load >= MOST_DEATHS_AT_LOAD:
                return None
            return _LOAD_DELAYS_S[self.n_at_load - 1]
        self.n_at_load = 0
        if served_s >= _SETTLED_S:
            self._n_soon = 0
        delay = min(_FIRST_DELAY_S * 2 ** (self._n_soon - 1), _MOST_DELAY_S) if self._n_soon else 0
        self._n_soon = min(self._n_soon + 1, 10)
        return delay
