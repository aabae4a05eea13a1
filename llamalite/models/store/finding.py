"""Which of the installed models a name means, aliases and presets followed.

What a model itself is called, `spelled` says. Doesn't look at the disk. May import `names` and
`errors`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from llamalite.errors import AmbiguousFile
from llamalite.models.names.safety import shown
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.named import folded
from llamalite.models.store.records import record_key
from llamalite.models.store.spelled import Spelled

if TYPE_CHECKING:
    from llamalite.config import ModelConfig

_LISTED = 12


def find_model(
    name: str, installed: Iterable[InstalledModel], *, at_word: bool = False
) -> InstalledModel | None:
    """Return the model that a name means: spelled in full, or begun so that only one fits; or None.

    Args:
        name: case matters only where models' names differ by nothing else; aliases and presets are
            not looked up.
        installed: the models to choose from.
        at_word: whether a beginning must be a whole word.

    Raises:
        AmbiguousFile: several models fit; the message lists them.
    """
    spelled = Spelled(installed)
    return only_one(name, spelled.whole(name) or spelled.begun(name, at_word=at_word))


def only_one(name: str, found: Sequence[InstalledModel]) -> InstalledModel | None:
    """Return the only one of the models that a name fits, or None; errors as in `find_model`."""
    if len(found) <= 1:
        return next(iter(found), None)
    names = ", ".join(m.name for m in found[:_LISTED]) + (", …" if len(found) > _LISTED else "")
    raise AmbiguousFile(f"{shown(name)} means any of {names}: write one of them in full")


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
    found = Meanings(named, installed).of(name)
    return found[0] if len(found) == 1 else None


class Meanings:
    """What aliases and presets stand for among the installed models.

    Args:
        named: every alias and preset.
        installed: the models to choose from.
    """

    def __init__(
        self, named: Mapping[str, ModelConfig], installed: Sequence[InstalledModel]
    ) -> None:
        self._named = {folded(key): preset for key, preset in named.items()}
        self._spelled = Spelled(installed)
        self._by_path = {record_key(path): model for model in installed for path in model.paths}

    def of(self, name: str) -> list[InstalledModel]:
        """Return what `stands_for` does, and every model that fits where there are several."""
        target: str | None = name
        seen = set()
        while target is not None and (key := folded(target)) in self._named:
            if key in seen:
                return []
            seen.add(key)
            target = self._named[key].model
        if target is None:
            return []
        if os.path.isabs(target):
            found = self._by_path.get(record_key(target))
            return [found] if found else []
        return self._spelled.whole(target) or self._spelled.begun(target)
