"""The models on this computer: what the disk holds, with the names they go by.

Owns the list, which is made anew from the disk each time, and finding one model in it. May import
`names`, `hub`, `libs`, `gguf`, `config` and `errors`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from llamalite import config
from llamalite.errors import GGUFError
from llamalite.libs.transfer.progress import Say, say_nothing
from llamalite.libs.transfer.wording import printable
from llamalite.models.hub.cache import cache_folder
from llamalite.models.names.catalog import CATALOG, short_name
from llamalite.models.store.candidates import Candidate, in_cache, in_folder
from llamalite.models.store.finding import Meanings, find_model
from llamalite.models.store.headers import HeaderFacts, Headers
from llamalite.models.store.model import InstalledModel, stem_of
from llamalite.models.store.named import all_named
from llamalite.models.store.records import Record, all_records, record_key

if TYPE_CHECKING:
    from llamalite.config import ModelConfig

__all__ = ["InstalledModel", "find_installed", "installed_models"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Survey(NamedTuple):
    """What looks like a model on this computer.

    Attributes:
        models: those that are whole.
        damaged: those of which parts are missing, or whose header can't be read or says that they
            hold something else.
    """

    models: list[InstalledModel]
    damaged: list[InstalledModel]


def installed_models(
    models_dir: Path | None = None, say: Say | None = None
) -> list[InstalledModel]:
    """Return the models on this computer, by name.

    Those are the ones in `models_dir` and all of the Hub's cache, whichever program fetched them.
    What is partial, or leads nowhere, is none.

    Args:
        models_dir: None = the one that is set.
        say: takes a line about each file that is left out.
    """
    return survey(models_dir, say).models


def survey(models_dir: Path | None = None, say: Say | None = None) -> Survey:
    """Return what `installed_models` does, and what looks like a model and is none."""
    say = say or say_nothing
    records = all_records()
    headers = Headers()
    folder = config.models_dir() if models_dir is None else models_dir
    cache = cache_folder()
    models: list[InstalledModel] = []
    damaged: list[InstalledModel] = []
    for candidate in [*in_cache(cache, say), *in_folder(folder, cache, say)]:
        record = records.get(record_key(candidate.paths[0])) or Record("")
        try:
            facts = None
            if not candidate.n_missing:
                facts = headers.facts(candidate.paths[0], candidate.statuses, record)
        except GGUFError as error:
            say(f"left out: {error}")
        (damaged if facts is None else models).append(_installed(candidate, record, facts))
    headers.remember()
    return Survey(_with_names(_distinct(models, folder), all_names(say)), damaged)


def all_names(say: Say | None = None) -> dict[str, ModelConfig]:
    """Return every alias and preset, the configuration's aliases among them.

    Args:
        say: takes a line about each damaged one, which is left out; None = raise for it.

    Raises:
        ModelError: a name's file is damaged.
        InvalidParameter: the configuration is faulty.
    """
    named = all_named(say)
    if not config.is_configured():
        return named
    aliases = config.load_config().aliases
    return {name: config.ModelConfig(model=model) for name, model in aliases.items()} | named


def find_installed(name: str) -> InstalledModel | None:
    """Return the installed model that a name means, as `find_model` does.

    Raises:
        AmbiguousFile: several models fit; the message lists them.
    """
    return find_model(name, installed_models())


def _installed(candidate: Candidate, record: Record, facts: HeaderFacts | None) -> InstalledModel:
    facts = facts or HeaderFacts(
        sum(status.st_size for status in candidate.statuses),
        max(status.st_mtime_ns for status in candidate.statuses),
    )
    name, reference, origin = _called(candidate, record)
    return InstalledModel(
        name=name,
        reference=reference,
        revision=candidate.snapshot.revision if candidate.snapshot else None,
        paths=candidate.paths,
        source="hub" if candidate.snapshot else record.source or "file",
        origin=origin,
        n_bytes=facts.n_bytes,
        modified=facts.mtime_ns / 1e9,
        quantization=str(candidate.quantization) if candidate.quantization else facts.scheme,
        n_params=facts.n_params,
        architecture=facts.architecture,
        n_ctx_train=facts.n_ctx_train,
        projector=candidate.projector,
        last_used=record.last_used,
        sha256=_sha256(candidate, record),
        is_unnamed=record.removed,
    )


def _called(candidate: Candidate, record: Record) -> tuple[str, str | None, str]:
    """Return name, reference and origin."""
    snapshot = candidate.snapshot
    n_bytes = candidate.statuses[0].st_size
    if snapshot is None:
        path = candidate.paths[0]
        return own_name(path.name, n_bytes), None, record.origin
    at = "" if snapshot.revision == "main" else f"@{snapshot.revision}"
    full = f"{snapshot.repo}/{candidate.file}"
    quant = f"{snapshot.repo}:{candidate.quantization}" if candidate.quantization else full
    name = (not at and short_name(snapshot.repo, candidate.file, n_bytes)) or (
        (quant if candidate.is_only else full) + at
    )
    return name, full + at, snapshot.repo + at


def own_name(file: str, n_bytes: int) -> str:
    """Return what a file of `models_dir` is called: by the catalog if it pins it, else its stem.

    What no terminal shows is escaped, as `list` prints it and others can type it.
    """
    pinned = (e for e in CATALOG if e.n_bytes == n_bytes and PurePosixPath(e.file).name == file)
    entry = next(pinned, None)
    return entry.name if entry else printable(stem_of(file))


def _sha256(candidate: Candidate, record: Record) -> str | None:
    if len(candidate.paths) > 1:
        return None
    if candidate.snapshot is not None and candidate.paths[0].is_symlink():
        blob = os.path.basename(os.readlink(candidate.paths[0]))
        if _SHA256.fullmatch(blob):
            return blob
    return record.sha256


def _distinct(models: Sequence[InstalledModel], folder: Path) -> list[InstalledModel]:
    """Give models of `models_dir` longer names where two would have the same."""

    def renamed(longer: Callable[[InstalledModel], str]) -> list[InstalledModel]:
        count = Counter(model.name.casefold() for model in models)
        return [
            replace(model, name=longer(model))
            if model.reference is None and count[model.name.casefold()] > 1
            else model
            for model in models
        ]

    models = renamed(lambda model: printable(stem_of(model.path.name)))
    return renamed(
        lambda model: printable(os.path.relpath(model.path, folder).replace(os.sep, "/"))
    )


def _with_names(
    models: Sequence[InstalledModel], named: Mapping[str, ModelConfig]
) -> list[InstalledModel]:
    """Add aliases and presets; a model whose own name was removed goes by the first of them."""
    names: dict[Path, list[str]] = {}
    meanings = Meanings(named, models if named else ())
    for alias in named:
        for target in meanings.of(alias):
            names.setdefault(target.path, []).append(alias)
    whole = []
    for model in models:
        if own := tuple(names.get(model.path, ())):
            model = replace(model, names=own)
            if model.is_unnamed:
                model = replace(model, name=own[0], own_name=model.name)
        elif model.is_unnamed:
            model = replace(model, is_unnamed=False)
        whole.append(model)
    return sorted(whole, key=lambda model: (model.name.casefold(), os.fspath(model.path)))
