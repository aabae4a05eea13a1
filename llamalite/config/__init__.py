"""Settings and per-request configuration: frozen dataclasses, validated when made.

What needs dataclasses is imported when it is first asked for. Imports the standard library and
`llamalite.errors`; tomlkit only to edit the file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llamalite.config.places import (
    AUTO_BACKEND,
    config_path,
    home,
    in_force,
    is_configured,
    is_offline,
    library_override,
    models_dir,
    requested_backend,
    user_path,
)

if TYPE_CHECKING:
    from llamalite.config.layers import Effective, effective, load_config
    from llamalite.config.sampling import SAMPLER_ORDER, SamplingConfig
    from llamalite.config.settings import LLMConfig, ModelConfig, ServerConfig

_LATER = {
    "SAMPLER_ORDER": "sampling",
    "SamplingConfig": "sampling",
    "LLMConfig": "settings",
    "ModelConfig": "settings",
    "ServerConfig": "settings",
    "Effective": "layers",
    "effective": "layers",
    "load_config": "layers",
}

__all__ = [
    "AUTO_BACKEND",
    "SAMPLER_ORDER",
    "Effective",
    "LLMConfig",
    "ModelConfig",
    "SamplingConfig",
    "ServerConfig",
    "config_path",
    "effective",
    "home",
    "in_force",
    "is_configured",
    "is_offline",
    "library_override",
    "load_config",
    "models_dir",
    "requested_backend",
    "user_path",
]


def __getattr__(name: str) -> Any:
    """Import a name from its module when it is first used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
