"""Settings as a person names and writes them: `n_ctx`, `aliases.tiny`, `models.NAME.n_ctx`.

Owns where in the file a key lies, what may be written there, and the file that explains itself.
Doesn't know how the file is edited. Imports the standard library, `llamalite.errors` and its
siblings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from llamalite.config.fields import limits, plain
from llamalite.config.layers import NOT_BY_FILE
from llamalite.config.reading import read_text, unknown_key
from llamalite.config.settings import (
    SECTIONS,
    LLMConfig,
    ModelConfig,
    checked_text,
    known_keys,
)

_QUOTED = re.compile(r"""(^|\.)(["'])(.+?)\2(?=\.|$)""")


def split_key(key: str) -> tuple[str, ...]:
    """Return where a setting lies in the file: its tables from the outermost, and its name.

    Raises:
        InvalidParameter: there is no such setting; the message has the nearest.
    """
    first, _, rest = key.partition(".")
    if first == "aliases" and rest:
        return (first, rest)
    if first == "models":
        settings = [name for name in known_keys(ModelConfig) if name not in NOT_BY_FILE]
        # A model's name may hold dots, so the setting is looked for from the end.
        for setting in settings:
            if rest.endswith(f".{setting}") and len(rest) > len(setting) + 1:
                return (first, rest.removesuffix(f".{setting}"), *setting.split("."))
        raise unknown_key(key, (f"models.NAME.{name}" for name in settings))
    if key in known_keys():
        return tuple(key.split("."))
    raise unknown_key(key, known_keys())


def without_quotes(key: str) -> str:
    """Return a key without the quotes that TOML puts around parts of one."""
    return _QUOTED.sub(r"\1\3", key)


def find_key(said: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """Return where a key lies in what a file says, known or not, or None."""
    for name, value in said.items():
        if key == name:
            return (name,)
        if isinstance(value, Mapping) and key.startswith(f"{name}."):
            inner = find_key(value, key.removeprefix(f"{name}."))
            if inner is not None:
                return (name, *inner)
    return None


def file_value(keys: tuple[str, ...], written: str) -> Any:
    """Return what goes into the file where a person wrote `written`.

    Args:
        keys: as split_key returns them.
        written: text; lists and tables are JSON.

    Raises:
        InvalidParameter: it is no value of that setting.
    """
    if keys[0] == "aliases":
        return LLMConfig(aliases={keys[1]: written}).aliases[keys[1]]
    if keys[0] == "models":
        return _model_value(keys[1], keys[2:], written)
    spec = known_keys()[".".join(keys)]
    return _for_file(spec, checked_text(".".join(keys), written))


def _model_value(name: str, keys: tuple[str, ...], written: str) -> Any:
    spec = known_keys(ModelConfig)[".".join(keys)]
    value: Any = _for_file(spec, read_text(spec, written))
    said: Any = value
    for key in reversed(keys):
        said = {key: said}
    LLMConfig(models={name: ModelConfig.from_dict(said, f"models.{name}")})
    return value


def _for_file(spec: Field[Any], value: Any) -> Any:
    if value is None:
        return spec.metadata["none_as"]
    return plain(value.absolute() if spec.metadata["kind"] == "folder" else value)


_HEAD = """\
# Settings of llamalite. A line counts when its leading # is gone. What the command line or a
# LLAMALITE_* variable says (LLAMALITE_N_CTX, LLAMALITE_SAMPLING_TEMPERATURE …) wins over this file.
# 'llamalite config show' prints what holds, and who said it.
"""
_TAIL = """
# What holds for one model alone: whatever may stand above the first [table], but for default_model
# and models_dir; sampling; adapters, a list of {path = "FILE", scale = 1.0}; and messages, a list
# of {role = "user", content = "TEXT"}.
#[models."smollm2:135m"]
#n_ctx = 4096
#sampling.temperature = 0.2

# Other names for models.
[aliases]
#tiny = "smollm2:135m"
"""


def commented_file() -> str:
    """Return a configuration file that sets nothing and explains every setting."""
    lines = [_HEAD]
    sections: set[str] = set()
    for key, spec in known_keys().items():
        section, _, name = key.rpartition(".")
        if section and section not in sections:
            sections.add(section)
            lines.append(f"\n[{section}]")
        default = "" if spec.default is None else f" {_as_toml(plain(_default(section, name)))}"
        lines += [f"# {_explained(spec)}", f"#{name} ={default}"]
    return "\n".join(lines) + "\n" + _TAIL


def _default(section: str, name: str) -> Any:
    return getattr(SECTIONS.get(section, LLMConfig)(), name)


def _explained(spec: Field[Any]) -> str:
    kinds = {"whole": "whole number", "number": "number", "flag": "true or false"}
    kind = kinds.get(spec.metadata["kind"])
    doc: str = spec.metadata["doc"]
    if "low" in spec.metadata:
        kind = f"{kind} in {limits(spec.metadata)}"
    if "none_as" in spec.metadata:
        doc = f"{doc}, written {spec.metadata['none_as']}"
    return f"{doc} ({kind})" if kind else doc


def _as_toml(value: Any) -> str:
    """Write a default: text, numbers, truth, lists of text and empty tables are as in JSON."""
    return json.dumps(value, ensure_ascii=False)


def shown_value(key: str, value: Any) -> Any:
    """Return a value for the screen: secrets become asterisks."""
    spec = known_keys().get(key)
    is_secret = spec is not None and spec.metadata.get("is_secret")
    return ["***" for _ in value] if is_secret else plain(value)
