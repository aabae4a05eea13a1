"""One file off the disk: from `models_dir`, or from the Hub's cache with the blob behind it.

Owns what goes with a file, and that the Hub's cache stays one that other programs can read. Doesn't
know names. May import `bounds`, `hub` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from llamalite.errors import ModelError
from llamalite.models.hub.cache import cache_folder
from llamalite.models.store import bounds
from llamalite.models.store.shared_blobs import freed_by_sweeping, shared_entry, sweep
from llamalite.models.store.snapshots import all_files, read_refs, snapshots_of


def unlink_file(path: Path) -> None:
    """Remove a model's file; of a link, the link alone, but for the cache's own blobs.

    A revision that nobody names any more and that has the same file goes along.

    Raises:
        ModelError: it really lies outside `models_dir` and the Hub's cache, or can't be removed.
    """
    try:
        for place in goes_with(path):
            drop(place)
        if repo := _repo_folder(path):
            remove_if_empty(repo)
    except OSError as error:
        raise ModelError(
            f"{error.filename or path} can't be removed ({error.strerror or error}): end programs "
            f"that use it, or get the right to write there"
        ) from None


def goes_with(path: Path) -> list[Path]:
    """Return what `unlink_file` removes: the file, and what in the cache is of no use without it.

    Raises:
        OSError: who else uses it can't be found.
    """
    repo = _repo_folder(path)
    if repo is None:
        return [path]
    going = [path, *_twins(path, repo)]
    blob = _blob(path, repo)
    if blob is not None and bounds.is_inside(blob):
        links = (repo / "snapshots" / found.path for found in all_files(repo / "snapshots"))
        if all(link in going or _blob(link, repo) != blob for link in links):
            going.append(blob)
    return going


def freed_by(path: Path) -> int:
    """Return how many bytes `unlink_file` frees."""
    try:
        return sum(_freed_by_one(place) for place in goes_with(path))
    except OSError:
        return 0


def drop(path: Path) -> None:
    """Remove a file, and of a blob in the cache what it alone leads to.

    Raises:
        ModelError: it lies outside.
        OSError: it can't be removed.
    """
    entry = shared_entry(path)
    bounds.unlink(path)
    if entry is not None and bounds.is_inside(entry):
        sweep(entry)


def remove_if_empty(repo: Path) -> None:
    """Remove what a repository in the cache doesn't need: empty folders, refs to nothing, itself.

    What leads out of the cache stays.

    Raises:
        OSError: something can't be removed.
    """
    snapshots, blobs = repo / "snapshots", repo / "blobs"
    with contextlib.suppress(ModelError):
        for folder, _, _ in os.walk(snapshots, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                bounds.rmdir(Path(folder))
        for commit, refs in read_refs(repo).items():
            if not os.path.lexists(snapshots / commit):
                for ref in refs:
                    bounds.unlink(repo / "refs" / ref)
        if not os.path.lexists(snapshots) and not (blobs.is_dir() and any(blobs.iterdir())):
            bounds.rmtree(repo)


def _repo_folder(path: Path) -> Path | None:
    """Return the repository's folder of a file in a snapshot of the cache, or None."""
    cache = cache_folder()
    try:
        parts = path.relative_to(cache).parts
    except ValueError:
        return None
    return cache / parts[0] if len(parts) > 3 and parts[1] == "snapshots" else None


def _blob(link: Path, repo: Path) -> Path | None:
    """Return the blob that a link leads to, or None where it leads out of the repository."""
    if not link.is_symlink():
        return None
    target = link.parent / os.readlink(link)
    blobs = os.path.realpath(repo / "blobs")
    return repo / "blobs" / target.name if os.path.realpath(target.parent) == blobs else None


def _twins(path: Path, repo: Path) -> Iterator[Path]:
    """Yield the same file in revisions without a name: such a revision is what an update left."""
    within = path.relative_to(repo / "snapshots")
    file = Path(*within.parts[1:])
    for snapshot in snapshots_of("", repo):
        twin = snapshot.folder / file
        if not snapshot.refs and twin != path and bounds.is_inside(twin) and _is_same(twin, path):
            yield twin


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _freed_by_one(path: Path) -> int:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        return status.st_size if status.st_nlink == 1 else 0
    entry = shared_entry(path)
    return freed_by_sweeping(entry, path) if entry is not None else 0
