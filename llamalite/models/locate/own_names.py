"""Names of the user's own: what they stand for, through aliases of aliases, and their settings.

May import `store`, `names`, `config` and `errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from llamalite.errors import InvalidParameter
from llamalite.models.names.safety import shown

if TYPE_CHECKING:
    from llamalite.config import ModelConfig


@dataclass(frozen=True)
class Chain:
    """The names from the one given to the last, which is none of the user's own.

    Attributes:
        names: at least one.
        preset: the settings on the way, the first name's winning; None if there were none.
    """

    names: tuple[str, ...]
    preset: ModelConfig | None = None


def follow(name: str) -> Chain:
    """Follow aliases and presets to the name of a model.

    Args:
        name: no path of a file.

    Raises:
        InvalidParameter: they lead in a circle, or the configuration can't be read.
        ModelError: what is remembered of a name is damaged.
    """
    from llamalite.models.store.named import read_named, same_name

    names, preset = [name], None
    while True:
        if own := read_named(names[-1]):
            preset = own if preset is None else over(preset, own)
        after = own.model if own else _configured(names[-1])
        if after is None:
            break
        if any(same_name(after, seen) for seen in names):
            circle = " stands for ".join(map(shown, [*names, after]))
            raise InvalidParameter(
                f"{circle}, which leads in a circle: give one of them another model with "
                f"'llamalite alias NAME MODEL'",
                param="model",
            )
        names.append(after)
    return Chain(tuple(names), preset)


def over(upper: ModelConfig, lower: ModelConfig) -> ModelConfig:
    """Return what two presets say together, the upper one where both say something."""
    said: dict[str, Any] = {
        spec.name: value
        for spec in fields(upper)
        if (value := getattr(upper, spec.name)) is not None and value != ()
    }
    said["sampling"] = {**lower.sampling, **upper.sampling}
    said["model"] = lower.model or upper.model
    return replace(lower, **said)


def _configured(name: str) -> str | None:
    """Return what the configuration's aliases say that a name stands for, whatever its case."""
    from llamalite.config import load_config
    from llamalite.models.store.named import same_name

    aliases = load_config().aliases
    return next((model for own, model in aliases.items() if same_name(own, name)), None)
