"""From a SamplingConfig to a sampler chain.

Imports numpy, `ffi`, `llamalite.config`, `llamalite.errors` and its own siblings.

Source: the order is llama.cpp's common_sampler_init.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.core.sampler import SamplerChain, random_seed
from llamalite.errors import InvalidParameter
from llamalite.ffi.structs import DEFAULT_SEED

if TYPE_CHECKING:
    from llamalite.config import SamplingConfig
    from llamalite.core.vocab import Vocab


def build_chain(config: SamplingConfig, vocab: Vocab, n_ctx: int, index: int = 0) -> SamplerChain:
    """Make the chain that a configuration asks for; samplers that are off are left out.

    Biases and the grammar come before a chain and aren't part of it.

    Args:
        config: validated.
        vocab: the vocabulary sampled from.
        n_ctx: what "the whole context" means for penalties.
        index: which answer of several; added to the seed.

    Raises:
        SymbolMissing: this build lacks a sampler that was asked for.
    """
    chain = SamplerChain(vocab, n_ctx)
    seed = random_seed() if config.seed is None else (config.seed + index) % DEFAULT_SEED
    try:
        _fill(chain, config, seed)
    except BaseException:
        chain.close()
        raise
    return chain


def biases(
    config: SamplingConfig, vocab: Vocab
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return which tokens have a bias and which: int32[n] ids and float32[n], -inf = never.

    Raises:
        InvalidParameter: a token isn't in the vocabulary, or all of them are forbidden.
    """
    bias = dict(config.logit_bias)
    if config.ignore_eos:
        bias.update(dict.fromkeys(vocab.eog_tokens, -math.inf))
    if sum(value == -math.inf for value in bias.values()) == vocab.n_tokens:
        raise InvalidParameter(
            "logit_bias forbids every token of the vocabulary: leave some", param="logit_bias"
        )
    ids = np.array([vocab.check(token) for token in bias], np.int32)
    return ids, np.array(list(bias.values()), np.float32)


def _fill(chain: SamplerChain, config: SamplingConfig, seed: int) -> None:
    if config.temperature == 0:
        for name in config.samplers:
            if name in {"penalties", "dry"}:
                _STEPS[name](chain, config, seed)
        chain.greedy()
    elif config.mirostat:
        chain.temperature(config.temperature)
        add = chain.mirostat if config.mirostat == 1 else chain.mirostat_v2
        add(seed, config.mirostat_tau, config.mirostat_eta)
    else:
        for name in config.samplers:
            _STEPS[name](chain, config, seed)
        if config.adaptive_target >= 0:
            chain.adaptive_p(config.adaptive_target, config.adaptive_decay, seed)
        else:
            chain.dist(seed)


def _penalties(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    strengths = (config.repeat_penalty, config.frequency_penalty, config.presence_penalty)
    if config.repeat_last_n and strengths != (1.0, 0.0, 0.0):
        chain.penalties(config.repeat_last_n, *strengths)


def _dry(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.dry_multiplier and config.dry_penalty_last_n:
        chain.dry(
            config.dry_multiplier, config.dry_base, config.dry_allowed_length,
            config.dry_penalty_last_n, config.dry_sequence_breakers,
        )  # fmt: skip


def _top_n_sigma(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.top_n_sigma >= 0:
        chain.top_n_sigma(config.top_n_sigma)


def _top_k(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.top_k:
        chain.top_k(config.top_k)


def _typical(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.typical_p < 1:
        chain.typical(config.typical_p, config.min_keep)


def _top_p(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.top_p < 1:
        chain.top_p(config.top_p, config.min_keep)


def _min_p(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.min_p > 0:
        chain.min_p(config.min_p, config.min_keep)


def _xtc(chain: SamplerChain, config: SamplingConfig, seed: int) -> None:
    if config.xtc_probability > 0:
        chain.xtc(config.xtc_probability, config.xtc_threshold, config.min_keep, seed)


def _temperature(chain: SamplerChain, config: SamplingConfig, _seed: int) -> None:
    if config.dynatemp_range > 0:
        chain.dynamic_temperature(
            config.temperature, config.dynatemp_range, config.dynatemp_exponent
        )
    elif config.temperature != 1:
        chain.temperature(config.temperature)


_STEPS: dict[str, Callable[[SamplerChain, SamplingConfig, int], None]] = {
    "penalties": _penalties,
    "dry": _dry,
    "top_n_sigma": _top_n_sigma,
    "top_k": _top_k,
    "typical_p": _typical,
    "top_p": _top_p,
    "min_p": _min_p,
    "xtc": _xtc,
    "temperature": _temperature,
}
