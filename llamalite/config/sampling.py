"""How tokens are chosen: one frozen dataclass, validated when made.

Owns the meaning, range and default of every sampling parameter. Imports the standard library and
`llamalite.errors` alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

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

_MAX_INT32 = 2**31 - 1


def _number(
    default: float | int | None, low: float, high: float, doc: str, *, open_low: bool = False
) -> Any:
    meta = {"low": low, "high": high, "open_low": open_low, "doc": doc}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are chosen and when generation ends.

    The defaults are llama.cpp's. Unknown names can't be passed, and values out of range raise.

    Raises:
        InvalidParameter: a value has the wrong type or is out of range; `param` names it.

    Source: llama.h samplers (v0.5.0); llama.cpp `common_params_sampling`.
    """

    temperature: float = _number(0.8, 0.0, 1e6, "0 = greedy")
    top_k: int = _number(40, 0, _MAX_INT32, "0 = off")
    top_p: float = _number(0.95, 0.0, 1.0, "1 = off")
    min_p: float = _number(0.05, 0.0, 1.0, "0 = off")
    typical_p: float = _number(1.0, 0.0, 1.0, "1 = off")
    top_n_sigma: float = _number(-1.0, -1.0, 1e6, "below 0 = off")
    min_keep: int = _number(0, 0, _MAX_INT32, "candidates the truncating samplers must leave")
    dynatemp_range: float = _number(0.0, 0.0, 1e6, "0 = off; temperature ± this, by entropy")
    dynatemp_exponent: float = _number(1.0, 0.0, 1e6, "curve of the dynamic temperature")
    xtc_probability: float = _number(0.0, 0.0, 1.0, "0 = off")
    xtc_threshold: float = _number(0.1, 0.0, 1.0, "above 0.5 = off")
    repeat_penalty: float = _number(1.0, 0.0, 1e6, "1 = off", open_low=True)
    frequency_penalty: float = _number(0.0, -1e6, 1e6, "0 = off")
    presence_penalty: float = _number(0.0, -1e6, 1e6, "0 = off")
    repeat_last_n: int = _number(64, -1, _MAX_INT32, "tokens penalised; 0 = off, -1 = context")
    dry_multiplier: float = _number(0.0, 0.0, 1e6, "0 = off")
    dry_base: float = _number(1.75, 1.0, 1e6, "growth of the DRY penalty")
    dry_allowed_length: int = _number(2, 0, _MAX_INT32, "repeats up to this length are free")
    dry_penalty_last_n: int = _number(-1, -1, _MAX_INT32, "0 = off, -1 = context")
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = _number(0, 0, 2, "0 = off, 1 or 2 = version")
    mirostat_tau: float = _number(5.0, 0.0, 1e6, "target surprise")
    mirostat_eta: float = _number(0.1, 0.0, 1e6, "learning rate")
    adaptive_target: float = _number(-1.0, -1.0, 1.0, "below 0 = off; target probability")
    adaptive_decay: float = _number(0.9, 0.0, 0.99, "history of adaptive-p")
    samplers: tuple[str, ...] = SAMPLER_ORDER
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    grammar: str | None = None
    grammar_root: str = "root"
    seed: int | None = _number(None, 0, 2**32 - 2, "None = random")
    max_tokens: int | None = _number(None, 0, _MAX_INT32, "no limit = until the context is full")
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for spec in fields(self):
            if "low" in spec.metadata:
                _check_number(spec.name, getattr(self, spec.name), str(spec.type), spec.metadata)
        self._check_strings()
        self._check_logit_bias()

    def _check_strings(self) -> None:
        for name in ("stop", "dry_sequence_breakers", "samplers"):
            value = getattr(self, name)
            try:
                items = (value,) if isinstance(value, str) else tuple(value)
            except TypeError:
                items = (value,)
            if not all(isinstance(item, str) and item for item in items):
                raise InvalidParameter(
                    f"{name} must be non-empty strings, not {value!r}", param=name
                )
            object.__setattr__(self, name, items)
        unknown = [name for name in self.samplers if name not in SAMPLER_ORDER]
        if unknown:
            known = ", ".join(SAMPLER_ORDER)
            raise InvalidParameter(
                f"samplers names {unknown[0]!r}, which is not one of {known}", param="samplers"
            )
        for name in ("grammar", "grammar_root"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or "\0" in value):
                raise InvalidParameter(f"{name} must be text without NUL characters", param=name)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidParameter("ignore_eos must be true or false", param="ignore_eos")

    def _check_logit_bias(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidParameter("logit_bias must map token ids to numbers", param="logit_bias")
        bias: dict[int, float] = {}
        for token, value in self.logit_bias.items():
            try:
                number, weight = operator.index(token), float(value)
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
            bias[number] = weight
        object.__setattr__(self, "logit_bias", MappingProxyType(bias))

    def replace(self, **changes: Any) -> SamplingConfig:
        """Return a copy with some fields changed; unknown names raise InvalidParameter."""
        known = {spec.name for spec in fields(self)}
        for name in changes:
            if name not in known:
                raise InvalidParameter(f"there is no sampling parameter {name!r}", param=name)
        return replace(self, **changes)


def _check_number(name: str, value: Any, kind: str, meta: Mapping[str, Any]) -> None:
    if value is None and "None" in kind:
        return
    wants_int = kind.startswith("int")
    allowed = int if wants_int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        what = "a whole number" if wants_int else "a number"
        raise InvalidParameter(f"{name} must be {what}, not {value!r}", param=name)
    low, high = meta["low"], meta["high"]
    below = value <= low if meta["open_low"] else value < low
    if below or value > high or math.isnan(value):
        bracket = "(" if meta["open_low"] else "["
        raise InvalidParameter(
            f"{name} is {value!r}, outside {bracket}{low:g}, {high:g}] ({meta['doc']})", param=name
        )
