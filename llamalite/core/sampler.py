"""Sampler chains: how a token is picked from a row of logits.

Owns the native chain and the order of its parts. Doesn't know constraints: `grammar` is one of
those. Imports numpy, `ffi`, `llamalite.errors` and its own siblings.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamalite.core.candidates import CANDIDATE, Ids, Logits, array_of, candidates_of
from llamalite.core.owned import Owned
from llamalite.errors import InvalidParameter
from llamalite.ffi import compat
from llamalite.ffi.structs import (
    DEFAULT_SEED,
    LogitBias,
    SamplerChainParams,
    TokenData,
)

if TYPE_CHECKING:
    from llamalite.core.context import Context
    from llamalite.core.vocab import Vocab

_MIROSTAT_M = 100
_SELECTORS = frozenset({"greedy", "dist", "mirostat", "mirostat_v2", "adaptive_p"})


def random_seed() -> int:
    """Return a seed that no sampler takes for "choose one yourself"."""
    return secrets.randbelow(DEFAULT_SEED)


class SamplerChain(Owned):
    """Samplers applied one after another; the last one selects.

    Each method adds one sampler and returns the chain. Nothing can be added after a selector
    (greedy, dist, mirostat, adaptive_p).

    Args:
        vocab: the vocabulary sampled from.
        n_ctx: what "the whole context" means for penalties, in tokens.

    Source: llama_sampler_*.
    """

    def __init__(self, vocab: Vocab, n_ctx: int = 0) -> None:
        self.vocab = vocab
        self.library = vocab._model.library
        self.n_ctx = n_ctx or vocab._model.n_ctx_train
        self.names: list[str] = []
        chain = self.library.llama_sampler_chain_init(SamplerChainParams(True))
        super().__init__(chain, self.library.llama_sampler_free, vocab._model)

    def _add(self, name: str, sampler: int | None) -> SamplerChain:
        if self.complete:
            self.library.llama_sampler_free(sampler)
            raise InvalidParameter(
                f"{name} can't follow {self.names[-1]}, which has picked the token already",
                param="samplers",
            )
        if not sampler:
            raise InvalidParameter(f"libllama refused the {name} sampler", param=name)
        self.library.llama_sampler_chain_add(self.handle, sampler)
        self.names.append(name)
        return self

    @property
    def complete(self) -> bool:
        """Say whether the chain ends with a selector and can sample."""
        return bool(self.names) and self.names[-1] in _SELECTORS

    def greedy(self) -> SamplerChain:
        """Select the likeliest token, the first of equals."""
        return self._add("greedy", self.library.llama_sampler_init_greedy())

    def dist(self, seed: int) -> SamplerChain:
        """Select at random by probability."""
        return self._add("dist", self.library.llama_sampler_init_dist(seed))

    def top_k(self, k: int) -> SamplerChain:
        """Keep the k likeliest; 0 or less keeps all."""
        return self._add("top_k", self.library.llama_sampler_init_top_k(k))

    def top_p(self, p: float, min_keep: int = 0) -> SamplerChain:
        """Keep the likeliest that together have probability p (nucleus)."""
        return self._add("top_p", self.library.llama_sampler_init_top_p(p, min_keep))

    def min_p(self, p: float, min_keep: int = 0) -> SamplerChain:
        """Keep those at least p times as likely as the likeliest."""
        return self._add("min_p", self.library.llama_sampler_init_min_p(p, min_keep))

    def typical(self, p: float, min_keep: int = 0) -> SamplerChain:
        """Keep those whose surprise is nearest the expected one (arXiv 2202.00666)."""
        return self._add("typical_p", self.library.llama_sampler_init_typical(p, min_keep))

    def top_n_sigma(self, n: float) -> SamplerChain:
        """Keep logits within n standard deviations of the largest (arXiv 2411.07641)."""
        return self._add("top_n_sigma", self.library.llama_sampler_init_top_n_sigma(n))

    def temperature(self, t: float) -> SamplerChain:
        """Divide logits by t; at 0 only the likeliest is left."""
        return self._add("temperature", self.library.llama_sampler_init_temp(t))

    def dynamic_temperature(self, t: float, delta: float, exponent: float) -> SamplerChain:
        """Divide logits by t ± delta, more where entropy is high (arXiv 2309.02772)."""
        sampler = self.library.llama_sampler_init_temp_ext(t, delta, exponent)
        return self._add("temperature", sampler)

    def xtc(self, probability: float, threshold: float, min_keep: int, seed: int) -> SamplerChain:
        """Sometimes drop all but the least likely of those above the threshold."""
        sampler = self.library.llama_sampler_init_xtc(probability, threshold, min_keep, seed)
        return self._add("xtc", sampler)

    def mirostat(self, seed: int, tau: float, eta: float) -> SamplerChain:
        """Select so that surprise stays near tau (version 1, arXiv 2007.14966)."""
        sampler = self.library.llama_sampler_init_mirostat(
            self.vocab.n_tokens, seed, tau, eta, _MIROSTAT_M
        )
        return self._add("mirostat", sampler)

    def mirostat_v2(self, seed: int, tau: float, eta: float) -> SamplerChain:
        """Select so that surprise stays near tau (version 2)."""
        sampler = self.library.llama_sampler_init_mirostat_v2(seed, tau, eta)
        return self._add("mirostat_v2", sampler)

    def penalties(
        self, last_n: int, repeat: float, frequency: float, presence: float
    ) -> SamplerChain:
        """Make tokens of the last last_n less likely; -1 = the whole context."""
        count = self._within_context(last_n)
        sampler = compat.init_penalties(
            self.library, self.vocab.n_tokens, count, repeat, frequency, presence
        )
        return self._add("penalties", sampler)

    def dry(
        self,
        multiplier: float,
        base: float,
        allowed_length: int,
        last_n: int,
        breakers: tuple[str, ...],
    ) -> SamplerChain:
        """Make tokens that would continue a repetition less likely; last_n -1 = context."""
        sampler = compat.init_dry(
            self.library, self.vocab.handle, self.n_ctx, multiplier, base, allowed_length,
            self._within_context(last_n), breakers,
        )  # fmt: skip
        return self._add("dry", sampler)

    def _within_context(self, last_n: int) -> int:
        # libllama reserves memory for as many, and throws where it can't.
        return self.n_ctx if last_n < 0 else min(last_n, self.n_ctx)

    def adaptive_p(self, target: float, decay: float, seed: int) -> SamplerChain:
        """Select near a target probability over time (from b7748)."""
        sampler = self.library.llama_sampler_init_adaptive_p(target, decay, seed)
        return self._add("adaptive_p", sampler)

    def logit_bias(self, bias: Mapping[int, float]) -> SamplerChain:
        """Add to the logits of some tokens; -inf forbids one.

        Raises:
            InvalidParameter: a token isn't in the vocabulary, or all of them are forbidden.
        """
        ids = [self.vocab.check(token) for token in bias]
        if sum(value == -math.inf for value in bias.values()) == self.vocab.n_tokens:
            raise InvalidParameter(
                "logit_bias forbids every token of the vocabulary: leave some", param="logit_bias"
            )
        pairs = (LogitBias * len(ids))(
            *[LogitBias(token, value) for token, value in zip(ids, bias.values(), strict=True)]
        )
        sampler = self.library.llama_sampler_init_logit_bias(
            self.vocab.n_tokens, len(ids), ctypes.addressof(pairs)
        )
        return self._add("logit_bias", sampler)

    def infill(self) -> SamplerChain:
        """Merge candidates that share a prefix, for fill-in-the-middle; after top_k and top_p."""
        return self._add("infill", self.library.llama_sampler_init_infill(self.vocab.handle))

    @property
    def seed(self) -> int:
        """Seed of the last sampler that has one."""
        return int(self.library.llama_sampler_get_seed(self.handle))

    def reset(self) -> None:
        """Forget accepted tokens and start random numbers anew."""
        self.library.llama_sampler_reset(self.handle)

    def accept(self, token: int) -> None:
        """Tell the samplers of a token that was chosen, or is part of the prompt."""
        self.library.llama_sampler_accept(self.handle, self.vocab.check(token))

    def accept_all(self, tokens: Iterable[int]) -> None:
        """Accept tokens one after another."""
        accept, handle = self.library.llama_sampler_accept, self.handle
        for token in self.vocab.as_array(tokens).tolist():
            accept(handle, token)

    def sample(self, context: Context, row: int = -1) -> int:
        """Pick a token from a row of the last batch, and accept it.

        Raises:
            InvalidParameter: the chain has no selector, or the row no output.
        """
        self._check_complete()
        if context.model is not self.vocab._model:
            raise InvalidParameter("the chain was made for another model", param="context")
        logits = context.logits(row)
        if self.names == ["greedy"]:
            return int(logits.argmax())  # PERF: no candidate list of the whole vocabulary
        return int(self.library.llama_sampler_sample(self.handle, context.handle, row))

    def _check_complete(self) -> None:
        if not self.complete:
            raise InvalidParameter("the chain has no sampler that selects", param="samplers")

    def select(self, logits: Logits, ids: Ids | None = None) -> int:
        """Pick a token without accepting it.

        Args:
            logits: float32[n_vocab].
            ids: tokens to pick among, at least one; None = all.

        Raises:
            InvalidParameter: the chain has no selector.
        """
        self._check_complete()
        array = array_of(candidates_of(logits, ids))
        self.library.llama_sampler_apply(self.handle, ctypes.addressof(array))
        # NOTE: a sampler may have put its own memory in place of ours.
        return int(TokenData.from_address(array.data + array.selected * CANDIDATE.itemsize).id)

    def apply(self, candidates: npt.NDArray[Any]) -> tuple[int, npt.NDArray[Any]]:
        """Apply the chain to candidates, without accepting.

        Args:
            candidates: CANDIDATE[n], n >= 1; changed in place.

        Returns:
            The index of the selected one (-1 if the chain has no selector) and CANDIDATE[m] of
            those left.

        Raises:
            InvalidParameter: not such an array, or an id isn't in the vocabulary.
        """
        flat = candidates.ndim == 1 and candidates.flags.c_contiguous and len(candidates)
        if candidates.dtype != CANDIDATE or not flat:
            raise InvalidParameter("candidates must be CANDIDATE[n], n >= 1", param="candidates")
        for token in (candidates["id"].min(), candidates["id"].max()):
            self.vocab.check(token)
        return self._apply(candidates)

    def _apply(self, candidates: npt.NDArray[Any]) -> tuple[int, npt.NDArray[Any]]:
        array = array_of(candidates)
        self.library.llama_sampler_apply(self.handle, ctypes.addressof(array))
        if array.data == candidates.ctypes.data:
            return int(array.selected), candidates[: array.size]
        # A sampler put its own memory in place of ours, and may reuse it.
        buffer = (ctypes.c_uint8 * (array.size * CANDIDATE.itemsize)).from_address(array.data)
        return int(array.selected), np.frombuffer(buffer, CANDIDATE).copy()
