"""What the environment says: where things live, and what may be used.

Owns the environment variables that are no settings of a model. Imports the standard library and
`llamalite.errors` alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from llamalite.errors import InvalidParameter

TYPE_CHECKING = False  # PERF: typing takes long to import
if TYPE_CHECKING:
    from llamalite.config.settings import LLMConfig

_IN_FORCE: ContextVar[LLMConfig | None] = ContextVar("llamalite's configuration", default=None)


@contextmanager
def in_force(settings: LLMConfig | None) -> Iterator[None]:
    """Let a configuration stand for file, environment and defaults, in this thread's block alone.

    Args:
        settings: what `load_config` and `models_dir` go by meanwhile; None changes nothing.
    """
    token = _IN_FORCE.set(settings or _IN_FORCE.get())
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def given_config() -> LLMConfig | None:
    """Return the configuration that `in_force` was given, or None."""
    return _IN_FORCE.get()


def home() -> Path:
    """Return the data folder: `LLAMALITE_HOME`, else platformdirs' user data folder.

    Raises:
        InvalidParameter: it lies in a home folder that the system doesn't know.
    """
    value = os.environ.get("LLAMALITE_HOME")
    if value:
        return user_path(value, "LLAMALITE_HOME")
    import platformdirs

    try:
        folder = Path(platformdirs.user_data_dir("llamalite", appauthor=False))
    except (RuntimeError, OSError):
        folder = Path("~")
    # NOTE: a user without HOME and passwd entry would get a folder named "~" wherever this runs.
    if folder.parts[:1] == ("~",):
        raise InvalidParameter(
            "this user has no home folder to keep data in: set LLAMALITE_HOME to a folder",
            param="LLAMALITE_HOME",
        )
    return folder


def user_path(text: str, name: str) -> Path:
    """Return a path with a leading `~` or `~USER` replaced; not checked for existence.

    Args:
        text: the path.
        name: of the option or variable it came from, for the error.

    Raises:
        InvalidParameter: the system doesn't know that user's home folder.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise InvalidParameter(
            f"{name}: there is no home folder for {text}: give the whole path (or ./{text})",
            param=name,
        )
    return Path(path)


def config_path() -> Path:
    """Return where the configuration file is, or would be: `LLAMALITE_CONFIG`, else under home."""
    value = os.environ.get("LLAMALITE_CONFIG")
    return user_path(value, "LLAMALITE_CONFIG") if value else home() / "config.toml"


def is_configured() -> bool:
    """Say whether a file or `in_force` gives a configuration; without one there are no aliases."""
    given = given_config() is not None or os.environ.get("LLAMALITE_CONFIG")
    return bool(given) or os.path.lexists(config_path())


def models_dir() -> Path:
    """Return the folder for models that aren't in the Hub's cache.

    Raises:
        InvalidParameter: the configuration is faulty.
    """
    if (given := given_config()) is not None:
        return given.models_dir or home() / "models"
    value = os.environ.get("LLAMALITE_MODELS_DIR")
    if value:
        return user_path(value, "LLAMALITE_MODELS_DIR")
    configured = None
    if is_configured():
        from llamalite.config.layers import load_config

        configured = load_config().models_dir
    return configured or home() / "models"


def library_override() -> Path | None:
    """Return the folder (or file) that `LLAMALITE_LIB` points at, or None."""
    value = os.environ.get("LLAMALITE_LIB")
    return Path(os.path.expanduser(value)) if value else None


AUTO_BACKEND = "auto"
"""The backend that stands for what the machine has."""


def requested_backend(given: str | None = None) -> str:
    """Return the backend asked for: as given, else `LLAMALITE_BACKEND`, else `auto`."""
    return (given or os.environ.get("LLAMALITE_BACKEND", "").strip() or AUTO_BACKEND).lower()


def is_offline() -> bool:
    """Say whether `LLAMALITE_OFFLINE` or `HF_HUB_OFFLINE` forbids network use."""
    return any(
        os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}
        for name in ("LLAMALITE_OFFLINE", "HF_HUB_OFFLINE")
    )
