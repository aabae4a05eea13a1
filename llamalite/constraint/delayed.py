"""A constraint that begins to hold after some text, such as the end of a model's thinking.

Imports numpy and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from llamalite.constraint.matcher import Matcher


class DelayedMatcher:
    """Allows all but the end until `begin` has been written, then what another matcher allows.

    Tokens end where they end: text behind `begin` in the token that completes it is free.

    Args:
        make: makes the matcher that holds from then on; told how many tokens came before.
        begin: text after which it holds, not empty.
        piece_of: gives the bytes of a token as they appear in the answer.
        ends: tokens that end a generation.
    """

    def __init__(
        self,
        make: Callable[[int], Matcher],
        begin: str,
        piece_of: Callable[[int], bytes],
        ends: Collection[int],
    ) -> None:
        self._make, self._piece_of = make, piece_of
        self._begin, self._ends = begin.encode("utf-8"), sorted(ends)
        self._matcher: Matcher | None = None
        self._tail = b""
        self._n_free = 0

    @property
    def is_over(self) -> bool:
        """Say whether nothing but the end may follow."""
        return self._matcher is not None and self._matcher.is_over

    def allows(self, token: int) -> bool:
        """Say whether a token may come next; changes nothing."""
        return token not in self._ends if self._matcher is None else self._matcher.allows(token)

    def mask(self, logits: npt.NDArray[np.float32]) -> bool:
        """Set what may not come next to -inf, in place; False if nothing is left."""
        if self._matcher is not None:
            return self._matcher.mask(logits)
        logits[self._ends] = -np.inf
        return bool(logits.max() > -np.inf)

    def accept(self, token: int) -> None:
        """Go on past a token that is allowed here."""
        if self._matcher is not None:
            self._matcher.accept(token)
            return
        self._n_free += 1
        written = self._tail + self._piece_of(token)
        if self._begin in written:
            self._matcher = self._make(self._n_free)
        self._tail = written[-len(self._begin) :]

    def close(self) -> None:
        """Free what is native."""
        if self._matcher is not None:
            self._matcher.close()
