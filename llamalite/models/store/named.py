"""The names a user gave: aliases and presets, each a `ModelConfig` that says what it stands for.

Owns one JSON file per name under `home()/names`. Names are the same whatever their case. Doesn't
know what they stand for, or whether that exists. May import `names`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from llamalite import config
from llamalite.errors import InvalidParameter, ModelError
from llamalite.libs.transfer.wording import one_line
from llamalite.models.names.safety import check_name
from llamalite.models.store.atomic import locked, read_object, write_json

if TYPE_CHECKING:
    from llamalite.config import ModelConfig

_SUFFIX = ".json"
_LONGEST_STEM = 200


def names_folder() -> Path:
    """Return the folder the names lie in; it need not exist."""
    return config.home() / "names"


def read_named(name: str) -> ModelConfig | None:
    """Return what a name stands for, whatever its case, or None.

    Raises:
        ModelError: there is such a name and its file is damaged.
    """
    found = _read(_file_of(name)) if _could_be_name(name) else None
    return found[1] if found else None


def all_named(say: Callable[[str], None] | None = None) -> dict[str, ModelConfig]:
    """Return every name, as it was spelled, and what it stands for, in alphabetical order.

    Args:
        say: takes a line about each damaged file, which is left out; None = raise for it.

    Raises:
        ModelError: a name's file is damaged.
    """
    found = {}
    for file in _files():
        try:
            named = _read(file)
        except ModelError as error:
            if say is None:
                raise
            say(str(error))
            continue
        if named:
            found[named[0]] = named[1]
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def write_named(name: str, preset: ModelConfig, *, replace: bool) -> None:
    """Let a name stand for a preset.

    Args:
        name: any case; kept as it is spelled.
        preset: what it stands for.
        replace: whether the name may already be in use.

    Raises:
        InvalidParameter: the name can't be one, or is in use and `replace` is false.
        ModelError: it can't be written.
    """
    name = _checked(name)
    file = _file_of(name)
    with locked(names_folder()):
        if os.path.lexists(file) and not replace:
            raise _in_use(name)
        write_json(file, {"name": name, "preset": preset.to_dict()})


def check_free(name: str, taken: Iterable[str], *, replace: bool = False) -> None:
    """Refuse a name that can't be given to something.

    Args:
        name: the alias or preset to be.
        taken: models' own names, which no alias may have.
        replace: whether an alias or preset may already have it.

    Raises:
        InvalidParameter: it can't be a name, or is in use.
    """
    name = _checked(name)
    if not replace and is_taken(name):
        raise _in_use(name)
    if any(same_name(name, other) for other in taken):
        raise InvalidParameter(
            f"'{name}' is the name of a model here ('llamalite list'): choose another", param="name"
        )


def _in_use(name: str) -> InvalidParameter:
    return InvalidParameter(
        f"the name '{name}' is in use: choose another, or remove it with 'llamalite rm {name}'",
        param="name",
    )


def remove_named(name: str) -> bool:
    """Remove a name, whatever its case; False if there was none.

    Raises:
        ModelError: it can't be removed.
    """
    if not is_taken(name):
        return False
    with locked(names_folder()):
        try:
            _file_of(name).unlink()
        except FileNotFoundError:
            return False
    return True


def is_taken(name: str) -> bool:
    """Say whether there is an alias or preset of this name, be it damaged."""
    return _could_be_name(name) and os.path.lexists(_file_of(name))


def same_name(one: str, other: str) -> bool:
    """Say whether two spellings are one name."""
    return folded(one) == folded(other)


def _files() -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(names_folder()) as entries:
        return [Path(entry.path) for entry in entries if entry.name.endswith(_SUFFIX)]
    return []


def _checked(name: str) -> str:
    # Some systems take letters and their accents apart.
    return check_name(unicodedata.normalize("NFC", name), "the name")


def _could_be_name(name: str) -> bool:
    try:
        _checked(name)
    except InvalidParameter:
        return False
    return True


def folded(name: str) -> str:
    """Return what all spellings of a name have in common."""
    return unicodedata.normalize("NFC", name).casefold()


def _file_of(name: str) -> Path:
    # No dot, slash or other character with a meaning for a file system is left as it is.
    encoded = quote(folded(name), safe="").replace(".", "%2E")
    if len(encoded) > _LONGEST_STEM:
        import hashlib

        encoded = hashlib.sha256(encoded.encode()).hexdigest()
    return names_folder() / (encoded + _SUFFIX)


def _read(file: Path) -> tuple[str, ModelConfig] | None:
    try:
        content = read_object(file)
        if content is None:
            return None
        from llamalite.config import ModelConfig

        name, preset = content.get("name"), content.get("preset")
        if not isinstance(name, str) or not isinstance(preset, dict) or _file_of(name) != file:
            raise ValueError("not what llamalite writes there")
        return name, ModelConfig.from_dict(preset, str(file))
    except (ValueError, InvalidParameter) as error:
        raise ModelError(
            f"{file} is damaged ({one_line(error)}): remove it, and give the name anew"
        ) from None
