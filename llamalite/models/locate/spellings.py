"""What else a model may be called, so that what is configured for it is found by any name.

May import `store`, `names` and `config`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from llamalite import config
from llamalite.models.locate.answers import Located
from llamalite.models.names.catalog import find_entry
from llamalite.models.store.named import folded

_HUB = re.compile(r"^hf:(?://)?")


def known_as(located: Located, path: Path) -> tuple[str, ...]:
    """Return all that a model may be called, as the configuration spells it where it does.

    Args:
        located: what the name means; the names on the way to the model come first.
        path: its file, of a split model the first part; it may have been fetched since.
    """
    if not config.is_configured() or not (configured := config.load_config().models):
        return located.names
    from llamalite.models.store.finding import find_at
    from llamalite.models.store.installed import installed_models

    model = located.installed if located.path else find_at(path, installed_models())
    others = (model.name, *model.spellings()) if model else ()
    known: dict[str, None] = {}
    for name in (*located.names, *others, os.path.abspath(path)):
        same = [key for key in configured if _plain(key) == _plain(name)]
        known |= dict.fromkeys([name, *same])
    return tuple(known)


def _plain(name: str) -> str:
    """Return what all spellings of a model's name have in common."""
    if entry := find_entry(name):
        return entry.name
    return _HUB.sub("", folded(name.strip()), count=1).removesuffix("@main")
