"""What a name of something installed means: the one rule, for those who load and who remove.

A name means what is called just so, whatever its case. Else it may be the beginning of a name, but
only a plain word or more: what says size, quantization, file or revision is never completed.
Doesn't look at the disk. May import `names` and `errors`.
"""

from __future__ import annotations

from collections.abc import Iterable

from llamalite.errors import InvalidParameter
from llamalite.models.names.catalog import find_entry
from llamalite.models.names.reference import parse_reference
from llamalite.models.store.model import InstalledModel

_NEVER_BEGUN = frozenset(":/@\\")


class Spelled:
    """The installed models by all that they answer to, aliases and presets left out.

    Args:
        installed: the models to choose from.
    """

    def __init__(self, installed: Iterable[InstalledModel]) -> None:
        self._exact: dict[str, list[InstalledModel]] = {}
        self._folded: dict[str, list[InstalledModel]] = {}
        for model in installed:
            spellings = dict.fromkeys(model.spellings())
            for spelled in spellings:
                self._exact.setdefault(spelled, []).append(model)
            for spelled in dict.fromkeys(map(str.casefold, spellings)):
                self._folded.setdefault(spelled, []).append(model)

    def whole(self, name: str) -> list[InstalledModel]:
        """Return the models that are called just so, case counting only where it must.

        Models that are listed under the name win over those that it is another spelling of.
        """
        for wanted in dict.fromkeys((name.strip(), _plain(name))):
            folded = wanted.casefold()
            if found := self._exact.get(wanted) or self._folded.get(folded):
                return [m for m in found if m.name.casefold() == folded] or found
        return []

    def begun(self, name: str, *, at_word: bool = False) -> list[InstalledModel]:
        """Return the models whose name begins so.

        Args:
            name: with a colon, slash or @ in it, it begins nothing.
            at_word: whether a whole word must have been written: "tinyllama", and not "tiny", for
                "tinyllama:1.1b".
        """
        wanted = name.strip().casefold()
        if not wanted or not _NEVER_BEGUN.isdisjoint(wanted):
            return []
        found: dict[int, InstalledModel] = {}
        for spelled, models in self._folded.items():
            if spelled.startswith(wanted) and not (
                at_word and spelled[len(wanted) : len(wanted) + 1].isalnum()
            ):
                found |= {id(model): model for model in models}
        return list(found.values())


def _plain(name: str) -> str:
    """Return how models spell a name that says the same in other words."""
    if entry := find_entry(name):  # smollm2 for smollm2:135m
        return entry.name
    try:
        reference = parse_reference(name)
    except InvalidParameter:  # it leads out of a folder, so no model is called so
        return name
    return str(reference).removesuffix("@main") if reference else name
