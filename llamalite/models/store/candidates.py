"""The files on this computer that could be models, in `models_dir` and in the Hub's cache.

Owns which files go together: the parts of a split model, and a model and its projector. Doesn't
read them. May import `names` and `errors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from llamalite.models.names.quantization import Quantization, bare_name
from llamalite.models.names.repository import RepoFile, RepoModel, group_models
from llamalite.models.store.snapshots import (
    FoundFile,
    Snapshot,
    repo_folders,
    snapshots_of,
    walk,
)

Say = Callable[[str], None]


class Candidate(NamedTuple):
    """Files that look like one whole model.

    Attributes:
        file: the first part's path below the folder, with forward slashes.
        paths: all parts, in order.
        statuses: of the parts, links followed.
        quantization: as the names say; None where they don't.
        projector: the `mmproj` file that goes with it, or None.
        snapshot: the revision in the Hub's cache it belongs to; None in `models_dir`.
        is_only: no other model of the snapshot has this quantization.
    """

    file: str
    paths: tuple[Path, ...]
    statuses: tuple[os.stat_result, ...]
    quantization: Quantization | None
    projector: Path | None
    snapshot: Snapshot | None = None
    is_only: bool = False

    @property
    def identity(self) -> tuple[tuple[int, int], ...]:
        """The same for two candidates whose names lead to the same files."""
        return tuple((status.st_dev, status.st_ino) for status in self.statuses)


def in_folder(folder: Path, say: Say) -> Iterator[Candidate]:
    """Yield the models of `models_dir`; links are followed.

    Args:
        folder: need not exist.
        say: takes a line about each file that is left out.
    """
    by_folder: dict[str, list[FoundFile]] = {}
    for file in walk(folder, ".gguf", through_links=True):
        by_folder.setdefault(file.path.rpartition("/")[0], []).append(file)
    for parent, files in by_folder.items():
        for candidate in _group(folder, files, say):
            if not parent and not _is_own(candidate.projector, candidate.file):
                # Models of many origins lie side by side there.
                candidate = candidate._replace(projector=None)
            yield candidate


def in_cache(cache: Path, say: Say) -> Iterator[Candidate]:
    """Yield the models of the Hub's cache, each once per revision that has a name or other bytes.

    Args:
        cache: need not exist.
        say: takes a line about each file that is left out.
    """
    for repo, folder in repo_folders(cache):
        seen = set()
        for snapshot in snapshots_of(repo, folder):
            group = list(_group(snapshot.folder, walk(snapshot.folder, ".gguf"), say))
            quants = [candidate.quantization for candidate in group]
            for candidate in group:
                key = (candidate.file, candidate.identity)
                # What an update left, and nobody names, is no model of its own.
                if snapshot.refs or key not in seen:
                    seen.add(key)
                    is_only = quants.count(candidate.quantization) == 1
                    yield candidate._replace(snapshot=snapshot, is_only=is_only)


def _group(folder: Path, files: Iterable[FoundFile], say: Say) -> Iterator[Candidate]:
    statuses = {}
    for file in files:
        if file.status is None:
            path = folder / file.path
            say(f"{path} is left out: the link leads nowhere ('llamalite prune' removes it)")
        else:
            statuses[file.path] = file.status
    sizes = (RepoFile(path, status.st_size) for path, status in statuses.items())
    for model in group_models(sizes):
        if model.missing:
            say(
                f"{folder / model.file} is left out: {len(model.missing)} of its "
                f"{len(model.parts)} parts are missing"
            )
        else:
            yield _candidate(folder, model, statuses)


def _candidate(folder: Path, model: RepoModel, statuses: dict[str, os.stat_result]) -> Candidate:
    return Candidate(
        model.file,
        tuple(folder / part for part in model.parts),
        tuple(statuses[part] for part in model.parts),
        model.quantization,
        folder / model.projector if model.projector else None,
    )


def _is_own(projector: Path | None, model: str) -> bool:
    return projector is not None and bare_name(projector.name) == bare_name(model)
