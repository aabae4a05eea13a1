"""One file off the disk: from `models_dir`, or from the Hub's cache with the blob behind it.

Owns that nothing outside those two goes, and that the Hub's cache stays one that other programs can
read. Doesn't know names. May import `hub` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamalite.errors import ModelError
from llamalite.models.hub.cache import cache_folder
from llamalite.models.store.shared_blobs import freed_by_sweeping, shared_entry, sweep
from llamalite.models.store.snapshots import all_files, read_refs, snapshots_of


def unlink_file(path: Path, roots: Sequence[Path]) -> None:
    """Remove a model's file; of a link, the link alone, but for the cache's own blobs.

    A revision that nobody names any more and that has the same file goes along.

    Args:
        path: a file or a link to one.
        roots: folders one of which it must lie in.

    Raises:
        ModelError: it lies elsewhere, or can't be removed.
    """
    parent = Path(os.path.realpath(path.parent))
    if not any(parent.is_relative_to(os.path.realpath(root)) for root in roots):
        raise ModelError(
            f"{path} really lies in {parent}, outside {' and '.join(map(str, roots))}, and is left "
            f"alone: remove it yourself"
        )
    try:
        repo = _repo_folder(path)
        if repo is None:
            path.unlink(missing_ok=True)
        else:
            _unlink_in_cache(path, repo)
    except OSError as error:
        raise ModelError(
            f"{error.filename or path} can't be removed ({error.strerror or error}): end programs "
            f"that use it, or get the right to write there"
        ) from None


def freed_by(path: Path) -> int:
    """Return how many bytes `unlink_file` frees."""
    try:
        repo = _repo_folder(path)
        if not path.is_symlink():
            return _size_if_last(path)
        blob = _blob(path, repo) if repo else None
        if repo is None or blob is None:
            return 0
        going = {path, *_twins(path, repo)}
        stays = any(link not in going and _blob(link, repo) == blob for link in _links(repo))
        return 0 if stays else _size_of_blob(blob)
    except OSError:
        return 0


def drop_blob(blob: Path) -> None:
    """Remove a blob that no revision refers to, and what it alone leads to.

    Raises:
        OSError: it can't be removed.
    """
    entry = shared_entry(blob)
    blob.unlink(missing_ok=True)
    if entry is not None:
        sweep(entry)


def remove_if_empty(repo: Path) -> None:
    """Remove what a repository in the cache doesn't need: empty folders, refs to nothing, itself.

    Raises:
        OSError: something can't be removed.
    """
    snapshots = repo / "snapshots"
    for folder, _, _ in os.walk(snapshots, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(folder)
    for commit, refs in read_refs(repo).items():
        if not (snapshots / commit).exists():
            for ref in refs:
                (repo / "refs" / ref).unlink(missing_ok=True)
    blobs = repo / "blobs"
    if not snapshots.exists() and not (blobs.is_dir() and any(blobs.iterdir())):
        shutil.rmtree(repo)


def _repo_folder(path: Path) -> Path | None:
    """Return the repository's folder of a file in a snapshot of the cache, or None."""
    cache = cache_folder()
    try:
        parts = path.relative_to(cache).parts
    except ValueError:
        return None
    return cache / parts[0] if len(parts) > 3 and parts[1] == "snapshots" else None


def _unlink_in_cache(path: Path, repo: Path) -> None:
    blob = _blob(path, repo)
    for twin in _twins(path, repo):
        twin.unlink()
    path.unlink(missing_ok=True)
    if blob is not None and all(_blob(link, repo) != blob for link in _links(repo)):
        drop_blob(blob)
    remove_if_empty(repo)


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
        if not snapshot.refs and twin != path and twin.is_file() and os.path.samefile(twin, path):
            yield twin


def _links(repo: Path) -> Iterator[Path]:
    for found in all_files(repo / "snapshots"):
        yield repo / "snapshots" / found.path


def _size_of_blob(blob: Path) -> int:
    entry = shared_entry(blob)
    return _size_if_last(blob) if entry is None else freed_by_sweeping(entry, blob)


def _size_if_last(path: Path) -> int:
    """Return a file's size if it has no other hard link."""
    status = path.stat()
    return status.st_size if status.st_nlink == 1 else 0
