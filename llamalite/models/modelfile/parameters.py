"""A Modelfile's parameters: Ollama's names and our own, to settings of ModelConfig.

May import `config` and `errors`.
"""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from llamalite.config import ModelConfig, SamplingConfig
from llamalite.config.fields import checked
from llamalite.config.reading import read_text
from llamalite.errors import InvalidParameter
from llamalite.models.modelfile.syntax import Directive

OLLAMA_NAMES = {
    "num_ctx": "n_ctx",
    "num_batch": "n_batch",
    "num_thread": "n_threads",
    "num_gpu": "n_gpu_layers",
    "num_predict": "max_tokens",
}
"""What Ollama calls our settings, where its name is another one."""

_NO_MEANING = {
    "num_keep": "a prompt that is too long is refused, never cut",
    "tfs_z": "llama.cpp has no tail-free sampling any more",
    "penalize_newline": "llama.cpp has it no more; logit_bias does the same",
    "numa": "there is no such setting",
    "main_gpu": "there is no such setting",
    "low_vram": "there is no such setting",
    "f16_kv": "there is no such setting",
    "vocab_only": "there is no such setting",
    "logits_all": "there is no such setting",
    "embedding_only": "there is no such setting",
    "use_mmap": "model files are always mapped into memory",
    "use_mlock": "there is no such setting",
    "draft_num_predict": "there are no draft models",
    "rope_frequency_base": "the model's own is used",
    "rope_frequency_scale": "the model's own is used",
}

_NOT_PARAMETERS = {
    "model": "FROM",
    "chat_template": "TEMPLATE",
    "system_prompt": "SYSTEM",
    "adapters": "ADAPTER",
    "messages": "MESSAGE",
    "license": "LICENSE",
}
_LOADING = {spec.name: spec for spec in fields(ModelConfig)}
_SAMPLING = {spec.name: spec for spec in fields(SamplingConfig)}
_KNOWN = [name for name in (*_LOADING, *_SAMPLING) if name not in {*_NOT_PARAMETERS, "sampling"}]


class Parameters:
    """What a Modelfile's PARAMETER lines say, checked line by line."""

    def __init__(self) -> None:
        self.loading: dict[str, Any] = {}
        self.sampling: dict[str, Any] = {}

    def take(self, line: Directive) -> None:
        """Read one line.

        Raises:
            InvalidParameter: the parameter is unknown, has no meaning here, was given before, or
                its value is wrong.
        """
        name = _our_name(line)
        said = self.sampling if name in _SAMPLING else self.loading
        spec = _SAMPLING.get(name) or _LOADING[name]
        is_list = spec.metadata["kind"] == "texts"
        if name in said and not is_list:
            raise InvalidParameter(f"{line.where}: {line.word} was given before", param=name)
        try:
            value = [line.value] if is_list else read_text(spec, line.value)
            if name == "max_tokens" and value == -2:  # Ollama: until the context is full
                value = None
            if spec.metadata["kind"] == "table":
                ModelConfig(sampling={name: value})  # which knows what may be in it
            else:
                checked(spec, value)
        except InvalidParameter as error:
            raise InvalidParameter(f"{line.where}: {error}", param=name) from None
        if is_list:
            said.setdefault(name, []).append(line.value)
        else:
            said[name] = value


def parameter_lines(config: ModelConfig) -> list[tuple[str, str]]:
    """Return name and value of each PARAMETER line that says what a preset does."""
    import json

    loading = {name: getattr(config, name) for name in _LOADING if name in _KNOWN}
    lines = [(name, str(value)) for name, value in loading.items() if value is not None]
    for name, value in config.to_dict().get("sampling", {}).items():
        if isinstance(value, list):
            lines += [(name, item) for item in value]
        elif value is None:
            lines.append((name, str(_SAMPLING[name].metadata.get("none_as", ""))))
        else:
            lines.append((name, value if isinstance(value, str) else json.dumps(value)))
    return lines


def _our_name(line: Directive) -> str:
    given = line.word.lower()
    name = OLLAMA_NAMES.get(given, given)
    if name in _KNOWN:
        return name
    if given in _NO_MEANING:
        reason = f"{line.word} has no meaning here ({_NO_MEANING[given]}): remove the line"
    elif given in _NOT_PARAMETERS:
        reason = f"{line.word} is no parameter: write {_NOT_PARAMETERS[given]} …"
    else:
        near = get_close_matches(given, [*_KNOWN, *OLLAMA_NAMES], 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_KNOWN)}"
        reason = f"there is no parameter {line.word!r}: {hint}"
    raise InvalidParameter(f"{line.where}: {reason}", param=line.word)
