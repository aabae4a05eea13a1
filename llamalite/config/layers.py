"""What holds, and who said so: command line, environment, model, file, default, in that order.

Owns the order and the names of environment variables. Doesn't know what the settings do. Imports
the standard library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from llamalite.config.file import read_config
from llamalite.config.places import config_path, given_config, home
from llamalite.config.reading import checked_keys, make, unknown_key
from llamalite.config.sampling import SamplingConfig
from llamalite.config.settings import (
    SECTIONS,
    LLMConfig,
    ModelConfig,
    checked_text,
    known_keys,
)
from llamalite.errors import InvalidParameter

COMMAND_LINE = "command line"
DEFAULT = "default"

NOT_BY_FILE = {
    "model": "give a name to a model under [aliases]",
    "license": "a licence belongs into a Modelfile",
}
"""What only presets say of a model, and what to do about it in the configuration file."""


class Said(NamedTuple):
    """A setting's value and where it was said."""

    value: Any
    origin: str


Layer = Mapping[str, Said]
"""Settings by key, such as `sampling.temperature`."""


class Effective(NamedTuple):
    """What holds for one model, all that is said about it taken together.

    Attributes:
        settings: keyword arguments of LLM that are said or have a default, without None.
        origins: key → "command line", "environment NAME", "model NAME", "preset NAME",
            "file PATH" or "default".
    """

    settings: Mapping[str, Any]
    sampling: SamplingConfig
    system_prompt: str | None
    adapters: tuple[tuple[str, float], ...]
    messages: tuple[tuple[str, str], ...]
    origins: Mapping[str, str]


def load_config() -> LLMConfig:
    """Return the configuration: environment over file over defaults, read anew.

    Within `in_force` it is the one given there.

    Raises:
        InvalidParameter: the file or a variable holds an unknown key or a wrong value.
    """
    if (given := given_config()) is not None:
        return given
    file = read_file_layer()
    said = {**file.settings, **environment_layer()}
    values: dict[str, Any] = {name: {} for name in SECTIONS}
    for key, (value, _) in said.items():
        section, _, name = key.rpartition(".")
        (values[section] if section else values)[name] = value
    sections = {name: cls(**values[name]) for name, cls in SECTIONS.items()}
    return LLMConfig(**{**values, **sections}, aliases=file.aliases, models=file.models)


def effective(
    command_line: Mapping[str, Any],
    names: Sequence[str] = (),
    preset: ModelConfig | None = None,
) -> Effective:
    """Return what holds for a model.

    Args:
        command_line: what was given there, by key (`n_ctx`, `sampling.temperature`, `adapters`,
            `messages`); a key that is there counts, with None too.
        names: the model's names, what the user typed first; the first one's settings are strongest.
        preset: what the name stands for, weaker than the configuration's own words on the model.

    Raises:
        InvalidParameter: a value or key is wrong; one of the command line is named without origin.
    """
    file = read_file_layer()
    nothing = Said((), DEFAULT)
    said = {**default_layer(), "adapters": nothing, "messages": nothing, **file.settings}
    if preset is not None:
        said |= model_layer(preset, " ".join(["preset", *names[:1]]))
    for name in reversed(names):
        for known, model in file.models.items():
            if known.casefold() == name.casefold():
                said |= model_layer(model, f"model {known}")
    said |= environment_layer() | _command_line_layer(command_line)
    return _effective(said)


def _effective(said: Layer) -> Effective:
    known = [key for key in known_keys(ModelConfig) if key not in NOT_BY_FILE]
    values = {key: said[key].value for key in known}
    sampling = {
        key.removeprefix("sampling."): values.pop(key)
        for key in known
        if key.startswith("sampling.")
    }
    system_prompt, adapters, messages = (
        values.pop(key) for key in ("system_prompt", "adapters", "messages")
    )
    return Effective(
        settings=MappingProxyType({k: v for k, v in values.items() if v is not None}),
        sampling=SamplingConfig(**sampling),
        system_prompt=system_prompt,
        adapters=adapters,
        messages=messages,
        origins=MappingProxyType({key: said[key].origin for key in known}),
    )


def everything() -> dict[str, Said]:
    """Return all settings and who said them, the names of models and aliases among their keys."""
    file = read_file_layer()
    said = {**default_layer(), **file.settings, **environment_layer()}
    if said["models_dir"].value is None:
        said["models_dir"] = Said(home() / "models", DEFAULT)
    origin = f"file {config_path()}"
    said |= {f"aliases.{name}": Said(model, origin) for name, model in file.aliases.items()}
    for name, model in file.models.items():
        of_model = model_layer(model, origin).items()
        said |= {f"models.{name}.{key}": value for key, value in of_model}
    return said


def default_layer() -> dict[str, Said]:
    """Return every setting's default."""
    said = {key: Said(spec.default, DEFAULT) for key, spec in known_keys().items()}
    said["sampling.logit_bias"] = Said(MappingProxyType({}), DEFAULT)
    return said


def model_layer(model: ModelConfig, origin: str) -> dict[str, Said]:
    """Return what is said of a model."""
    said = {f"sampling.{name}": value for name, value in model.sampling.items()}
    for key in known_keys(ModelConfig):
        value = None if key.startswith("sampling.") else getattr(model, key)
        if value is not None and value != ():
            said[key] = value
    return {key: Said(value, origin) for key, value in said.items()}


class FileLayer(NamedTuple):
    """What the configuration file says."""

    settings: Layer
    aliases: Mapping[str, str]
    models: Mapping[str, ModelConfig]


def read_file_layer() -> FileLayer:
    """Read and check the configuration file.

    Raises:
        InvalidParameter: an unknown key or a wrong value; the message begins with the file's path.
    """
    path = config_path()
    where = str(path)
    said = checked_keys(LLMConfig, read_config(), where, all_keys=known_keys())
    aliases = said.pop("aliases", {})
    models = {
        name: _model_of_file(model, f"{where}: models.{name}", path.parent)
        for name, model in _table(said.pop("models", {}), "models", where).items()
    }
    settings: dict[str, Any] = {}
    for name, cls in SECTIONS.items():
        values = checked_keys(cls, said.pop(name, {}), where, name, all_keys=known_keys())
        section = make(cls, values, where, name)
        settings |= {f"{name}.{key}": getattr(section, key) for key in values}
    made: LLMConfig = make(LLMConfig, {**said, "aliases": aliases, "models": models}, where)
    settings |= {key: getattr(made, key) for key in said}
    if made.models_dir is not None:
        settings["models_dir"] = path.parent.absolute() / made.models_dir
    origin = f"file {path}"
    return FileLayer(
        {key: Said(value, origin) for key, value in settings.items()}, made.aliases, made.models
    )


def _table(said: Any, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise InvalidParameter(f"{where}: {name} must be a table: [{name}]", param=name)
    return said


def _model_of_file(said: Any, where: str, folder: Path) -> ModelConfig:
    """Read what the file says of one model; adapters' paths are relative to the file."""
    for key, advice in NOT_BY_FILE.items():
        if isinstance(said, Mapping) and key in said:
            raise InvalidParameter(f"{where}: {key} has no place here: {advice}", param=key)
    model = ModelConfig.from_dict(said, where)
    adapters = tuple(
        (str(folder.absolute() / os.path.expanduser(path)), scale) for path, scale in model.adapters
    )
    return replace(model, adapters=adapters)


def variable_of(key: str) -> str:
    """Return the environment variable that sets a key."""
    return "LLAMALITE_" + key.upper().replace(".", "_")


def environment_layer() -> dict[str, Said]:
    """Return what environment variables say; an empty one says nothing.

    Raises:
        InvalidParameter: a variable's value is wrong; the message begins with its name.
    """
    said = {}
    for key in known_keys():
        variable = variable_of(key)
        written = os.environ.get(variable)
        if written:
            try:
                value = checked_text(key, written)
            except InvalidParameter as error:
                raise InvalidParameter(f"{variable}: {error}", param=variable) from None
            said[key] = Said(value, f"environment {variable}")
    return said


def _command_line_layer(given: Mapping[str, Any]) -> dict[str, Said]:
    """Return what the command line says; None there is said, too."""
    known = known_keys(ModelConfig)
    sampling: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise unknown_key(key, known)
        section, _, name = key.rpartition(".")
        (sampling if section else rest)[name] = value
    model = ModelConfig(**rest, sampling=sampling)
    values = {f"sampling.{name}": value for name, value in model.sampling.items()}
    values |= {name: getattr(model, name) for name in rest}
    return {key: Said(value, COMMAND_LINE) for key, value in values.items()}
