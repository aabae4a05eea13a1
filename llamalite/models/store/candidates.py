"""The files on this computer that could be models, in `models_dir` and in the Hub's cache.

Owns which files go together: the parts of a split model, and a model and its projector. Doesn't
read them. May import `names` and `errors`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from llamalite.libs.transfer.progress import Say
from llamalite.models.names.quantization import Quantization, bare_name
from llamalite.models.names.repository import RepoFile, RepoModel, group_models
from llamalite.models.store.snapshots import (
    PREFIX,
    FoundFile,
    Snapshot,
    repo_folders,
    snapshots_of,
    telling,
    walk,
)


class Candidate(NamedTuple):
    """Files that look like one model.

    Attributes:
        file: the first part's path below the folder, with forward slashes.
        paths: all parts that are there, in order.
        statuses: of the parts, links followed.
        quantization: as the names say; None where they don't.
        projector: the `mmproj` file that goes with it, or None.
        snapshot: the revision in the Hub's cache it belongs to; None in `models_dir`.
        is_only: no other model of the snapshot has this quantization.
        n_missing: parts that are not there.
    """

    file: str
    paths: tuple[Path, ...]
    statuses: tuple[os.stat_result, ...]
    quantization: Quantization | None
    projector: Path | None
    snapshot: Snapshot | None = None
    is_only: bool = False
    n_missing: int = 0

    @property
    def identity(self) -> tuple[tuple[int, int], ...]:
        """The same for two candidates whose names lead to the same files."""
        return tuple((status.st_dev, status.st_ino) for status in self.statuses)


def in_folder(folder: Path, cache: Path, say: Say) -> Iterator[Candidate]:
    """Yield the models of `models_dir`; links are followed.

    Args:
        folder: need not exist.
        cache: the Hub's; what `in_cache` yields is left out, where one folder holds the other.
        say: takes a line about each file that is left out.
    """
    by_folder: dict[str, list[FoundFile]] = {}
    for file in walk(folder, ".gguf", telling(say), through_links=True):
        by_folder.setdefault(file.path.rpartition("/")[0], []).append(file)
    for parent, files in by_folder.items():
        if _is_cached(folder / parent, cache):
            continue
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
    trouble = telling(say)
    for repo, folder in repo_folders(cache, trouble):
        seen = set()
        for snapshot in snapshots_of(repo, folder, trouble):
            files = walk(snapshot.folder, ".gguf", trouble)
            group = list(_group(snapshot.folder, files, say))
            quants = [candidate.quantization for candidate in group if not candidate.n_missing]
            for candidate in group:
                key = (candidate.file, candidate.identity)
                # What an update left, and nobody names, is no model of its own.
                if snapshot.refs or key not in seen:
                    seen.add(key)
                    is_only = quants.count(candidate.quantization) <= 1
                    yield candidate._replace(snapshot=snapshot, is_only=is_only)


def _group(folder: Path, files: Iterable[FoundFile], say: Say) -> Iterator[Candidate]:
    statuses = {}
    for file in files:
        path = folder / file.path
        if file.status is None:
            say(f"{path} is left out: the link leads nowhere ('llamalite prune' removes it)")
        elif not stat.S_ISREG(file.status.st_mode):
            say(f"{path} is left out: it is no regular file")
        else:
            statuses[file.path] = file.status
    sizes = (RepoFile(path, status.st_size) for path, status in statuses.items())
    for model in group_models(sizes):
        if model.missing:
            say(
                f"{folder / model.file} is left out: {len(model.missing)} of its "
                f"{len(model.parts)} parts are missing"
            )
        yield _candidate(folder, model, statuses)


def _candidate(folder: Path, model: RepoModel, statuses: dict[str, os.stat_result]) -> Candidate:
    there = [part for part in model.parts if part not in model.missing]
    return Candidate(
        model.file,
        tuple(folder / part for part in there),
        tuple(statuses[part] for part in there),
        model.quantization,
        folder / model.projector if model.projector else None,
        n_missing=len(model.missing),
    )


def _is_own(projector: Path | None, model: str) -> bool:
    return projector is not None and bare_name(projector.name) == bare_name(model)


def _is_cached(folder: Path, cache: Path) -> bool:
    try:
        below = Path(os.path.realpath(folder)).relative_to(os.path.realpath(cache)).parts
    except ValueError:
        return False
    return bool(below) and below[0].startswith(PREFIX)
