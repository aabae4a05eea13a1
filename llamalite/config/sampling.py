"""How tokens are chosen: one frozen dataclass, validated when made.

Owns the meaning, range and default of every sampling parameter. Imports the standard library,
`llamalite.errors` and `fields`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from llamalite.config.fields import (
    MAX_INT32,
    check_fields,
    flag,
    number,
    table,
    text,
    texts,
    whole,
)
from llamalite.errors import InvalidParameter

SAMPLER_ORDER = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
"""llama.cpp's default order of the samplers whose order can be chosen."""


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are chosen and when generation ends.

    The defaults are llama.cpp's. Unknown names can't be passed, and values out of range raise.

    As in llama.cpp, some settings leave others without effect: at temperature 0 only penalties and
    DRY count of the samplers, and with mirostat only temperature does, neither penalties nor DRY.
    Biases, `ignore_eos` and grammars always count.

    Raises:
        InvalidParameter: a value has the wrong type or is out of range; `param` names it.

    Source: llama.h samplers (v0.5.0); llama.cpp `common_params_sampling`.
    """

    temperature: float = number(0.8, 0.0, 1e6, "0 = always the likeliest token")
    top_k: int = whole(40, 0, MAX_INT32, "choose among so many; 0 = off")
    top_p: float = number(
        0.95, 0.0, 1.0, "choose among the likeliest that make up this share; 1 = off"
    )
    min_p: float = number(0.05, 0.0, 1.0, "least probability, relative to the likeliest; 0 = off")
    typical_p: float = number(
        1.0, 0.0, 1.0, "choose among the most typical that make up this share; 1 = off"
    )
    top_n_sigma: float = number(
        -1.0, -1.0, 1e6, "most standard deviations below the top; below 0 = off"
    )
    min_keep: int = whole(0, 0, MAX_INT32, "candidates the truncating samplers must leave")
    dynatemp_range: float = number(0.0, 0.0, 1e6, "temperature ± this, by entropy; 0 = off")
    dynatemp_exponent: float = number(1.0, 0.0, 1e6, "curve of the dynamic temperature")
    xtc_probability: float = number(
        0.0, 0.0, 1.0, "chance that the likeliest are left out; 0 = off"
    )
    xtc_threshold: float = number(
        0.1, 0.0, 1.0, "probability from which XTC leaves out; above 0.5 = off"
    )
    repeat_penalty: float = number(
        1.0, 0.0, 1e6, "divides the logits of repeated tokens; 1 = off", open_low=True
    )
    frequency_penalty: float = number(
        0.0, -1e6, 1e6, "taken off for each time a token came; 0 = off"
    )
    presence_penalty: float = number(
        0.0, -1e6, 1e6, "taken off once for a token that came; 0 = off"
    )
    repeat_last_n: int = whole(64, -1, MAX_INT32, "tokens penalised; 0 = off, -1 = context")
    dry_multiplier: float = number(
        0.0, 0.0, 1e6, "strength of the DRY penalty on repeated sequences; 0 = off"
    )
    dry_base: float = number(1.75, 1.0, 1e6, "growth of the DRY penalty")
    dry_allowed_length: int = whole(2, 0, MAX_INT32, "repeats up to this length are free")
    dry_penalty_last_n: int = whole(
        -1, -1, MAX_INT32, "tokens DRY looks back at; 0 = off, -1 = context"
    )
    dry_sequence_breakers: tuple[str, ...] = texts(
        ("\n", ":", '"', "*"), "texts that repeats don't span"
    )
    mirostat: int = whole(
        0, 0, 2, "version of mirostat; 0 = off. With it only temperature counts of `samplers`"
    )
    mirostat_tau: float = number(5.0, 0.0, 1e6, "mirostat's target surprise")
    mirostat_eta: float = number(0.1, 0.0, 1e6, "mirostat's learning rate")
    adaptive_target: float = number(
        -1.0, -1.0, 1.0, "target probability of adaptive-p; below 0 = off"
    )
    adaptive_decay: float = number(0.9, 0.0, 0.99, "how long adaptive-p remembers")
    samplers: tuple[str, ...] = texts(
        SAMPLER_ORDER, "order of the samplers; one left out is off", among=SAMPLER_ORDER
    )
    logit_bias: Mapping[int, float] = table("added to the logits of token ids; -inf = never")
    grammar: str | None = text(None, "GBNF grammar that the answer follows", may_be_empty=True)
    grammar_root: str = text("root", "rule the grammar begins with", may_be_empty=True)
    seed: int | None = whole(None, 0, 2**32 - 2, "same seed, same text; none = random", none_as=-1)
    max_tokens: int | None = whole(
        None, 0, MAX_INT32, "most tokens in an answer; none = until the context is full", none_as=-1
    )
    stop: tuple[str, ...] = texts((), "texts the answer ends before")
    ignore_eos: bool = flag(False, "go on after the end of the answer")

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_logit_bias()

    def _check_logit_bias(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidParameter("logit_bias must map token ids to numbers", param="logit_bias")
        bias: dict[int, float] = {}
        for token, value in self.logit_bias.items():
            try:
                # JSON and TOML have only text for keys.
                is_text = isinstance(token, str) and token.isdecimal()
                token_id = int(token) if is_text else operator.index(token)
                weight = float(value)
            except (TypeError, ValueError, OverflowError):
                raise InvalidParameter(
                    f"logit_bias maps token ids to numbers, not {token!r} to {value!r}",
                    param="logit_bias",
                ) from None
            if isinstance(token, bool) or math.isnan(weight) or weight == math.inf:
                raise InvalidParameter(
                    f"logit_bias of token {token} must be a number or -inf, not {value!r}",
                    param="logit_bias",
                )
            bias[token_id] = weight
        object.__setattr__(self, "logit_bias", MappingProxyType(bias))

    def replace(self, **changes: Any) -> SamplingConfig:
        """Return a copy with some fields changed; unknown names raise InvalidParameter."""
        known = {spec.name for spec in fields(self)}
        for name in changes:
            if name not in known:
                raise InvalidParameter(f"there is no sampling parameter {name!r}", param=name)
        return replace(self, **changes)
