"""The models of one repository: which files make one up, and which one to take.

Owns what counts as one model (a file, or all parts of a split one), which projector goes with it,
and the default where no quantization is asked for. Pure: touches neither disk nor network. May
import `quantization`, `reference`, `libs` and `errors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llamalite.errors import AmbiguousFile, ModelNotFound
from llamalite.libs.transfer.wording import size_text
from llamalite.models.names.quantization import (
    Quantization,
    bare_name,
    is_model,
    is_projector,
    parse_quantization,
    read_quantization,
)
from llamalite.models.names.reference import shard_names

DEFAULTS = ("Q4_K_M", "Q4_0")
"""What is taken where no quantization is asked for, the best first."""

_LISTED = 30
# The projector's own precision matters little; F16 runs on every backend.
_PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")


@dataclass(frozen=True)
class RepoFile:
    """One file of a repository.

    Attributes:
        path: path in the repository, with forward slashes.
        n_bytes: None where the list of files doesn't say.
    """

    path: str
    n_bytes: int | None = None


@dataclass(frozen=True)
class RepoModel:
    """One model of a repository, in one file or in several parts.

    Attributes:
        parts: paths in the repository, in order.
        missing: those of the parts that the repository lacks.
        quantization: None where the names don't say.
        n_bytes: of all parts together; None where a size is not known.
        projector: path of the `mmproj` file that goes with it, or None.
    """

    parts: tuple[str, ...]
    quantization: Quantization | None
    n_bytes: int | None = None
    missing: tuple[str, ...] = ()
    projector: str | None = None

    @property
    def file(self) -> str:
        """The file to give to a loader: the only one, or the first part."""
        return self.parts[0]


@dataclass(frozen=True)
class Choice:
    """The model that was chosen, and why.

    Attributes:
        reason: one sentence for the user, without a full stop at its end.
        fits: whether its file is no larger than the memory that was named; True if none was.
    """

    model: RepoModel
    reason: str
    fits: bool = True


def group_models(files: Iterable[RepoFile]) -> list[RepoModel]:
    """Return a repository's models, smallest quantization first, each with its projector."""
    sizes = {file.path: file.n_bytes for file in files}
    projectors = sorted(path for path in sizes if is_projector(path))
    wholes = dict.fromkeys(tuple(shard_names(path)) for path in sizes if is_model(path))
    models = [_model(parts, sizes, projectors) for parts in wholes]
    return sorted(models, key=lambda model: (_bits(model), model.file))


def choose_model(
    models: Sequence[RepoModel], wanted: str | None, repo: str, free_bytes: int | None = None
) -> Choice:
    """Return the model of a repository that a quantization means, or the default one.

    A quantization matches whatever its case, and whole: Q4_K_M never takes Q4_K_S. Without "UD-" or
    "i1-" it also stands for files that have that, where no file has it without.

    Args:
        models: those of the repository, as `group_models` returns them.
        wanted: None for the default: Q4_K_M, else Q4_0, else what comes nearest to Q4_K_M among
            those that fit.
        repo: the repository's name, for messages.
        free_bytes: memory that the weights may take; None = don't ask.

    Raises:
        ModelNotFound: nothing matches, or parts of what matches are missing.
        AmbiguousFile: several models match; the message lists them.
    """
    whole = [model for model in models if not model.missing]
    if wanted is not None:
        chosen, reason = _only(_matching(models, wanted), wanted, repo, models), "as asked for"
    elif len(whole) == 1:
        chosen, reason = whole[0], f"the only model in {repo}"
    elif found := next((name for name in DEFAULTS if _matching(whole, name)), None):
        chosen = _only(_matching(whole, found), found, repo, whole)
        reason = "the default" if found == DEFAULTS[0] else f"{repo} has no {DEFAULTS[0]}"
    else:
        chosen, reason = _nearest(whole, repo, free_bytes)
    if chosen.missing:
        raise ModelNotFound(
            f"{chosen.missing[0]} is missing from {repo} ({len(chosen.missing)} of "
            f"{len(chosen.parts)} parts in all): choose another of {_listed(whole)}"
        )
    fits = _fits(chosen, free_bytes)
    if not fits and free_bytes is not None:
        size, free = size_text(chosen.n_bytes or 0), size_text(free_bytes)
        reason += f", though its {size} are more than the {free} of memory free"
    return Choice(chosen, f"taking {_named(chosen)}, {reason}", fits)


def _model(
    parts: tuple[str, ...], sizes: dict[str, int | None], projectors: Sequence[str]
) -> RepoModel:
    there = [sizes[part] for part in parts if part in sizes]
    known = [size for size in there if size is not None]
    return RepoModel(
        parts,
        read_quantization(parts[0]),
        sum(known) if len(known) == len(parts) else None,
        tuple(part for part in parts if part not in sizes),
        _projector_for(parts[0], projectors),
    )


def _projector_for(model: str, projectors: Sequence[str]) -> str | None:
    """Return the projector in the model's folder or the nearest one above, F16 if there are more.

    Where projectors carry models' names, only this model's counts.
    """
    for folder in PurePosixPath(model).parents:
        here = [path for path in projectors if PurePosixPath(path).parent == folder]
        own = [path for path in here if bare_name(path) == bare_name(model)]
        anyones = [path for path in here if not bare_name(path)]
        if not own and not anyones and len({bare_name(path) for path in here}) == 1:
            anyones = here
        if own or anyones:
            return min(own or anyones, key=_projector_rank)
    return None


def _projector_rank(path: str) -> tuple[int, str]:
    found = read_quantization(PurePosixPath(path).name)
    known = found is not None and found.scheme in _PROJECTOR_ORDER
    rank = _PROJECTOR_ORDER.index(found.scheme) if found and known else len(_PROJECTOR_ORDER)
    return rank, path


def _matching(models: Sequence[RepoModel], wanted: str) -> list[RepoModel]:
    asked = parse_quantization(wanted)
    if asked is None:
        return []
    exact = [model for model in models if model.quantization == asked]
    if exact or asked.variant:
        return exact
    return [m for m in models if m.quantization and m.quantization.scheme == asked.scheme]


def _only(
    found: Sequence[RepoModel], wanted: str, repo: str, models: Sequence[RepoModel]
) -> RepoModel:
    if len(found) > 1:
        raise AmbiguousFile(
            f"{repo}:{wanted} means any of {', '.join(model.file for model in found)}: name one of "
            f"them as {repo}/FILE"
        )
    if not found:
        raise ModelNotFound(f"{repo} has no GGUF file for {wanted}; it has {_listed(models)}")
    return found[0]


def _nearest(
    models: Sequence[RepoModel], repo: str, free_bytes: int | None
) -> tuple[RepoModel, str]:
    if not models:
        raise ModelNotFound(f"{repo} has no GGUF model: give a repository that has one")
    if not any(model.quantization for model in models):
        raise AmbiguousFile(
            f"{repo} has several models and their names tell no quantization ({_listed(models)}): "
            f"name one of them as {repo}/FILE"
        )
    lacks = f"{repo} has neither {' nor '.join(DEFAULTS)}"
    fitting = [model for model in models if model.quantization and _fits(model, free_bytes)]
    if not fitting:
        sized = [model for model in models if model.n_bytes is not None]
        smallest = min(sized or models, key=lambda m: (m.n_bytes or 0, m.file))
        return smallest, f"the smallest, as {lacks}"
    best = min(_distance(model) for model in fitting)
    nearest = [model for model in fitting if _distance(model) == best]
    if len({model.quantization for model in nearest}) > 1:  # plain before UD- and i1-
        nearest = [min(nearest, key=lambda model: str(model.quantization))]
    among = "" if free_bytes is None else " among those that fit in memory"
    only = _only(nearest, str(nearest[0].quantization), repo, models)
    return only, f"the nearest to {DEFAULTS[0]}{among}, as {lacks}"


def _distance(model: RepoModel) -> float:
    return abs(math.log(_bits(model) / Quantization(DEFAULTS[0]).bits))


def _bits(model: RepoModel) -> float:
    return model.quantization.bits if model.quantization else math.inf


def _fits(model: RepoModel, free_bytes: int | None) -> bool:
    return free_bytes is None or model.n_bytes is None or model.n_bytes <= free_bytes


def _named(model: RepoModel) -> str:
    size = "" if model.n_bytes is None else f" ({size_text(model.n_bytes)})"
    return f"{model.quantization or model.file}{size}"


def _listed(models: Sequence[RepoModel]) -> str:
    names = [str(model.quantization) if model.quantization else model.file for model in models]
    if len(set(names)) < len(names):
        names = [model.file for model in models]
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "") or "none at all"
