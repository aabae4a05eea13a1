"""Chooses a token from a row of logits, by the samplers that a configuration asks for.

Owns which candidates the samplers need to see: often a few decide, and building a list of the whole
vocabulary would cost more than all else. Doesn't know constraints, biases or requests. Imports
numpy, `core` and `llamalite.config`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.core.candidates import Ids, Logits, largest, nucleus, peak, possible
from llamalite.core.sampling import build_chain

if TYPE_CHECKING:
    from llamalite.config import SamplingConfig
    from llamalite.core.vocab import Vocab

_MOST_CANDIDATES = 1024
"""More than so many are found no faster than all are sampled from."""


class Chooser:
    """The samplers of one answer; one thread at a time.

    Args:
        config: its biases, grammar and ignore_eos are left to others.
        vocab: the vocabulary chosen from.
        n_ctx: what "the whole context" means for penalties.
        index: which answer of several; added to the seed.

    Attributes:
        is_greedy: whether the likeliest token is chosen whatever came before.

    Raises:
        SymbolMissing: this build of libllama lacks a sampler that was asked for.
    """

    def __init__(self, config: SamplingConfig, vocab: Vocab, n_ctx: int, index: int = 0) -> None:
        self._config = config
        self._chain = build_chain(config, vocab, n_ctx, index)
        names = list(self._chain.names)
        self._has_nucleus = names[0] == "top_p"
        if self._has_nucleus:  # PERF: computed here, because the sampler sorts the vocabulary
            self._chain.close()
            self._chain = build_chain(config.replace(top_p=1.0), vocab, n_ctx, index)
        self.is_greedy = names == ["greedy"]
        self._n_deciding = min(_n_deciding(names, config), vocab.n_tokens)
        self._reach = {
            name: _within(last_n, n_ctx)
            for name, last_n in (
                ("penalties", config.repeat_last_n),
                ("dry", config.dry_penalty_last_n),
            )
            if name in names
        }
        self._penalized: deque[int] = deque(maxlen=self._reach.get("penalties", 0))

    def prime(self, prompt: npt.NDArray[np.int32]) -> None:
        """Show the prompt, int32[n], to the samplers that look back."""
        reach = max(self._reach.values(), default=0)
        if reach:
            seen = prompt[-reach:]
            self._chain.accept_all(seen)
            self._penalized.extend(seen.tolist())

    def choose(self, logits: Logits) -> int | None:
        """Return a token, or None if all logits are -inf.

        Random numbers and the like move on, but the token isn't accepted.

        Args:
            logits: float32[n_vocab].

        Raises:
            FatalDecode: a logit is NaN or +inf.
        """
        if self.is_greedy:
            token = int(logits.argmax())
            if math.isfinite(logits[token]):
                return token
        if peak(logits) == -math.inf:
            return None
        return self._chain.select(logits, self._candidates(logits))

    def accept(self, token: int) -> None:
        """Go on past a token."""
        if not self.is_greedy:  # PERF: nothing in it looks back
            self._chain.accept(token)
            self._penalized.append(token)

    def close(self) -> None:
        """Free the samplers; later calls do nothing."""
        self._chain.close()

    def _candidates(self, logits: Logits) -> Ids | None:
        """Return those among which the samplers would choose anyway, or None for all."""
        if self._has_nucleus:
            return nucleus(logits, self._config.top_p, self._config.min_keep)
        if not self._n_deciding:
            return possible(logits)
        if not self._penalized:
            return largest(logits, self._n_deciding)
        # Penalties move only these, so whoever is ahead after them is among these or ahead now.
        moved = np.fromiter(set(self._penalized), np.intp)
        count = self._n_deciding + len(moved)
        if count > min(_MOST_CANDIDATES, len(logits)):
            return possible(logits)
        ids = np.union1d(largest(logits, count), moved)
        return ids[logits[ids] > -math.inf]


def _n_deciding(names: Sequence[str], config: SamplingConfig) -> int:
    """Return how many of the likeliest decide, penalties aside; 0 = all may."""
    first = names[1] if names[0] == "penalties" else names[0]
    count = {"greedy": 1, "top_k": config.top_k}.get(first, 0)
    return count if count <= _MOST_CANDIDATES else 0


def _within(last_n: int, n_ctx: int) -> int:
    return n_ctx if last_n < 0 else min(last_n, n_ctx)
