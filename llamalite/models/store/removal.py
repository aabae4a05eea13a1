"""Names and files that go: what a removal would do, and doing it.

Owns when a file goes with a name and when others keep it. May import `names`, `hub`, `config` and
`errors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite import config
from llamalite.errors import InvalidParameter, ModelError, ModelNotFound
from llamalite.libs.transfer.progress import Say, say_nothing
from llamalite.models.names.safety import shown
from llamalite.models.store.bounds import check_inside, place_of, way_of
from llamalite.models.store.finding import find_at, find_model, stands_for
from llamalite.models.store.in_use import is_held, kept_free
from llamalite.models.store.installed import all_names, installed_models, survey
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.named import all_named, is_taken, remove_named, same_name
from llamalite.models.store.records import forget_record, update_record
from llamalite.models.store.unlinking import freed_by, goes_with, unlink_file

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


def plan_removal(names: Sequence[str], say: Say | None = None) -> list[Removal]:
    """Return what removing these names together would do; nothing is touched.

    Args:
        names: aliases, presets, and models' own names or whole words that only one begins with,
            damaged ones included; whole paths of models, too.
        say: takes a line about each damaged alias or preset, which then keeps nothing.

    Raises:
        ModelNotFound: nothing here has one of the names, or not any more.
        AmbiguousFile: several models begin with it.
        InvalidParameter: another name or a link stands for one of them, or it is the
            configuration's.
        ModelError: a file that would go is loaded somewhere, or lies outside `models_dir` and the
            Hub's cache.
    """
    models, damaged = survey()
    there, named = [*models, *damaged], all_named(say or say_nothing)
    aliases = [key for key in named if any(same_name(key, name) for name in names)]
    _check_unneeded(aliases, named)
    others = [name for name in names if not any(same_name(name, alias) for alias in aliases)]
    unread = [name for name in others if is_taken(name)]
    own = dict.fromkeys(_own_name(name, there) for name in others if name not in unread)
    plan = [Removal(name, name, None, note="what it stood for can't be read") for name in unread]
    unnamed: dict[InstalledModel, str | None] = {}  # and the last of its names
    whole = all_names(say_nothing) if aliases else {}
    for alias in aliases:
        model = stands_for(alias, whole, models)
        # Its own name went before, and others kept the file.
        is_last = model is not None and model.is_unnamed and set(model.names) <= set(aliases)
        if model is not None and is_last and model not in own and model not in unnamed:
            unnamed[model] = alias
        else:
            plan.append(Removal(alias, alias, None))
    for model in own:
        kept_by = [name for name in model.names if name not in aliases]
        if kept_by and model.is_unnamed:
            raise ModelNotFound(
                f"{shown(model.own_name)} was removed before, and only {', '.join(kept_by)} "
                f"{_keep(kept_by)} its file: 'llamalite rm {' '.join(kept_by)}' removes it"
            )
        if kept_by:
            verb = "stands" if len(kept_by) == 1 else "stand"
            note = f"its file stays, because {', '.join(kept_by)} {verb} for it"
            plan.append(Removal(model.name, None, model, note=note))
        else:
            unnamed[model] = None
    staying = [model for model in there if model not in unnamed]
    for model, last in unnamed.items():
        planned = {path for removal in plan for path in removal.files}
        plan.append(_with_files(model, last, staying, planned))
    return plan


def carry_out(plan: Iterable[Removal], done: Callable[[Removal], None] | None = None) -> None:
    """Do what was planned.

    Args:
        plan: by `plan_removal`.
        done: told of each removal as soon as it is done.

    Raises:
        ModelError: a file can't be removed, or is loaded by now; what was done before stays done.
    """
    for removal in plan:
        with kept_free(removal.files) as is_free:
            if not is_free:
                raise _loaded(removal.name)
            for path in removal.files:
                unlink_file(path)
                forget_record(path)
        if removal.alias is not None:
            remove_named(removal.alias)
        elif removal.model is not None and not removal.files:
            update_record(removal.model.path, removed=True)
        if done is not None:
            done(removal)


def remove_aliases(names: Sequence[str]) -> list[str]:
    """Remove aliases and presets, and no file; return them as they were spelled.

    Raises:
        ModelNotFound: there is none of that name; nothing was done then.
        InvalidParameter: another name stands for one of them; likewise.
        ModelError: one can't be removed.
    """
    models, named = installed_models(), all_named(say_nothing)
    aliases = []
    for name in names:
        alias = next((key for key in named if same_name(key, name)), None)
        if alias is None and is_taken(name):  # and can't be read
            alias = name
        if alias is None:
            _refuse_configured(name)
            raise ModelNotFound(
                f"no alias or preset is called {shown(name)}: see 'llamalite alias'"
            )
        aliases.append(alias)
    _check_unneeded(aliases, named)
    whole = all_names(say_nothing) if aliases else {}
    for alias in aliases:
        model = stands_for(alias, whole, models) if alias in named else None
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
    found = find_at(name, models) if os.path.isabs(name) else find_model(name, models, at_word=True)
    if found is None:
        raise ModelNotFound(f"nothing here is called {shown(name)}: see 'llamalite list'")
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
    model: InstalledModel, alias: str | None, others: Sequence[InstalledModel], planned: set[Path]
) -> Removal:
    """Plan that a model's files go.

    Args:
        model: of which no name is left.
        alias: the last of its names, if that was one.
        others: the models that stay.
        planned: files that go with other models.
    """
    files = list(model.paths)
    if model.projector and all(other.projector != model.projector for other in others):
        files.append(model.projector)
    files = [path for path in files if path not in planned]
    for path in files:
        check_inside(path)
        if is_held(path):
            raise _loaded(model.name)
    _check_unlinked(model, files, others)
    sharing = [other.name for other in others if _shares(model, other)]
    note = f"{', '.join(sharing)} still {_need(sharing)} the same file" if sharing else ""
    n_bytes = sum(freed_by(path) for path in files)
    if not note and model.path.is_symlink() and model.reference is None:
        note = f"only the link goes, not {os.path.realpath(model.path)}"
    return Removal(alias or model.name, alias, model, tuple(files), n_bytes, note)


def _check_unlinked(
    model: InstalledModel, files: Sequence[Path], others: Sequence[InstalledModel]
) -> None:
    """Refuse to remove what a symbolic link that stays leads to."""
    try:
        going = {place_of(place) for path in files for place in goes_with(path)}
    except OSError as error:
        raise ModelError(
            f"{error.filename} can't be read ({error.strerror}), so nothing shows whether another "
            f"model needs {model.name}: get the right to read there"
        ) from None
    for other in others:
        for path in (*other.paths, *([other.projector] if other.projector else [])):
            if not going.isdisjoint(way_of(path)):
                raise InvalidParameter(
                    f"'{other.name}' is a link to the file of '{model.name}': remove it first, or "
                    f"with it"
                )


def _loaded(name: str) -> ModelError:
    return ModelError(
        f"{name} is loaded by a running program, so it can't be removed: end that first"
    )


def _need(names: Sequence[str]) -> str:
    return "needs" if len(names) == 1 else "need"


def _keep(names: Sequence[str]) -> str:
    return "keeps" if len(names) == 1 else "keep"


def _shares(one: InstalledModel, other: InstalledModel) -> bool:
    try:
        return os.path.samefile(one.path, other.path)
    except OSError:
        return False
