"""What a name means as far as this computer alone can tell: no network, nothing fetched.

May import `store`, `hub`, `names`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.errors import AmbiguousFile, ModelNotFound
from llamalite.models.locate.addresses import find_address, is_address, local_path
from llamalite.models.locate.answers import HubTarget, Located, UrlTarget
from llamalite.models.locate.here import find_entry_file, find_reference
from llamalite.models.locate.own_names import follow
from llamalite.models.locate.paths import as_path, exists, first_part, is_file, not_found
from llamalite.models.names.catalog import ALIASES, CatalogEntry, find_entry, find_unlisted
from llamalite.models.names.reference import HubReference, parse_reference
from llamalite.models.names.safety import shown

if TYPE_CHECKING:
    from llamalite.models.store.installed import InstalledModel


def locate(name: str | os.PathLike[str]) -> Located:
    """Say what a name means and where it lies, without the network.

    Args:
        name: a path, or any other name of a model; a path object is only ever a path.

    Raises:
        ModelNotFound: nothing answers to the name.
        AmbiguousFile: several things do; the message lists them.
        InvalidParameter: names lead in a circle, or a reference leads out of its folder.
    """
    text = os.fspath(name)
    path = as_path(text)
    if not is_file(path) and not isinstance(name, str):
        raise not_found(text, path, is_name=False)
    if is_file(path):
        return _from_path(text, path)
    chain = follow(text)
    try:
        found = _locate_model(chain.names[-1])
    except ModelNotFound as error:
        if len(chain.names) == 1:
            raise
        meant = shown(chain.names[-1])
        raise ModelNotFound(f"{shown(text)} stands for {meant}: {error}") from None
    canonical = [entry.name] if (entry := find_entry(chain.names[-1])) else []
    names = tuple(dict.fromkeys([*chain.names, *canonical]))
    return replace(found, name=text, preset=chain.preset, names=names)


def _locate_model(text: str) -> Located:
    """Locate a model by a name that is none of the user's own."""
    path = as_path(text)
    if is_file(path):
        return _from_path(text, path)
    if entry := find_entry(text):
        return _from_catalog(text, entry)
    if unlisted := find_unlisted(text):
        return _from_hub(text, HubReference(unlisted[0].repo, unlisted[1], explicit=True))
    if is_address(text):
        return _from_address(text)
    reference = parse_reference(text)
    if reference and (reference.explicit or not path.parts or not exists(path.parts[0])):
        return _from_hub(text, reference)
    if found := _from_beginning(text):
        return found
    raise not_found(text, path, is_name=True)


def _from_path(text: str, path: Path) -> Located:
    first, note = first_part(path)
    return Located(text, first, names=(text,), note=note)


def _from_catalog(text: str, entry: CatalogEntry) -> Located:
    """Locate a catalog's model: its own file, else whatever satisfies a name that leaves it open.

    "qwen3:8b" is satisfied by any quantization of that repository, and "qwen3" also by the only
    installed model whose name begins like that.
    """
    target = HubTarget(entry.repo, entry.quant, entry.file, entry=entry)
    if path := find_entry_file(entry):
        return Located(text, path, target)
    if entry.is_default and not entry.is_pinned:
        found = find_reference(HubReference(entry.repo))
        if found:
            return Located(text, found[0], target, note=f"{text}: {found[1]}")
    if text.strip().lower() in ALIASES:
        with contextlib.suppress(AmbiguousFile):
            if other := _from_beginning(text):
                note = f"{other.note} ({entry.name}, the default, is not)"
                return replace(other, target=target, note=note)
    return Located(text, None, target)


def _from_hub(text: str, reference: HubReference) -> Located:
    target = HubTarget(reference.repo, reference.quant, reference.file, reference.revision)
    found = find_reference(reference)
    if found is None:
        return Located(text, None, target)
    return Located(text, found[0], target, note=f"{text}: {found[1]}" if found[1] else "")


def _from_address(text: str) -> Located:
    target = UrlTarget(text)
    path = local_path(text)
    if path is None:
        return Located(text, find_address(text), target)
    if not is_file(path):
        raise ModelNotFound(f"{shown(text)}: there is no file {path}: check the address")
    first, note = first_part(path)
    return Located(text, first, target, note=note)


def _from_beginning(text: str) -> Located | None:
    """Locate something installed by the beginning of its name, or None."""
    if not text.strip() or "/" in text or os.sep in text:
        return None
    from llamalite.models.store.installed import find_installed

    model = find_installed(text)
    if model is None:
        return None
    same = text.strip().casefold() == model.name.casefold()
    note = "" if same else f"{text}: taking {model.name}, which is installed"
    return Located(text, model.paths[0], _target_of(model), note=note)


def _target_of(model: InstalledModel) -> HubTarget | None:
    reference = parse_reference(model.reference) if model.reference else None
    if reference is None:
        return None
    return HubTarget(reference.repo, reference.quant, reference.file, reference.revision)
