"""Which of the installed models a name means.

Owns exact and begun spellings, and following names to what they stand for. Doesn't look at the
disk. May import `names` and `errors`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from llamalite.errors import AmbiguousFile
from llamalite.models.names.catalog import find_entry
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.named import folded
from llamalite.models.store.records import record_key

if TYPE_CHECKING:
    from llamalite.config import ModelConfig

_LISTED = 12


def find_model(name: str, installed: Iterable[InstalledModel]) -> InstalledModel | None:
    """Return the model that a name means: spelled in full, or begun so that only one fits; or None.

    Args:
        name: case doesn't matter; aliases and presets are not looked up.
        installed: the models to choose from.

    Raises:
        AmbiguousFile: several models fit; the message lists them.
    """
    models = list(installed)
    if found := _only(name, models, str.__eq__):
        return found
    if entry := find_entry(name):  # smollm2 for smollm2:135m
        found = _only(f"{entry.repo}/{entry.file}", models, str.__eq__)
    return found or _only(name, models, str.startswith)


def find_at(
    path: str | os.PathLike[str], installed: Iterable[InstalledModel]
) -> InstalledModel | None:
    """Return the model that has this path among its files, links not followed, or None."""
    key = record_key(path)
    return next((m for m in installed if any(record_key(p) == key for p in m.paths)), None)


def stands_for(
    name: str, named: Mapping[str, ModelConfig], installed: Sequence[InstalledModel]
) -> InstalledModel | None:
    """Return the installed model that an alias or preset leads to, over others if need be, or None.

    A name that leads nowhere, round in a circle or to several models leads to none.
    """
    by_name = {folded(key): preset for key, preset in named.items()}
    target: str | None = name
    seen = set()
    while target is not None and (key := folded(target)) in by_name:
        if key in seen:
            return None
        seen.add(key)
        target = by_name[key].model
    if target is None:
        return None
    if os.path.isabs(target):
        return find_at(target, installed)
    try:
        return find_model(target, installed)
    except AmbiguousFile:
        return None


def _only(
    name: str, installed: Iterable[InstalledModel], fits: Callable[[str, str], bool]
) -> InstalledModel | None:
    wanted = re.sub(r"^hf:(//)?", "", name.strip().casefold()).removesuffix("@main")
    if not wanted:
        return None
    found = [m for m in installed if any(fits(s.casefold(), wanted) for s in m.spellings())]
    named = [m for m in found if m.name.casefold() == wanted]
    if len(named or found) <= 1:
        return next(iter(named or found), None)
    names = ", ".join(m.name for m in found[:_LISTED]) + (", …" if len(found) > _LISTED else "")
    raise AmbiguousFile(f"'{name}' means any of {names}: write one of them in full")
