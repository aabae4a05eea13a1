"""The Hub's cache as it lies on the disk, whichever program filled it.

Owns walking it quickly: repositories, their snapshots, which revision a snapshot is, and the blobs
that hold the bytes. Doesn't know what models are. May import `hub` and `errors`.
Source: huggingface_hub's documentation, "Understand caching".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llamalite.models.hub.cache import COMMIT

PREFIX = "models--"


class Snapshot(NamedTuple):
    """One revision of a repository, as far as it was fetched.

    Attributes:
        repo: "owner/name".
        folder: of the snapshot.
        commit: the revision's full name.
        refs: branches and tags that stand for it here.
    """

    repo: str
    folder: Path
    commit: str
    refs: tuple[str, ...]

    @property
    def revision(self) -> str:
        """What to call it: main, else a branch or tag, else the commit."""
        return "main" if "main" in self.refs else self.refs[0] if self.refs else self.commit


class FoundFile(NamedTuple):
    """A file of a folder, links followed.

    Attributes:
        path: below the folder, with forward slashes.
        status: of what the path leads to; None where it leads nowhere.
    """

    path: str
    status: os.stat_result | None


def repo_folders(cache: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each repository of models."""
    for entry in _entries(cache):
        if entry.name.startswith(PREFIX) and entry.is_dir():
            yield entry.name[len(PREFIX) :].replace("--", "/", 1), Path(entry.path)


def snapshots_of(repo: str, folder: Path) -> list[Snapshot]:
    """Return a repository's snapshots, main first, then other revisions that have names."""
    refs = read_refs(folder)
    found = [
        Snapshot(repo, Path(entry.path), entry.name, tuple(refs.get(entry.name, ())))
        for entry in _entries(folder / "snapshots")
        if entry.is_dir(follow_symlinks=False)
    ]
    return sorted(found, key=lambda s: (s.revision != "main", not s.refs, s.revision))


def read_refs(folder: Path) -> dict[str, list[str]]:
    """Return the branches and tags of a repository by commit."""
    refs: dict[str, list[str]] = {}
    for found in all_files(folder / "refs"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"{folder}/refs/{found.path}", encoding="utf-8") as stream:
                commit = stream.read().strip()
            if COMMIT.fullmatch(commit):
                refs.setdefault(commit, []).append(found.path)
    return {commit: sorted(names) for commit, names in refs.items()}


def walk(folder: Path, suffix: str, *, through_links: bool = False) -> Iterator[FoundFile]:
    """Yield the files below a folder whose names end so, whatever the case.

    Links to files are followed, those to folders only if asked for. What is hidden is left out:
    downloads under way are among it.
    """
    for found in _walk(os.fspath(folder), "", through_links, False):
        if found.path.lower().endswith(suffix):
            yield found


def all_files(folder: Path) -> list[FoundFile]:
    """Return all files below a folder, hidden ones, too; links to folders are not followed."""
    return list(_walk(os.fspath(folder), "", False, True))


def _walk(folder: str, prefix: str, through_links: bool, hidden: bool) -> Iterator[FoundFile]:
    for entry in _entries(folder):
        if entry.name.startswith(".") and not hidden:
            continue
        if entry.is_dir() and (through_links or not entry.is_symlink()):
            if not entry.is_symlink() or not _leads_up(entry.path):
                below = f"{prefix}{entry.name}/"
                yield from _walk(entry.path, below, through_links, hidden)
        else:
            try:
                status = entry.stat()
            except OSError:
                status = None
            yield FoundFile(prefix + entry.name, status)


def _leads_up(link: str) -> bool:
    """Say whether following a link would come by it again."""
    target = Path(os.path.realpath(link))
    return Path(os.path.realpath(os.path.dirname(link))).is_relative_to(target)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
