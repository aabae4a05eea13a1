"""The fields by which a request says how tokens are chosen, and what they mean to the engine.

OpenAI's names and the common extensions, which are llama-server's. Owns the way from them to
SamplingConfig and Constraint. Imports msgspec, `llamalite.config`, `llamalite.constraint` and the
server's problems.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.core.vocab import Vocab
from llamalite.errors import InvalidParameter
from llamalite.server.problems import not_supported, refuse

_SAME = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "min_keep",
    "dynatemp_range", "dynatemp_exponent", "xtc_probability", "xtc_threshold", "repeat_penalty",
    "frequency_penalty", "presence_penalty", "repeat_last_n", "dry_multiplier", "dry_base",
    "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "mirostat",
    "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay", "samplers", "ignore_eos",
    "grammar",
)  # fmt: skip
"""Fields of requests and of SamplingConfig alike."""
_SAMPLERS = {"typ_p": "typical_p", "temp": "temperature"}
"""llama-server's names of samplers that have another here."""
_MOST_STOPS = 64


class StreamOptions(msgspec.Struct, kw_only=True):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True):
    """What every generating request may say; None = as configured for the model."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | list[list[int | str | float | bool]] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    min_keep: int | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    adaptive_target: float | None = None
    adaptive_decay: float | None = None
    samplers: list[str] | None = None
    ignore_eos: bool | None = None
    grammar: str | None = None
    json_schema: Any = None
    cache_prompt: bool | None = None
    timings_per_token: bool | None = None
    # Bookkeeping: it changes no answer.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None


def sampling_of(
    fields: SamplingFields, defaults: SamplingConfig, vocab: Vocab, max_tokens: int | None
) -> SamplingConfig:
    """Return how tokens are chosen.

    Raises:
        InvalidParameter: a value is out of range; `param` names the field.
        HTTPProblem: a field can't be honoured.
    """
    said: dict[str, Any] = {
        name: value for name in _SAME if (value := getattr(fields, name)) is not None
    }
    if fields.dry_sequence_breakers is not None:
        said["dry_sequence_breakers"] = tuple(fields.dry_sequence_breakers)
    if fields.samplers is not None:
        said["samplers"] = tuple(_SAMPLERS.get(name, name) for name in fields.samplers)
    if fields.top_k == -1:
        said["top_k"] = 0
    if fields.seed is not None:
        if not -(2**63) <= fields.seed < 2**63:
            raise refuse(400, "seed: a whole number of 64 bits is wanted", param="seed")
        seed = fields.seed % 2**32
        said["seed"] = None if seed == 2**32 - 1 else seed  # llama.h's word for a random one
    if max_tokens is not None:
        said["max_tokens"] = None if max_tokens == -1 else max_tokens
    if fields.stop is not None:
        stops = [fields.stop] if isinstance(fields.stop, str) else fields.stop
        if len(stops) > _MOST_STOPS:
            raise refuse(400, f"stop: more than {_MOST_STOPS} strings", param="stop")
        said["stop"] = tuple(stops)
    if fields.logit_bias is not None:
        said["logit_bias"] = biases_of(fields.logit_bias, vocab)
    if said.get("grammar") == "":
        del said["grammar"]
    return defaults.replace(**said)


def biases_of(said: Any, vocab: Vocab) -> dict[int, float]:
    """Return biases by token: OpenAI's object, or llama-server's pairs, text meaning its tokens."""
    pairs = list(said.items()) if isinstance(said, dict) else said
    biases: dict[int, float] = {}
    for pair in pairs:
        if len(pair) != 2:
            raise refuse(400, "logit_bias: a token and its bias are wanted", param="logit_bias")
        token, bias = pair
        if isinstance(bias, str) or bias is True:
            raise refuse(400, f"logit_bias: {bias!r} is no bias", param="logit_bias")
        weight = -math.inf if bias is False else float(bias)
        if isinstance(said, dict) and not str(token).isdecimal():
            raise refuse(400, f"logit_bias: {token!r} is no token id", param="logit_bias")
        if isinstance(token, str) and not isinstance(said, dict):
            for one in vocab.tokenize(token, add_special=False):
                biases[one] = weight
        else:
            biases[int(token)] = weight
    return biases


def constraint_of(response_format: Any, fields: SamplingFields) -> Constraint | None:
    """Return what the answer must follow: OpenAI's `response_format`, or `json_schema`.

    Raises:
        HTTPProblem: the format is unknown, or there are two constraints.
    """
    found = _from_format(response_format)
    if fields.json_schema is not None:
        if found is not None:
            raise _two("json_schema")
        found = Constraint("json_schema", _schema_text(fields.json_schema))
    if fields.grammar and found is not None:
        raise _two("grammar")
    return found


def _two(param: str) -> Exception:
    return refuse(400, f"{param}: an answer can follow one constraint, not two", param=param)


def _from_format(said: Any) -> Constraint | None:
    if said is None:
        return None
    param = "response_format"
    if not isinstance(said, dict):
        raise refuse(400, f"{param} must be an object", param=param)
    kind = said.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = said.get("schema")  # llama-server's way
        if schema:
            return Constraint("json_schema", _schema_text(schema))
        return Constraint("json_object")
    if kind == "json_schema":
        inner = said.get("json_schema", said)
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if schema is None:
            raise refuse(400, f"{param}.json_schema.schema is missing", param=param)
        return Constraint("json_schema", _schema_text(schema))
    raise refuse(
        400, f"{param}.type is {str(kind)[:60]!r}, none of text, json_object, json_schema",
        param=f"{param}.type",
    )  # fmt: skip


def _schema_text(schema: Any) -> str:
    if not isinstance(schema, dict | bool):
        raise refuse(400, "a JSON schema must be an object", param="json_schema")
    return msgspec.json.encode(schema).decode()


def count_of(fields: SamplingFields) -> int:
    """Return how many answers are wanted."""
    if fields.n is not None and fields.n < 1:
        raise InvalidParameter(f"n is {fields.n}, and at least 1 answer is needed", param="n")
    return fields.n or 1


def wants_usage(fields: SamplingFields) -> bool:
    """Say whether a stream ends with the counts of tokens."""
    if fields.stream_options is not None and not fields.stream:
        raise refuse(400, "stream_options are for streams alone", param="stream_options")
    return bool(fields.stream_options and fields.stream_options.include_usage)


def refuse_if_said(said: dict[str, Any], names: dict[str, tuple[Any, ...]]) -> None:
    """Refuse fields that would change the answer and can't be honoured.

    Args:
        said: the request.
        names: field → the values that ask for nothing, besides null.
    """
    for name, harmless in names.items():
        if name in said and said[name] is not None and said[name] not in harmless:
            raise refuse(400, f"{name} isn't supported here: leave it out", param=name,
                         code="unsupported_parameter")  # fmt: skip


def refuse_tools(said: dict[str, Any]) -> None:
    """Answer 501 to requests with tools."""
    for name in ("tools", "functions"):
        if said.get(name):
            raise not_supported(name, name)
    for name in ("tool_choice", "function_call"):
        if said.get(name) not in (None, "none", "auto"):
            raise not_supported(name, name)
