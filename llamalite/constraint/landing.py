"""Answers that end in time: near their last token only what can still be brought to an end.

An answer cut off in the middle of a value is no JSON. Owns when to look for a way to the end and
what to allow then. Imports numpy and its siblings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llamalite.constraint.guided import GuidedMatcher
from llamalite.constraint.way_out import find_way

_GROWTH = 2
"""Most tokens by which the way to the end grows with a token that opens nothing."""
_NEAR = 16
"""With so few tokens to spare every token is checked before it is taken."""
_CLOSE, _STRIDE = 128, 8
"""With so few, those that open an object, a list or its next item, which may demand much more."""
_N_TRIED = 4
_LONGEST_WAY = 1000
"""Most tokens of a way that is looked for, since everybody's next token waits meanwhile."""


class LandingMatcher:
    """Follows one answer as its matcher does, and brings it to an end within so many tokens.

    It steers only where the known way to the end would get too long: free before that. If there is
    no way, or a very long one, it steers nothing.

    Args:
        matcher: what is allowed; closed with this one.
        n_left: most tokens the answer may still have.
        n_shortest: tokens of a short answer.
    """

    def __init__(self, matcher: GuidedMatcher, n_left: int, n_shortest: int) -> None:
        self._matcher, self._n_left = matcher, n_left
        self._way: list[int] | None = None  # known while _is_near
        self._is_near = self._is_close = False
        self._look_at = self._next_look(n_left - n_shortest)
        self._tried: dict[int, list[int] | None] = {}
        if n_left - n_shortest <= _NEAR:
            self._find()

    @property
    def is_over(self) -> bool:
        """Say whether nothing but the end may follow."""
        return self._matcher.is_over

    def allows(self, token: int) -> bool:
        """Say whether a token may come next; changes nothing."""
        if not self._matcher.allows(token):
            return False
        if self._is_near:
            return self._lands_after(token)
        if not self._is_close or token not in self._matcher.vocab.exits.openers:
            return True
        if self._lands_after(token):
            return True
        self._find()  # where to go instead
        self._is_near = self._way is not None
        return not self._is_near

    def mask(self, logits: npt.NDArray[np.float32]) -> bool:
        """Set what may not come next to -inf, in place; False if nothing is left."""
        if not self._matcher.mask(logits):
            return False
        if self._is_near and self._way:
            likeliest = np.argpartition(logits, -_N_TRIED)[-_N_TRIED:].tolist()
            kept = [t for t in likeliest if logits[t] > -np.inf and self._lands_after(t)]
            kept = [*kept, self._way[0]]
            values = logits[kept]
            logits.fill(-np.inf)
            logits[kept] = values
        return bool(logits.max() > -np.inf)

    def accept(self, token: int) -> None:
        """Go on past a token that is allowed here."""
        way = self._tried.get(token)
        if self._is_near and self._way and token == self._way[0]:
            way = self._way[1:]  # NOTE: a search from half-way may find a longer one
        self._tried.clear()
        self._matcher.accept(token)
        self._n_left -= 1
        if way is not None:
            self._plan(way)
        else:
            self._look()

    def close(self) -> None:
        """Free what is native."""
        self._matcher.close()

    def _look(self) -> None:
        if self._n_left <= self._look_at:
            self._find()

    def _find(self) -> None:
        self._plan(self._way_from(self._matcher.fork(), self._n_left))

    def _plan(self, way: list[int] | None) -> None:
        """Decide from the way out whether to steer, and when to look again."""
        self._way = way
        if way is None:
            self._is_near = self._is_close = False
            self._look_at = self._n_left // 4
            return
        spare = self._n_left - len(way)
        self._is_near, self._is_close = spare <= _NEAR, spare <= _CLOSE
        self._look_at = self._next_look(spare)

    def _next_look(self, spare: int) -> int:
        if spare > _CLOSE:
            return self._n_left - max(_STRIDE, (spare - _CLOSE) // (1 + _GROWTH))
        return self._n_left - max(1, min(_STRIDE, (spare - _NEAR) // (1 + _GROWTH)))

    def _lands_after(self, token: int) -> bool:
        if token not in self._tried:
            self._tried[token] = self._way_after(token)
        return self._tried[token] is not None

    def _way_after(self, token: int) -> list[int] | None:
        way = self._way if self._is_near else None
        if way and token == way[0]:
            return way[1:]
        if way and len(way) >= self._n_left:
            return None  # PERF: another way might be as short, but is hardly worth the search
        ahead = self._matcher.fork()
        ahead.accept(token)
        return self._way_from(ahead, self._n_left - 1)

    def _way_from(self, matcher: GuidedMatcher, n_tokens: int) -> list[int] | None:
        return find_way(matcher, matcher.vocab.exits, min(n_tokens, _LONGEST_WAY))
