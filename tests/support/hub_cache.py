"""A Hub cache as huggingface_hub leaves it on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def add_snapshot(
    cache: Path,
    repo: str,
    files: Mapping[str, bytes],
    *,
    refs: Iterable[str] = ("main",),
    links: bool = True,
    commit: str | None = None,
) -> Path:
    """Put a revision of a repository into the cache, and return its folder.

    Args:
        cache: made on demand.
        repo: "owner/name".
        files: contents by path in the repository.
        refs: branches and tags that stand for it from now on.
        links: False = as on systems without symbolic links, where there are no blobs.
        commit: the revision's full name; None = one made from the files.
    """
    folder = cache / ("models--" + repo.replace("/", "--"))
    commit = commit or hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
    snapshot = folder / "snapshots" / commit
    for name, content in files.items():
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not links:
            path.write_bytes(content)
            continue
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(blob, path.parent))
    for ref in refs:
        path = folder / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return snapshot
