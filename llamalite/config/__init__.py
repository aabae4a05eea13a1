"""Settings and per-request configuration: frozen dataclasses, validated when made.

Imports the standard library and `llamalite.errors` alone.
"""

from __future__ import annotations

from llamalite.config.places import (
    AUTO_BACKEND,
    home,
    is_offline,
    library_override,
    requested_backend,
    user_path,
)
from llamalite.config.sampling import SAMPLER_ORDER, SamplingConfig

__all__ = [
    "AUTO_BACKEND",
    "SAMPLER_ORDER",
    "SamplingConfig",
    "home",
    "is_offline",
    "library_override",
    "requested_backend",
    "user_path",
]
