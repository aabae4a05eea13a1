"""What an engine's process is to load, told by the program that starts it.

Names are resolved, and models fetched, before the process is started, so that its loss costs
nothing that was fetched. Imports `llamalite.config`, `llamalite.models` and the engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamalite.config import ModelConfig
from llamalite.config.layers import load_config
from llamalite.engine.request import EngineOptions
from llamalite.models.resolve import Resolved, resolve

if TYPE_CHECKING:
    from llamalite.engine.process.connection import ServedEngine

FACTORY = f"{__name__}:load_engine"

Say = Callable[[str], None]
Model = str | os.PathLike[str] | Resolved | None


def arguments_for(
    model: Model,
    options: EngineOptions | None,
    settings: Mapping[str, Any],
    *,
    say: Say | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Return what `load_engine` takes, as msgpack knows it; fetches the model if it isn't here.

    Raises:
        LlamaliteError: as `llamalite.models.resolve.resolve`.
    """
    if not isinstance(model, Resolved):
        model = resolve(load_config().default_model if model is None else model, say=say)
    return {
        "name": model.name,
        "path": str(Path(model.path).absolute()),
        "preset": None if model.preset is None else model.preset.to_dict(),
        "names": list(model.names),
        "options": asdict(options or EngineOptions()),
        "settings": {**settings, **_adapters(settings)},
        "force": force,
    }


def _adapters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the adapters among the settings with whole paths: the other process may be elsewhere.

    What isn't a list of pairs is passed on, so that whoever checks settings can refuse it.
    """
    try:
        pairs = [
            (os.path.abspath(os.fspath(path)), scale) for path, scale in settings["adapters"] or ()
        ]
    except (KeyError, TypeError, ValueError):
        return {}
    return {"adapters": pairs}


def load_engine(arguments: Mapping[str, Any], say: Say) -> ServedEngine:
    """Load the engine that `arguments_for` told of.

    Raises:
        LlamaliteError: as `Engine.load`.
    """
    from llamalite.engine.engine import Engine

    preset = arguments["preset"]
    name = arguments["name"]
    resolved = Resolved(
        name,
        Path(arguments["path"]),
        None if preset is None else ModelConfig.from_dict(preset, f"preset of {name}"),
        names=tuple(arguments["names"]),
    )
    settings = dict(arguments["settings"])
    if settings.get("adapters"):
        settings["adapters"] = tuple((path, scale) for path, scale in settings["adapters"])
    return Engine.load(
        resolved,
        EngineOptions(**arguments["options"]),
        say=say,
        force=arguments["force"],
        **settings,
    )
