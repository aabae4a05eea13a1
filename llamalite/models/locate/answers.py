"""What the answers are: where a model is, where it would come from, and what goes with it.

Owns these classes alone. May import `store` (inside functions) and `names`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.models.names.catalog import CatalogEntry
from llamalite.models.names.reference import HubReference

if TYPE_CHECKING:
    from llamalite.config import ModelConfig
    from llamalite.models.store.installed import InstalledModel


@dataclass(frozen=True)
class HubTarget:
    """A model on the Hub.

    Attributes:
        quant: None with `file` None = the default one, chosen from what the repository has.
        file: path in the repository; of a split model, any part.
        revision: None = the main branch.
        entry: the catalog's entry, if it was named by a short name.
    """

    repo: str
    quant: str | None = None
    file: str | None = None
    revision: str | None = None
    entry: CatalogEntry | None = None

    @property
    def reference(self) -> HubReference:
        """The same as a reference."""
        return HubReference(self.repo, self.quant, self.file, True, self.revision)

    def __str__(self) -> str:
        return str(self.reference)


@dataclass(frozen=True)
class UrlTarget:
    """A GGUF file at an address: http, https or file."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Located:
    """What a name means, as far as this computer alone can tell.

    Attributes:
        name: as it was given.
        path: the file if it is here, of a split model the first part.
        target: where it would be fetched from; None for files that are only here.
        preset: settings that aliases and presets on the way carry; None if there were none.
        names: every name on the way to the model, the given one first.
        note: what was chosen where the name left a choice, or "".
        begins: the installed model's name of which the name is only the beginning, or "".
        found: the installed model, where the search has come upon it; `installed` looks for it.
    """

    name: str
    path: Path | None = None
    target: HubTarget | UrlTarget | None = None
    preset: ModelConfig | None = None
    names: tuple[str, ...] = ()
    note: str = ""
    begins: str = ""
    found: InstalledModel | None = field(default=None, compare=False, repr=False)

    @cached_property
    def installed(self) -> InstalledModel | None:
        """What `llamalite list` shows about it, or None if it is not among those."""
        if self.path is None or self.found is not None:
            return self.found
        from llamalite.models.store.finding import find_at
        from llamalite.models.store.installed import installed_models

        return find_at(self.path, installed_models())
