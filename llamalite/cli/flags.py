"""The flags of `run` that choose tokens or set up the model, as the values the API takes.

Owns which flag means which field of SamplingConfig or which argument of LLM; what they are for is
in the usage text of `run`. Imports `llamalite.config`, `constraint` and `errors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamalite.cli.options import Options, read_file, shown
from llamalite.config import SamplingConfig
from llamalite.constraint import check_grammar
from llamalite.errors import InvalidParameter

WHOLE_FIELDS = {
    "--top-k": "top_k",
    "--mirostat": "mirostat",
    "--repeat-last-n": "repeat_last_n",
    "--dry-allowed-length": "dry_allowed_length",
    "--dry-penalty-last-n": "dry_penalty_last_n",
}
NUMBER_FIELDS = {
    "--temperature": "temperature",
    "--top-p": "top_p",
    "--min-p": "min_p",
    "--typical": "typical_p",
    "--top-nsigma": "top_n_sigma",
    "--xtc-probability": "xtc_probability",
    "--xtc-threshold": "xtc_threshold",
    "--dynatemp-range": "dynatemp_range",
    "--dynatemp-exp": "dynatemp_exponent",
    "--mirostat-lr": "mirostat_eta",
    "--mirostat-ent": "mirostat_tau",
    "--adaptive-target": "adaptive_target",
    "--adaptive-decay": "adaptive_decay",
    "--repeat-penalty": "repeat_penalty",
    "--presence-penalty": "presence_penalty",
    "--frequency-penalty": "frequency_penalty",
    "--dry-multiplier": "dry_multiplier",
    "--dry-base": "dry_base",
}
OTHER_FIELDS = {
    "--max-tokens": "max_tokens",
    "--seed": "seed",
    "--samplers": "samplers",
    "--stop": "stop",
    "--logit-bias": "logit_bias",
    "--dry-sequence-breaker": "dry_sequence_breakers",
    "--grammar": "grammar",
}
FIELDS = {**WHOLE_FIELDS, **NUMBER_FIELDS, **OTHER_FIELDS}
"""Option → field of SamplingConfig."""
SETTINGS = {
    "--ctx-size": ("n_ctx", 0),
    "--batch-size": ("n_batch", 1),
    "--ubatch-size": ("n_ubatch", 1),
    "--threads": ("n_threads", 1),
    "--threads-batch": ("n_threads_batch", 1),
}
"""Option → keyword argument of LLM, and the least it may be."""
SETTING_FIELDS = {name: field for name, (field, _) in SETTINGS.items()} | {
    "--gpu-layers": "n_gpu_layers",
    "--cache-type-k": "cache_type_k",
    "--cache-type-v": "cache_type_v",
}
"""Option → keyword argument of LLM, of all."""
_BIAS = re.compile(r"([0-9]{1,9})([+-](?:[0-9]+\.?[0-9]*|\.[0-9]+|inf))")
_LLAMA_CPP_SAMPLERS = {"typ_p": "typical_p", "temp": "temperature", "top_nsigma": "top_n_sigma"}


def read_sampling(options: Options) -> dict[str, Any]:
    """Return the sampling parameters that were given, checked; the others are as configured."""
    fields: dict[str, Any] = {}
    fields.update({field: options.whole(name) for name, field in WHOLE_FIELDS.items()})
    fields.update({field: options.number(name) for name, field in NUMBER_FIELDS.items()})
    fields["grammar"] = _grammar(options)
    fields["samplers"] = _samplers(options.text("--samplers"))
    fields["stop"] = tuple(options.texts("--stop")) or None
    fields["dry_sequence_breakers"] = tuple(options.texts("--dry-sequence-breaker")) or None
    fields["logit_bias"] = dict(map(_bias, options.texts("--logit-bias"))) or None
    fields["ignore_eos"] = options.flag("--ignore-eos") or None
    given = {name: value for name, value in fields.items() if value is not None}
    for name in ("--max-tokens", "--seed"):
        value = options.whole(name)
        if value is not None:
            given[OTHER_FIELDS[name]] = None if value == -1 else value
    try:
        SamplingConfig(**given)
    except InvalidParameter as error:
        raise by_option(error, FIELDS) from None
    return given


def by_option(error: InvalidParameter, names: Mapping[str, str]) -> InvalidParameter:
    """Return the error with the option's name in the place of the parameter's."""
    option = next((name for name, field in names.items() if field == error.param), None)
    if option is None or error.param is None:
        return error
    return InvalidParameter(str(error).replace(error.param, option, 1), param=option)


def _grammar(options: Options) -> str | None:
    text, from_file = options.text("--grammar"), options.file_text("--grammar-file")
    if text is not None and from_file is not None:
        raise InvalidParameter("--grammar and --grammar-file exclude each other")
    grammar = text if text is not None else from_file
    if grammar is not None:
        check_grammar(grammar)
    return grammar


def _samplers(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(";") if name.strip()]
    return tuple(_LLAMA_CPP_SAMPLERS.get(name, name) for name in names)


def _bias(spec: str) -> tuple[int, float]:
    match = _BIAS.fullmatch(spec)
    if match is None:
        raise InvalidParameter(
            f"--logit-bias must be TOKEN_ID+BIAS or TOKEN_ID-BIAS, not {shown(spec)}",
            param="--logit-bias",
        )
    return int(match[1]), float(match[2])


def read_settings(options: Options) -> dict[str, Any]:
    """Return the keyword arguments of LLM that were given."""
    settings = {field: options.whole(name, low) for name, (field, low) in SETTINGS.items()} | {
        "n_gpu_layers": _layers(options),
        "cache_type_k": options.text("--cache-type-k"),
        "cache_type_v": options.text("--cache-type-v"),
        "chat_template": _template(options.text("--template")),
        "force": options.flag("--force") or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _layers(options: Options) -> int | None:
    words = {"all": -1, "auto": None}  # llama.cpp's
    text = options.text("--gpu-layers")
    return words[text] if text in words else options.whole("--gpu-layers", -1)


def _template(name: str | None) -> str | None:
    """Return a template's name, or its text if the option holds that or names a file."""
    if name is None or "{{" in name or "{%" in name:
        return name
    try:
        is_file = Path(name).is_file()
    except (OSError, ValueError):
        is_file = False
    looks_like_path = "/" in name or "\\" in name or name.endswith((".jinja", ".jinja2", ".j2"))
    return read_file(name, "--template") if is_file or looks_like_path else name
