"""What a file or a person says, turned into settings.

Owns how values are written as text, and what is said of an unknown key. Doesn't know which settings
there are. Imports the standard library, `llamalite.errors` and `fields`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

from llamalite.config.fields import shown
from llamalite.errors import InvalidParameter

_FLAGS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
_OTHER_NAMES = {
    "context_size": "n_ctx", "ctx_size": "n_ctx", "context_length": "n_ctx", "num_ctx": "n_ctx",
    "context": "n_ctx", "batch_size": "n_batch", "num_batch": "n_batch", "ubatch_size": "n_ubatch",
    "threads": "n_threads", "num_thread": "n_threads", "threads_batch": "n_threads_batch",
    "gpu_layers": "n_gpu_layers", "ngl": "n_gpu_layers", "num_gpu": "n_gpu_layers",
    "type_k": "cache_type_k", "type_v": "cache_type_v",
    "system": "system_prompt", "template": "chat_template", "model": "default_model",
    "models_path": "models_dir", "models_folder": "models_dir", "temp": "temperature",
    "n_predict": "max_tokens", "num_predict": "max_tokens", "max_new_tokens": "max_tokens",
    "repetition_penalty": "repeat_penalty", "stop_sequences": "stop", "typical": "typical_p",
    "api_key": "api_keys", "cors": "cors_origins", "timeout": "timeout_s",
}  # fmt: skip
"""What others call our settings."""


def read_text(spec: Field[Any], value: str) -> Any:
    """Turn what a person typed, or a variable holds, into a value of the field's kind.

    Lists and tables are JSON; what isn't JSON is a list's only string.

    Raises:
        InvalidParameter: the text is no such value; ranges aren't checked.
    """
    import json

    kind, name = spec.metadata["kind"], spec.name
    if kind in {"whole", "number"}:
        return _read_number(spec, value.strip())
    if kind == "flag":
        known = _FLAGS.get(value.strip().lower())
        return value if known is None else known
    if kind in {"table", "list"} or (kind == "texts" and value.lstrip().startswith("[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            instead = "" if spec.metadata.get("is_secret") else f", not {shown(value)}"
            raise InvalidParameter(
                f"{name} must be JSON ({spec.metadata['doc']}){instead}", param=name
            ) from None
    return value


def _read_number(spec: Field[Any], value: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return without_none(spec, kind(value.replace("_", "?")))
    return value  # the check says what it must be


def without_none(spec: Field[Any], value: Any) -> Any:
    """Return None if the value is what stands for it where None can't be written."""
    stands_for_none = "none_as" in spec.metadata and value == spec.metadata["none_as"]
    return None if stands_for_none and not isinstance(value, bool) else value


def unknown_key(key: str, known: Iterable[str], where: str = "") -> InvalidParameter:
    """Return the error for a key that isn't known, with the one that may be meant."""
    meant = _nearest(key.rpartition(".")[2], known)
    hint = f"did you mean {meant}?" if meant else "see 'llamalite config show' for all there are"
    begin = f"{where}: " if where else ""
    return InvalidParameter(f"{begin}there is no setting {shown(key)}: {hint}", param=key)


def checked_keys(
    cls: type, said: Any, where: str, section: str = "", *, all_keys: Iterable[str]
) -> dict[str, Any]:
    """Return a table's values by field, after a check that each key is one.

    Args:
        cls: the settings class.
        said: what a file holds for it.
        where: the file, for errors.
        section: the table's name, if it is one inside the file.
        all_keys: what may be meant by a key besides this table's own.

    Raises:
        InvalidParameter: it is no table, or a key is unknown.
    """
    if not isinstance(said, Mapping):
        raise InvalidParameter(
            f"{where}: {section or 'it'} must be a table, not {shown(said)}", param=section or None
        )
    specs = {spec.name: spec for spec in fields(cls)}
    known = [f"{section}.{name}" if section else name for name in specs]
    for key in said:
        if key not in specs:
            begin = f"{section}." if section else ""
            raise unknown_key(f"{begin}{key}", [*known, *all_keys], where)
    return {key: without_none(specs[key], value) for key, value in said.items()}


def make(cls: type, values: Mapping[str, Any], where: str, section: str = "") -> Any:
    """Make a settings object of values that a file or a variable holds.

    Raises:
        InvalidParameter: a value is wrong; the message begins with `where` and the key.
    """
    try:
        return cls(**values)
    except InvalidParameter as error:
        begin = f"{section}." if section else ""
        key = f"{begin}{error.param}"
        raise InvalidParameter(f"{where}: {begin}{error}", param=key) from None


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was meant, or None.

    Args:
        name: what was written, without its section.
        known: names, each with its section.
    """
    from difflib import get_close_matches

    ours = {full.rpartition(".")[2]: full for full in reversed(list(known))}
    wanted = name.lower().replace("-", "_")
    wanted = _OTHER_NAMES.get(wanted, wanted)
    if wanted in ours:
        return ours[wanted]
    near = get_close_matches(wanted, ours, 1, 0.6)
    return ours[near[0]] if near else None
