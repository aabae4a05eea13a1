"""The Hub's cache as it lies on the disk, whichever program filled it.

Owns walking it quickly: repositories, their snapshots, which revision a snapshot is, and the blobs
that hold the bytes. Doesn't know what models are. May import `hub` and `errors`.
Source: huggingface_hub's documentation, "Understand caching".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from llamalite.models.hub.cache import COMMIT

PREFIX = "models--"

Trouble = Callable[[OSError], None]
"""Takes the error of each folder or file that can't be read, which then counts as not there."""

_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


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


def fail(error: OSError) -> None:
    """Raise it: where what is overlooked would be taken for needless, nothing may be."""
    raise error


def telling(say: Callable[[str], None]) -> Trouble:
    """Return what says a line about each folder or file that can't be read."""
    return lambda error: say(f"{error.filename} is left out: it can't be read ({error.strerror})")


def repo_folders(cache: Path, trouble: Trouble) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each repository of models."""
    for entry in _entries(cache, trouble):
        if entry.name.startswith(PREFIX) and _is_folder(entry, trouble):
            yield entry.name[len(PREFIX) :].replace("--", "/", 1), Path(entry.path)


def snapshots_of(repo: str, folder: Path, trouble: Trouble = fail) -> list[Snapshot]:
    """Return a repository's snapshots, main first, then other revisions that have names."""
    refs = read_refs(folder, trouble)
    found = [
        Snapshot(repo, Path(entry.path), entry.name, tuple(refs.get(entry.name, ())))
        for entry in _entries(folder / "snapshots", trouble)
        if entry.is_dir(follow_symlinks=False)
    ]
    return sorted(found, key=lambda s: (s.revision != "main", not s.refs, s.revision))


def read_refs(folder: Path, trouble: Trouble = fail) -> dict[str, list[str]]:
    """Return the branches and tags of a repository by commit."""
    refs: dict[str, list[str]] = {}
    for found in all_files(folder / "refs", trouble):
        if found.status is None or not stat.S_ISREG(found.status.st_mode):
            continue
        try:
            with open(f"{folder}/refs/{found.path}", "rb") as stream:
                commit = stream.read(100).decode("ascii", "replace").strip()
        except OSError as error:
            trouble(error)
            continue
        if COMMIT.fullmatch(commit):
            refs.setdefault(commit, []).append(found.path)
    return {commit: sorted(names) for commit, names in refs.items()}


def walk(
    folder: Path, suffix: str, trouble: Trouble, *, through_links: bool = False
) -> Iterator[FoundFile]:
    """Yield the files below a folder whose names end so, whatever the case.

    Links to files are followed, those to folders only if asked for, and each folder is walked once:
    by its own path if that is below. What is hidden is left out: downloads under way are among it.
    """
    for found in _walk(folder, trouble, through_links, hidden=False):
        if found.path.lower().endswith(suffix):
            yield found


def all_files(folder: Path, trouble: Trouble = fail) -> list[FoundFile]:
    """Return all files below a folder, hidden ones, too; links to folders are not followed."""
    return list(_walk(folder, trouble, False, hidden=True))


def _walk(top: Path, trouble: Trouble, through_links: bool, hidden: bool) -> Iterator[FoundFile]:
    folders, links = [(os.fspath(top), "")], list[tuple[str, str]]()
    # What leads up would bring in all that lies beside the folder.
    above = Path(os.path.realpath(top)).parents if through_links else ()
    seen = {_identity(parent) for parent in above}
    while folders or links:
        folder, prefix = folders.pop() if folders else links.pop(0)
        if through_links:  # else there are no circles
            identity = _identity(folder)
            if identity in seen:
                continue
            seen.add(identity)
        for entry in _entries(folder, trouble):
            if entry.name.startswith(".") and not hidden:
                continue
            try:
                is_link, is_folder = entry.is_symlink(), entry.is_dir()
                status = entry.stat()
            except OSError as error:
                if error.errno not in _NOWHERE:
                    trouble(error)
                    continue
                is_folder, status = False, None
            if is_folder and not is_link:
                folders.append((entry.path, f"{prefix}{entry.name}/"))
            elif is_folder and through_links:
                links.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield FoundFile(prefix + entry.name, status)


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int] | str:
    try:
        status = os.stat(folder)
    except OSError:
        return os.fspath(folder)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str], trouble: Trouble) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        trouble(error)
        return False


def _entries(folder: str | os.PathLike[str], trouble: Trouble) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        trouble(error)
        return []
