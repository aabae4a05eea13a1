"""The settings of a model, of the server, and of llamalite as a whole: checked when made.

Owns which settings there are, their defaults and ranges. Doesn't know where values come from.
Imports the standard library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llamalite.config.cache_types import CACHE_TYPES
from llamalite.config.fields import (
    MAX_INT32,
    MAX_UINT32,
    check_fields,
    number,
    plain,
    shown,
    table,
    text,
    texts,
    whole,
)
from llamalite.config.naming import check_name
from llamalite.config.reading import checked_keys, make, read_text
from llamalite.config.sampling import SamplingConfig
from llamalite.errors import InvalidParameter

_MOST_THREADS = 512

_LOADING: dict[str, tuple[int, int, str]] = {
    "n_ctx": (0, MAX_UINT32, "context in tokens; 0 = the model's own, none = at most 8192 of it"),
    "n_batch": (1, MAX_UINT32, "most tokens computed in one call"),
    "n_ubatch": (1, MAX_UINT32, "most tokens computed at once"),
    "n_threads": (1, _MOST_THREADS, "threads for decoding; none = physical cores"),
    "n_threads_batch": (1, _MOST_THREADS, "threads for prefill; none = as n_threads"),
    "n_gpu_layers": (-1, MAX_INT32, "layers on the GPU; -1 = all, none = all if there is a GPU"),
}


def _cache_type(what: str) -> Any:
    return text(None, f"type of cached {what}: {', '.join(CACHE_TYPES)}", among=CACHE_TYPES)


def _loading(name: str, default: int | None = None) -> Any:
    return whole(default, *_LOADING[name])


def _template() -> Any:
    return text(None, "name or Jinja text of the chat template; none = the model's own")


def _system_prompt() -> Any:
    return text(None, "system message of a conversation that has none", may_be_empty=True)


@dataclass(frozen=True)
class ServerConfig:
    """How the server listens.

    Raises:
        InvalidParameter: a value has the wrong type or is out of range; `param` names it.
    """

    host: str = text("127.0.0.1", "address to listen on")
    port: int = whole(8080, 0, 65535, "0 = any that is free")
    api_keys: tuple[str, ...] = texts(
        (), "keys that clients show; empty = none is asked", is_secret=True
    )
    cors_origins: tuple[str, ...] = texts((), "web pages' origins that may ask; * = all")
    max_connections: int = whole(100, 1, 65535, "connections at once")
    timeout_s: float = number(600.0, 0.0, 1e6, "seconds a connection may idle", open_low=True)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ModelConfig:
    """What is said of one model: by a preset, a Modelfile or the configuration. None = not said.

    Attributes:
        model: the model that a preset stands for: a path or any name.
        sampling: fields of SamplingConfig that are said, and nothing else.
        adapters: (path, scale) of LoRA adapters.
        messages: (role, content), put before every conversation.

    Raises:
        InvalidParameter: a value has the wrong type or is out of range; `param` names it.
    """

    model: str | None = text(None, "the model this stands for")
    n_ctx: int | None = _loading("n_ctx")
    n_batch: int | None = _loading("n_batch")
    n_ubatch: int | None = _loading("n_ubatch")
    n_threads: int | None = _loading("n_threads")
    n_threads_batch: int | None = _loading("n_threads_batch")
    n_gpu_layers: int | None = _loading("n_gpu_layers")
    cache_type_k: str | None = _cache_type("keys; none = f16")
    cache_type_v: str | None = _cache_type("values; none = f16")
    chat_template: str | None = _template()
    system_prompt: str | None = _system_prompt()
    sampling: Mapping[str, Any] = table("how tokens are chosen")
    adapters: tuple[tuple[str, float], ...] = field(
        default=(), metadata={"kind": "list", "doc": "LoRA adapters: path and scale"}
    )
    messages: tuple[tuple[str, str], ...] = field(
        default=(), metadata={"kind": "list", "doc": "role and content, before every conversation"}
    )
    license: str | None = text(None, "the licence's text", may_be_empty=True)

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "sampling", _said_sampling(self.sampling))
        object.__setattr__(self, "adapters", _adapters(self.adapters))
        object.__setattr__(self, "messages", _messages(self.messages))

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, as JSON and TOML know it; `from_dict` reads it back."""
        said = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        said["adapters"] = [{"path": path, "scale": scale} for path, scale in self.adapters]
        said["messages"] = [{"role": role, "content": text} for role, text in self.messages]
        empty: tuple[Any, ...] = (None, [], {})
        return {name: plain(value) for name, value in said.items() if value not in empty}

    @classmethod
    def from_dict(cls, said: Any, where: str) -> ModelConfig:
        """Read what `to_dict` wrote, or a person did.

        Args:
            said: a mapping, or whatever else the file holds in its place.
            where: the file it comes from, for errors.

        Raises:
            InvalidParameter: a key is unknown or a value is wrong; the message begins with `where`.
        """
        values = checked_keys(cls, said, where, all_keys=known_keys())
        for name, keys in (("adapters", ("path", "scale")), ("messages", ("role", "content"))):
            if name in values:
                values[name] = _read_pairs(name, values[name], keys, where)
        if "sampling" in values:
            values["sampling"] = checked_keys(
                SamplingConfig, values["sampling"], where, "sampling", all_keys=known_keys()
            )
        made: ModelConfig = make(cls, values, where)
        return made


def _said_sampling(said: Any) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise InvalidParameter(f"sampling must be a table, not {shown(said)}", param="sampling")
    made = SamplingConfig().replace(**{str(name): value for name, value in said.items()})
    return MappingProxyType({name: getattr(made, name) for name in said})


def _adapters(said: Any) -> tuple[tuple[str, float], ...]:
    adapters = []
    for place, scale in _pairs("adapters", said, "paths with scales"):
        path = os.fspath(place) if isinstance(place, str | os.PathLike) else None
        is_path = isinstance(path, str) and "\0" not in path
        is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not is_path or not is_number or not math.isfinite(scale):
            raise _no_pair("adapters", (place, scale), "paths with scales")
        adapters.append((str(path), float(scale)))
    return tuple(adapters)


def _messages(said: Any) -> tuple[tuple[str, str], ...]:
    messages = []
    for role, content in _pairs("messages", said, "roles with contents"):
        if not isinstance(role, str) or not isinstance(content, str) or not role:
            raise _no_pair("messages", (role, content), "roles with contents")
        messages.append((role, content))
    return tuple(messages)


def _pairs(name: str, said: Any, what: str) -> list[tuple[Any, Any]]:
    is_list = isinstance(said, tuple | list)
    for item in said if is_list else [said]:
        if not is_list or not isinstance(item, tuple | list) or len(item) != 2:
            raise _no_pair(name, item, what)
    return [(first, second) for first, second in said]


def _no_pair(name: str, item: Any, what: str) -> InvalidParameter:
    return InvalidParameter(f"{name} must be {what}, not {shown(item)}", param=name)


def _read_pairs(name: str, said: Any, keys: tuple[str, str], where: str) -> list[tuple[Any, Any]]:
    """Return the two values of each table in a list; an adapter's scale may be left out."""
    first, second = keys
    pairs = []
    for item in said if isinstance(said, list) else [said]:
        needed = {first} if name == "adapters" else {*keys}
        if not isinstance(item, Mapping) or not needed <= set(item) <= set(keys):
            raise InvalidParameter(
                f"{where}: {name} must be tables of {first} and {second}, not {shown(item)}",
                param=name,
            )
        pairs.append((item[first], item.get(second, 1.0)))
    return pairs


@dataclass(frozen=True)
class LLMConfig:
    """Everything that can be configured, with llamalite's defaults.

    Attributes:
        models_dir: folder for models that aren't in the Hub's cache; None = `models` under home.
        aliases: name → the model it stands for.
        models: name → what holds for that model alone.

    Raises:
        InvalidParameter: a value has the wrong type or is out of range; `param` names it.
    """

    default_model: str = text("smollm2:135m", "the model where none is named")
    models_dir: Path | None = field(
        default=None,
        metadata={"kind": "folder", "doc": "folder for models that aren't in the Hub's cache"},
    )
    n_ctx: int | None = _loading("n_ctx")
    n_batch: int = _loading("n_batch", 2048)
    n_ubatch: int = _loading("n_ubatch", 512)
    n_threads: int | None = _loading("n_threads")
    n_threads_batch: int | None = _loading("n_threads_batch")
    n_gpu_layers: int | None = _loading("n_gpu_layers")
    cache_type_k: str | None = _cache_type("keys; none = f16")
    cache_type_v: str | None = _cache_type("values; none = f16")
    chat_template: str | None = _template()
    system_prompt: str | None = _system_prompt()
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    aliases: Mapping[str, str] = table("other names for models")
    models: Mapping[str, ModelConfig] = table("what holds for one model alone")

    def __post_init__(self) -> None:
        check_fields(self)
        for name, section in SECTIONS.items():
            if not isinstance(getattr(self, name), section):
                raise InvalidParameter(f"{name} must be a {section.__name__}", param=name)
        object.__setattr__(self, "aliases", _named("aliases", self.aliases, str))
        for name in self.aliases:
            check_name(name, "aliases: the name", param="aliases")
        object.__setattr__(self, "models", _named("models", self.models, ModelConfig))


def _named(section: str, named: Any, kind: type) -> Mapping[str, Any]:
    """Return a checked table of names; `kind` is what its values must be."""
    if not isinstance(named, Mapping):
        raise InvalidParameter(f"{section} must be a table, not {shown(named)}", param=section)
    for name, value in named.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InvalidParameter(f"{section}: {shown(name)} is no name", param=section)
        if not isinstance(value, kind) or not value:
            what = "the name of a model" if kind is str else "a ModelConfig"
            raise InvalidParameter(
                f"{section}.{name} must be {what}, not {shown(value)}", param=section
            )
    return MappingProxyType(dict(named))


SECTIONS: Mapping[str, type] = {"sampling": SamplingConfig, "server": ServerConfig}
"""Settings of LLMConfig that are tables of settings."""


@cache
def known_keys(cls: type = LLMConfig) -> Mapping[str, Field[Any]]:
    """Return a class's settings by key: `n_ctx`, `sampling.temperature`, `server.port` …"""
    keys: dict[str, Field[Any]] = {}
    for spec in fields(cls):
        section = SECTIONS.get(spec.name)
        if section is not None:
            keys |= {f"{spec.name}.{inner.name}": inner for inner in fields(section)}
        elif spec.name not in {"aliases", "models"}:
            keys[spec.name] = spec
    return MappingProxyType(keys)


def checked_text(key: str, written: str) -> Any:
    """Return the value that text stands for as the setting `key`, which is a known one.

    Raises:
        InvalidParameter: it is no value of that setting.
    """
    section, _, name = key.rpartition(".")
    cls = SECTIONS.get(section, LLMConfig)
    return getattr(cls(**{name: read_text(known_keys()[key], written)}), name)
