"""What downloads, removals and killed programs left behind: finding it, and removing it.

Owns what counts as left behind, in `models_dir`, in the Hub's cache and among the records. What a
program is still working on is left alone, and so is what lies behind links that lead out. May
import `bounds`, `hub`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llamalite import config
from llamalite.errors import ModelError
from llamalite.libs.transfer.progress import Say, say_nothing
from llamalite.models.hub.cache import (
    PARTIAL_SUFFIX,
    blob_lock,
    cache_folder,
    file_lock,
    repo_folder,
)
from llamalite.models.names.safety import FETCHING, PARTIAL_FOLDER
from llamalite.models.store import bounds
from llamalite.models.store.atomic import UNFINISHED, locked
from llamalite.models.store.importing import STAGING
from llamalite.models.store.in_use import is_held
from llamalite.models.store.named import names_folder
from llamalite.models.store.records import (
    all_records,
    forget_record,
    is_damaged,
    read_record,
    records_folder,
)
from llamalite.models.store.snapshots import all_files, repo_folders, telling, walk
from llamalite.models.store.unlinking import drop, remove_if_empty

PARTIAL = "partial download"
DANGLING = "link to nothing"
RECORD = "record of a file that is gone"
BLOB = "content that no revision refers to"
UNDONE = "unfinished import"
UNWRITTEN = "unfinished record"
DAMAGED = "damaged record"

_PARTIAL_SUFFIXES = (PARTIAL_SUFFIX, ".incomplete")
_ABANDONED_AFTER_S = 24 * 3600.0
_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Leftover:
    """Something that can go.

    Attributes:
        what: one of the words above.
        n_bytes: room that makes.
        repo: the repository in the Hub's cache, or None.
    """

    path: Path
    what: str
    n_bytes: int = 0
    repo: str | None = None


class _Busy(Exception):
    """Another program is working on it."""


def find_leftovers(say: Say | None = None) -> list[Leftover]:
    """Return what can go, the largest first; what a program is working on is left out.

    Args:
        say: takes a line about each folder that can't be read or leads out of where anything may be
            removed, and in which nothing was looked for.
    """
    say = say or say_nothing
    folder, cache = config.models_dir(), cache_folder()
    found = [*_in_cache(cache, say), *_in_models_dir(folder, say), *_in_home(say)]
    once = {bounds.place_of(left.path): left for left in reversed(found)}  # one may hold the other
    return sorted(once.values(), key=lambda left: (-left.n_bytes, left.path))


def remove_leftovers(leftovers: Iterable[Leftover], say: Say) -> list[Leftover]:
    """Remove them, each if it is still left behind; return those that went.

    Args:
        leftovers: as `find_leftovers` returns them.
        say: takes a line about each that a program has come back to, or that can't be removed.
    """
    gone = []
    for left in leftovers:
        try:
            with _alone(left):
                _remove(left)
        except _Busy:
            say(f"{left.path} is in use by now, and stays")
        except ModelError as error:
            say(str(error))
        except OSError as error:
            say(f"{left.path} can't be removed ({error.strerror or error}), and stays")
        else:
            gone.append(left)
    for repo in {left.repo for left in gone if left.repo is not None}:
        with contextlib.suppress(OSError):
            remove_if_empty(repo_folder(repo))
    return gone


def _in_models_dir(folder: Path, say: Say) -> Iterator[Leftover]:
    partial = folder / PARTIAL_FOLDER
    for path in _children(partial) if bounds.is_own(partial, say) else []:
        left = Leftover(path, PARTIAL, _size(path))
        if path.suffix == ".part" and _is_free(left):
            yield left
    for path in _children(folder):
        if _is_abandoned(path):
            yield Leftover(path, UNDONE, sum(_size(child) for child in path.rglob("*")))
    for found in walk(folder, ".gguf", telling(say)):
        if found.status is None:
            yield Leftover(folder / found.path, DANGLING)


def _in_cache(cache: Path, say: Say) -> Iterator[Leftover]:
    linked = _linked()
    for repo, folder in repo_folders(cache, telling(say)):
        snapshots = folder / "snapshots"
        parts = (folder, snapshots, folder / "blobs", cache / ".locks" / folder.name)
        if not all(bounds.is_own(part, say) for part in parts):
            continue
        try:
            files = all_files(snapshots)
        except OSError as error:  # what is used there isn't known
            telling(say)(error)
            continue
        used = {_blob_name(snapshots / file.path) for file in files}
        has_models = any(file.path.lower().endswith(".gguf") for file in files)
        for path in _children(folder / "blobs"):
            is_partial = path.name.endswith(_PARTIAL_SUFFIXES)
            if (is_partial or path.name not in used) and (has_models or _is_gguf(path)):
                left = Leftover(path, PARTIAL if is_partial else BLOB, _size(path), repo)
                if bounds.place_of(path) not in linked and _is_free(left):
                    yield left
        for file in files:
            if file.status is None and has_models:
                yield Leftover(snapshots / file.path, DANGLING, 0, repo)


def _linked() -> set[Path]:
    """Return all that links in `models_dir` lead by."""
    folder = config.models_dir()
    found = walk(folder, ".gguf", lambda error: None, through_links=True)
    return {place for file in found for place in bounds.way_of(folder / file.path)}


def _in_home(say: Say) -> Iterator[Leftover]:
    for record in all_records().values():
        if not os.path.lexists(record.path) and read_record(record.path):
            yield Leftover(Path(record.path), RECORD)
    for folder in (records_folder(), names_folder()):
        for path in _children(folder) if bounds.is_own(folder, say, config.home()) else []:
            if path.name.endswith(UNFINISHED):
                yield Leftover(path, UNWRITTEN, _size(path))
            elif is_damaged(path):
                yield Leftover(path, DAMAGED, _size(path))


def _is_free(left: Leftover) -> bool:
    with contextlib.suppress(_Busy, OSError, ModelError), _alone(left):
        return True
    return False


@contextlib.contextmanager
def _alone(left: Leftover) -> Iterator[None]:
    """Keep programs that download away from something, which is left behind if they are.

    Raises:
        _Busy: one is working on it.
        OSError: the lock can't be taken.
    """
    if left.repo is not None and left.what in (PARTIAL, BLOB):
        with blob_lock(left.repo, left.path.name.partition(".")[0], _be_busy):
            yield
    elif left.what in (UNWRITTEN, DAMAGED):
        with locked(left.path.parent):
            yield
    elif left.what == PARTIAL:
        lock = left.path.with_suffix(".lock")
        bounds.check_inside(lock)
        with file_lock(lock, _be_busy):
            yield
    else:
        yield


def _remove(left: Leftover) -> None:
    """Remove something whose lock is held.

    Raises:
        _Busy: it isn't left behind any more.
        OSError: it can't be removed.
    """
    path = left.path
    if left.what == RECORD:
        if os.path.lexists(path):
            raise _Busy
        forget_record(path)
    elif left.what == DANGLING:
        if path.exists() or not path.is_symlink():
            raise _Busy
        bounds.unlink(path)
    elif left.what == BLOB:
        snapshots = path.parent.parent / "snapshots"
        if any(_blob_name(snapshots / file.path) == path.name for file in all_files(snapshots)):
            raise _Busy
        drop(path)
    elif left.what == UNDONE:
        bounds.rmtree(path)
    elif left.what in (UNWRITTEN, DAMAGED):
        if left.what == DAMAGED and not is_damaged(path):
            raise _Busy
        bounds.unlink(path, config.home())
    else:
        bounds.unlink(path)
        if left.repo is None:
            bounds.unlink(path.with_suffix(".json"))  # which version it is a part of


def _be_busy() -> None:
    raise _Busy


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _is_abandoned(path: Path) -> bool:
    """Say whether this is the folder of an import or a fetch that can't go on any more."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if path.name.startswith(STAGING):
        return not is_held(path)
    age_s = time.time() - status.st_mtime
    return path.name.startswith(FETCHING) and age_s > _ABANDONED_AFTER_S


def _blob_name(link: Path) -> str | None:
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def _is_gguf(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            return False
        with open(path, "rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
