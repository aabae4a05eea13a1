"""The Hub's cache on this computer, which programs in every language share.

Owns its documented layout: `models--OWNER--NAME/` with `blobs/`, `snapshots/COMMIT/` and `refs/`,
and the lock that huggingface_hub takes for each blob. Doesn't know how bytes come here. May import
`names`, `libs` and `errors`; huggingface_hub and its filelock only inside functions.
Source: huggingface_hub's documentation, "Understand caching".
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from llamalite.models.names.safety import check_file_name

_TRUE = {"1", "on", "yes", "true"}
_SHORT_S = 0.1  # who only makes a link is done by then

PARTIAL_SUFFIX = ".llamalite.incomplete"
"""How the name of a partial blob ends: huggingface_hub takes it for one, and leaves it alone."""

COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """Return the cache, as huggingface_hub finds it; it need not exist.

    PERF: read from the environment here, since importing huggingface_hub's constants takes 20 ms.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    old = os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    folder = os.environ.get("HF_HUB_CACHE") or old
    return Path(os.path.expandvars(os.path.expanduser(folder)))


def more_room() -> str:
    """Return what to do where the cache's disk is full, as the end of a sentence."""
    from llamalite.libs.transfer import space  # PERF: imports shutil

    return space.more_room(cache_variable())


def cache_variable() -> str:
    """Return the variable of the environment that places the cache."""
    return "HF_HUB_CACHE" if os.environ.get("HF_HUB_CACHE") else "HF_HOME"


def repo_folder(repo: str) -> Path:
    """Return the folder of a repository's files; it need not exist."""
    return cache_folder() / ("models--" + repo.replace("/", "--"))


def cached_commit(repo: str, revision: str | None = None) -> str | None:
    """Return the commit that a branch, a tag or a commit stands for in the cache, or None."""
    revision = revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    try:
        path = repo_folder(repo) / "refs" / check_file_name(revision, repo)
        commit = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def cached_files(repo: str, revision: str | None = None) -> dict[str, Path]:
    """Return the files of a repository that are in the cache, by path in the repository.

    Args:
        repo: "owner/name".
        revision: a branch, a tag or a commit; None = main.
    """
    commit = cached_commit(repo, revision)
    if commit is None:
        return {}
    snapshot = repo_folder(repo) / "snapshots" / commit
    try:
        paths = [path for path in snapshot.rglob("*") if path.is_file()]
    except OSError:
        return {}
    return {path.relative_to(snapshot).as_posix(): path for path in paths}


def snapshot_path(repo: str, commit: str, file: str) -> Path:
    """Return where a file of a commit lies, if it is here."""
    return repo_folder(repo) / "snapshots" / commit / check_file_name(file, repo)


@contextlib.contextmanager
def blob_lock(repo: str, blob: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that every program takes which downloads this blob with huggingface_hub.

    Args:
        repo: "owner/name".
        blob: the blob's name.
        waiting: called now and then while another process has the lock.

    Raises:
        OSError: the cache can't be written.
    """
    path = cache_folder() / ".locks" / repo_folder(repo).name / f"{blob}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path, waiting):
        yield


@contextlib.contextmanager
def file_lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock in the way that huggingface_hub does; `blob_lock` says the rest."""
    from filelock import FileLock, SoftFileLock, Timeout

    from llamalite.libs.transfer.patience import BEAT_S  # PERF: imports http.client

    # Others who share the cache must be able to wait, too.
    lock = FileLock(path, mode=0o664)
    limit_s = _SHORT_S
    while True:
        try:
            lock.acquire(timeout=limit_s)
            break
        except Timeout:
            limit_s = BEAT_S
            waiting()
        except NotImplementedError:  # a file system without locks
            lock = SoftFileLock(path)
    try:
        yield
    finally:
        lock.release()


def place_blob(blob: Path, path: Path, content: Path | None) -> None:
    """Make a file of a snapshot out of a blob, at once or not at all.

    Where links can't be made, the content itself lies in the snapshot and there is no blob, as
    huggingface_hub has it.

    Args:
        blob: where the content lies, or will.
        path: in a snapshot.
        content: the verified content if it has just come; it is moved.

    Raises:
        OSError: the cache can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(path)
    try:
        if link := _link(blob, new):
            if content is not None:
                os.replace(content, blob)
        elif content is None:
            import shutil  # PERF: takes long to import, and is seldom needed

            shutil.copyfile(blob, new)
        os.replace(new if link or content is None else content, path)
    finally:
        new.unlink(missing_ok=True)


def remember_revision(repo: str, revision: str, commit: str) -> None:
    """Write down what commit a branch or tag stands for.

    Raises:
        OSError: the cache can't be written.
    """
    if revision == commit or cached_commit(repo, revision) == commit:
        return
    path = repo_folder(repo) / "refs" / check_file_name(revision, repo)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(path)
    new.write_text(commit, encoding="utf-8")
    os.replace(new, path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{os.urandom(8).hex()}.tmp")


def _link(blob: Path, new: Path) -> bool:
    """Make a link to a blob; False where that is not possible or not wanted."""
    if os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").strip().lower() in _TRUE:
        return False
    try:
        os.symlink(os.path.relpath(blob, new.parent), new)
    except (OSError, NotImplementedError):  # Windows grants it to few
        return False
    return True
