"""The store in which newer huggingface_hub keeps one copy of what several repositories share.

Owns when a blob is a link into it. What is in the store goes by huggingface_hub's own hand, which
counts the references. May import `hub`; huggingface_hub only inside functions.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from llamalite.models.hub.cache import cache_folder


def shared_entry(blob: Path) -> Path | None:
    """Return what a repository's blob leads to in the shared store, or None if it is a file."""
    if not blob.is_symlink():
        return None
    target = Path(os.path.normpath(blob.parent / os.readlink(blob)))
    store = Path(os.path.normpath(cache_folder() / "blobs"))
    return target if target.parent.parent == store else None


def freed_by_sweeping(entry: Path, blob: Path) -> int:
    """Return the bytes that `sweep` frees once this blob is gone."""
    rules = _rules()
    if rules is None:
        return 0
    folder = Path(os.path.abspath(cache_folder()))
    going = {Path(os.path.abspath(blob))}
    found = rules.expected_shared_blob_freed_size(
        entry, blob_paths_to_delete=going, cache_dir=folder
    )
    return int(found)


def sweep(entry: Path) -> None:
    """Remove what no repository refers to any more; another huggingface_hub may do so later."""
    if rules := _rules():
        rules.sweep_shared_blob(entry, cache_dir=cache_folder())


def _rules() -> Any:
    # NOTE: a private module, which versions before the shared store lack; they don't fill it.
    try:
        return importlib.import_module("huggingface_hub.utils._shared_blobs")
    except ImportError:
        return None
