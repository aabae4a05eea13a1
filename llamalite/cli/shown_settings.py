"""What presets and the configuration say of a model, for `show`.

Owns which of it is shown and how. Imports `config` and `models` inside functions: of a model of
which nothing is said, nothing is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamalite.config import is_configured
from llamalite.libs.transfer.wording import one_line

if TYPE_CHECKING:
    from llamalite.models.locate import Located

_APART = ("system_prompt", "adapters", "messages")


@dataclass(frozen=True)
class Said:
    """What is said of a model, defaults left out.

    Attributes:
        preset: what the alias or preset stands for in the end; None if it was neither.
        settings: key → value and where it was said.
    """

    preset: str | None = None
    system_prompt: str | None = None
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    adapters: tuple[tuple[str, float], ...] = ()
    messages: tuple[tuple[str, str], ...] = ()


def said_of(located: Located) -> Said:
    """Return what holds for a model whenever it is loaded by this name.

    Raises:
        InvalidParameter: the configuration is faulty.
    """
    # PERF: importing the settings takes as long as reading a model's header.
    if located.preset is None and not is_configured():
        return Said()
    from llamalite.config.layers import DEFAULT, effective
    from llamalite.models.locate.spellings import known_as

    names = known_as(located, located.path) if located.path else located.names
    found = effective({}, names, located.preset)
    settings = {}
    for key, origin in found.origins.items():
        section, _, name = key.rpartition(".")
        if origin != DEFAULT and key not in _APART:
            value = getattr(found.sampling, name) if section else found.settings.get(key)
            settings[key] = (value, origin)
    model = located.preset.model if located.preset else None
    return Said(model, found.system_prompt, settings, found.adapters, found.messages)


def rows(said: Said) -> Iterator[tuple[str, str]]:
    """Yield names and values of lines."""
    if said.preset is not None:
        yield "preset", f"FROM {said.preset}"
    if said.system_prompt is not None:
        yield "system", one_line(said.system_prompt)
    by_origin: dict[str, list[str]] = {}
    for key, (value, origin) in said.settings.items():
        by_origin.setdefault(origin, []).append(f"{key} {_written(value)}")
    if by_origin:
        told = (f"{', '.join(pairs)} ({origin})" for origin, pairs in by_origin.items())
        yield "settings", "; ".join(told)
    if said.adapters:
        yield "adapters", ", ".join(f"{path} (scale {scale:g})" for path, scale in said.adapters)
    if said.messages:
        yield "messages", "; ".join(f"{role}: {one_line(text, 60)}" for role, text in said.messages)


def to_dict(said: Said) -> dict[str, Any]:
    """Return all of it as JSON has it."""
    return {
        "preset": said.preset,
        "system_prompt": said.system_prompt,
        "settings": {
            key: {"value": value, "origin": origin}
            for key, (value, origin) in said.settings.items()
        },
        "adapters": [list(adapter) for adapter in said.adapters],
        "messages": [list(message) for message in said.messages],
    }


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        value = {str(key): item for key, item in value.items()}
    return one_line(json.dumps(value, ensure_ascii=False), 60)
