"""Names that are paths, and what is said about those that nothing answers to.

May import `names` and `errors`.
"""

from __future__ import annotations

import os
from pathlib import Path

from llamalite.errors import ModelNotFound
from llamalite.models.names.catalog import nearest_names
from llamalite.models.names.reference import shard_names
from llamalite.models.names.safety import shown

FORMS = (
    "a path to a GGUF file, a name of your own, a short name, owner/repo:QUANT, "
    "owner/repo/FILE.gguf or an address"
)
_SEPARATORS = {os.sep, os.altsep or os.sep, "/"}


def as_path(text: str) -> Path:
    """Return a name as a path, `~` replaced."""
    try:
        return Path(os.path.expanduser(text))
    except ValueError:  # a NUL character in a user's name
        return Path(text)


def is_file(path: Path) -> bool:
    """Say whether there is a file; False for what can't be a path at all."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a path, unreadable folder, NUL character
        return False


def exists(path: str | Path) -> bool:
    """Say whether there is anything; False for what can't be a path at all."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def first_part(path: Path) -> tuple[Path, str]:
    """Return the first part of a split model, given any, and what to say; other paths as they are.

    Raises:
        ModelNotFound: parts are missing.
    """
    parts = [path.with_name(name) for name in shard_names(path.name)]
    missing = [part.name for part in parts if not is_file(part)]
    if missing:
        raise ModelNotFound(
            f"{path} is one of the {len(parts)} files of a split model, and {missing[0]} is not "
            f"beside it ({len(missing)} missing in all)"
        )
    if parts[0].name == path.name:
        return path, ""
    return parts[0], (
        f"{path.name} is part of a split model: taking its first file, {parts[0].name}"
    )


def not_found(
    text: str, path: Path, *, is_path: bool = False, is_typed: bool = True
) -> ModelNotFound:
    """Make the error for a name that is neither a file nor known.

    Args:
        text: as it was given.
        path: the same as a path.
        is_path: whether it can't have been meant as anything else than a path.
        is_typed: False for what a name of the user's own stands for.
    """
    name = shown(text)
    if not text.strip():
        return ModelNotFound(f"the model's name is empty: give {FORMS}")
    looks_so = is_path or text.lower().endswith(".gguf") or any(sep in text for sep in _SEPARATORS)
    if exists(path):
        if is_typed or path.is_absolute():
            return ModelNotFound(f"{name} {_what_else(path)}")
        if looks_so:
            return ModelNotFound("a name can stand for a path only if that is a whole one")
        return ModelNotFound("no such model is on this computer any more: see 'llamalite list'")
    if looks_so:
        parent = path.parent
        where = "" if exists(parent) else f" (nor a folder {shown(str(parent))})"
        return ModelNotFound(f"there is no file {name}{where}: check the path")
    near = nearest_names(text)
    hint = f"did you mean {' or '.join(near)}? Else " if near else ""
    return ModelNotFound(
        f"no model is called {name}, and no installed one begins so: {hint}see 'llamalite list' "
        f"and 'llamalite list --catalog'"
    )


def _what_else(path: Path) -> str:
    if not path.is_dir():
        return "is no regular file: give the path of a GGUF file"
    try:
        models = sorted(child.name for child in path.iterdir() if child.suffix.lower() == ".gguf")
    except OSError as err:
        return f"is a folder that can't be read ({err.strerror}): give the path of a GGUF file"
    if not models:
        return "is a folder without GGUF files: give the path of a GGUF file"
    there = ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
    return f"is a folder: give the path of a file in it ({there})"
