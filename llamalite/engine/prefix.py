"""Finding prompts' beginnings among tokens that are computed already: pure, without a cache.

Owns what is known of the tokens in a slot. Doesn't know slots, leases or libllama. Imports numpy
alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]

_EMPTY: Tokens = np.zeros(0, np.int32)
_SPARE = 256


def common_prefix(first: Tokens, second: Tokens) -> int:
    """Return how many tokens two runs, int32[n] and int32[m], have in common from the front."""
    n = min(len(first), len(second))
    same = first[:n] == second[:n]
    end = int(same.argmin()) if n else 0
    return n if not n or same[end] else end


@dataclass(frozen=True)
class Overlap:
    """What a prompt and a run have in common.

    Attributes:
        n_now: tokens that are computed already.
        n_later: tokens that will be once the run's sequence has gone on; at least n_now.
    """

    n_now: int = 0
    n_later: int = 0


class TokenRun:
    """Tokens of a slot: those in its cache, and those its sequence is about to compute.

    Attributes:
        salt: whose tokens they are; prompts of another salt don't match.
        n_known: all of them.
        n_computed: those in the cache.
        n_exact: those from the front, without a gap, that are as reused ones may be where reuse is
            to be exact: computed in chunks, as a fresh prompt's are. A row of one token is rounded
            differently.
    """

    def __init__(self) -> None:
        self.salt = ""
        self.n_known = self.n_computed = self.n_exact = 0
        self._tokens = _EMPTY

    @property
    def computed(self) -> Tokens:
        """Tokens in the cache; a view."""
        return self._tokens[: self.n_computed]

    def begin(self, prompt: Tokens, salt: str, n_computed: int) -> None:
        """Start anew with a prompt of which the first tokens are in the cache, reused."""
        self._tokens = np.concatenate([prompt, np.zeros(_SPARE, np.int32)])
        self.salt, self.n_known = salt, len(prompt)
        self.n_computed = self.n_exact = n_computed

    def append(self, tokens: Tokens, *, is_exact: bool) -> None:
        """Note tokens that have been computed behind the others."""
        start, end = self.n_computed, self.n_computed + len(tokens)
        if end > len(self._tokens):
            room = np.zeros(end + _SPARE, np.int32)
            self._tokens = np.concatenate([self._tokens, room])
        self._tokens[start:end] = tokens
        if is_exact and self.n_exact == start:
            self.n_exact = end
        self.n_computed, self.n_known = end, max(end, self.n_known)

    def end(self) -> None:
        """Note that nothing more will be computed."""
        self._tokens = self.computed.copy()
        self.n_known = self.n_computed

    def forget(self) -> None:
        """Note that the cache holds nothing."""
        self._tokens = _EMPTY
        self.n_known = self.n_computed = self.n_exact = 0

    def overlap(self, prompt: Tokens, salt: str, *, exact: bool) -> Overlap:
        """Compare with a prompt.

        Args:
            prompt: int32[n], cut to what may be reused of it.
            salt: of the prompt.
            exact: count exact tokens alone.
        """
        if salt != self.salt or not self.n_known:
            return Overlap()
        n_common = common_prefix(self._tokens[: self.n_known], prompt)
        if not exact:
            return Overlap(min(n_common, self.n_computed), n_common)
        n_now = min(n_common, self.n_exact)
        return Overlap(n_now, n_common if self.n_exact == self.n_computed else n_now)
