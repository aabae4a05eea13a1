"""Names and files that go: what a removal would do, and doing it.

Owns when a file goes with a name and when others keep it, and that nothing outside `models_dir` and
the Hub's cache ever goes. May import `names`, `config` and `errors`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite import config
from llamalite.errors import InvalidParameter, ModelError, ModelNotFound
from llamalite.models.hub.cache import cache_folder
from llamalite.models.store.finding import find_model, stands_for
from llamalite.models.store.in_use import is_held
from llamalite.models.store.installed import all_names, installed_models
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.named import all_named, remove_named, same_name
from llamalite.models.store.records import forget_record, update_record
from llamalite.models.store.unlinking import freed_by, unlink_file

if TYPE_CHECKING:
    from llamalite.config import ModelConfig


@dataclass(frozen=True)
class Removal:
    """What removing one thing means.

    Attributes:
        name: what goes, as the user knows it.
        alias: the alias or preset that goes; None where it is a model's own name.
        model: the model whose own name goes, or whose last alias; None for other aliases.
        files: what is removed from the disk; empty where others still need it.
        n_bytes: room that makes.
        note: why less goes than the name says; "" = all goes.
    """

    name: str
    alias: str | None
    model: InstalledModel | None
    files: tuple[Path, ...] = ()
    n_bytes: int = 0
    note: str = ""


def plan_removal(names: Sequence[str]) -> list[Removal]:
    """Return what removing these names together would do; nothing is touched.

    Args:
        names: aliases, presets, and models' own names or a beginning that only one has; case
            doesn't matter.

    Raises:
        ModelNotFound: nothing here has one of the names.
        InvalidParameter: another name stands for one of them, or it is the configuration's.
        ModelError: a model that would go is loaded somewhere.
    """
    models, named = installed_models(), all_named()
    aliases = [key for key in named if any(same_name(key, name) for name in names)]
    _check_unneeded(aliases, named)
    others = [name for name in names if not any(same_name(name, alias) for alias in aliases)]
    going = list(dict.fromkeys(_own_name(name, models) for name in others))
    plan = []
    for alias in aliases:
        model = stands_for(alias, all_names(), models)
        # The last of the names that kept a file whose own name went before.
        is_last = model is not None and model.is_unnamed and set(model.names) <= set(aliases)
        if model is not None and is_last and model not in going:
            plan.append(_with_files(model, alias, models))
        else:
            plan.append(Removal(alias, alias, None))
    for model in going:
        kept_by = [name for name in model.names if name not in aliases]
        if kept_by:
            verb = "stands" if len(kept_by) == 1 else "stand"
            note = f"its file stays, because {', '.join(kept_by)} {verb} for it"
            plan.append(Removal(model.name, None, model, note=note))
        else:
            plan.append(_with_files(model, None, models))
    return plan


def carry_out(plan: Iterable[Removal]) -> None:
    """Do what was planned.

    Raises:
        ModelError: a file can't be removed, or is loaded by now; what was done before stays done.
    """
    roots = (config.models_dir(), cache_folder())
    for removal in plan:
        for path in removal.files:
            unlink_file(path, roots)
            forget_record(path)
        if removal.alias is not None:
            remove_named(removal.alias)
        elif removal.model is not None and not removal.files:
            update_record(removal.model.path, removed=True)


def remove_aliases(names: Sequence[str]) -> list[str]:
    """Remove aliases and presets, and no file; return them as they were spelled.

    Raises:
        ModelNotFound: there is none of that name; nothing was done then.
        InvalidParameter: another name stands for one of them; likewise.
        ModelError: one can't be removed.
    """
    models, named = installed_models(), all_named()
    aliases = []
    for name in names:
        alias = next((key for key in named if same_name(key, name)), None)
        if alias is None:
            _refuse_configured(name)
            raise ModelNotFound(f"no alias or preset is called '{name}': see 'llamalite alias'")
        aliases.append(alias)
    _check_unneeded(aliases, named)
    for alias in aliases:
        model = stands_for(alias, all_names(), models)
        remove_named(alias)
        if model is not None and model.is_unnamed and set(model.names) <= set(aliases):
            update_record(model.path, removed=False)
    return aliases


def remove(names: Sequence[str]) -> list[Removal]:
    """Remove names, and the files that no other name needs; return what was done.

    Raises:
        LlamaliteError: see `plan_removal`, in which case nothing was done, and `carry_out`.
    """
    plan = plan_removal(names)
    carry_out(plan)
    return plan


def _own_name(name: str, models: Sequence[InstalledModel]) -> InstalledModel:
    _refuse_configured(name)
    found = find_model(name, models)
    if found is None:
        raise ModelNotFound(f"nothing here is called '{name}': see 'llamalite list'")
    return found


def _refuse_configured(name: str) -> None:
    if any(same_name(name, alias) for alias in config.load_config().aliases):
        raise InvalidParameter(
            f"'{name}' is an alias of the configuration: remove it with 'llamalite config unset "
            f"aliases.{name}'"
        )


def _check_unneeded(aliases: Sequence[str], named: Mapping[str, ModelConfig]) -> None:
    """Refuse to remove a name that another one, which stays, stands for."""
    for name, preset in named.items():
        target = preset.model
        if name in aliases or target is None:
            continue
        needed = next((alias for alias in aliases if same_name(alias, target)), None)
        if needed is not None:
            raise InvalidParameter(f"'{name}' stands for '{needed}': remove it first, or with it")


def _with_files(
    model: InstalledModel, alias: str | None, models: Sequence[InstalledModel]
) -> Removal:
    others = [other for other in models if other is not model]
    files = list(model.paths)
    if model.projector and all(other.projector != model.projector for other in others):
        files.append(model.projector)
    for path in files:
        if is_held(path):
            raise ModelError(
                f"{model.name} is loaded by a running program, so it can't be removed: end that "
                f"first"
            )
    sharing = [other.name for other in others if _shares(model, other)]
    note = f"{', '.join(sharing)} still {_need(sharing)} the same file" if sharing else ""
    n_bytes = sum(freed_by(path) for path in files)
    if not note and model.path.is_symlink() and model.reference is None:
        note = f"only the link goes, not {os.path.realpath(model.path)}"
    return Removal(alias or model.name, alias, model, tuple(files), n_bytes, note)


def _need(names: Sequence[str]) -> str:
    return "needs" if len(names) == 1 else "need"


def _shares(one: InstalledModel, other: InstalledModel) -> bool:
    try:
        return os.path.samefile(one.path, other.path)
    except OSError:
        return False
