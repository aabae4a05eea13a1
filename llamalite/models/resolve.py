"""From what the user calls a model to the path of its GGUF file.

Owns which forms of names there are and what is said when none fits. Doesn't know where files come
from. May import `config` and `errors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llamalite.errors import DownloadError, ModelNotFound
from llamalite.models.names.catalog import find_entry, known_names, nearest_names
from llamalite.models.names.reference import HubReference, parse_reference, shard_names

FORMS = "a path to a GGUF file, a short name, owner/repo:QUANT or owner/repo/FILE.gguf"

Say = Callable[[str], None]


def resolve_model(name: str | os.PathLike[str], say: Say | None = None) -> Path:
    """Return the path of a model's GGUF file, fetching the file if it isn't on this computer.

    Args:
        name: a path, a short name of the catalog, or a file on the Hub (`[hf:]owner/repo:QUANT`,
            `[hf:]owner/repo/path/file.gguf`). A path object is only ever a path.
        say: takes one line at a time of what is being done; None = only a download's progress bar
            shows, on stderr where that is a terminal.

    Returns:
        The file; of a model split into parts, the first.

    Raises:
        ModelNotFound: nothing answers to the name.
        AmbiguousFile: several files of the repository match.
        Offline: it would have to be fetched and network use is switched off.
        DownloadError: it can't be fetched.
        ChecksumMismatch: what was fetched is not the model.
    """
    say = say or _quiet
    text = os.fspath(name)
    path = Path(os.path.expanduser(text))
    if _is_file(path):
        return _first_part(path, say)
    if isinstance(name, str):
        if entry := find_entry(text):
            # PERF: a path needs neither this nor what it imports.
            from llamalite.models.fetch import fetch_entry, find_local

            return find_local(entry) or fetch_entry(entry, say)
        reference = parse_reference(text)
        if reference and (reference.explicit or not path.parts or not _exists(path.parts[0])):
            return _from_hub(reference, say)
    raise _not_found(text, path, is_name=isinstance(name, str))


def _quiet(line: str) -> None:
    """Say nothing."""


def _from_hub(reference: HubReference, say: Say) -> Path:
    if reference.quant is None and reference.file is None:
        here = "" if reference.explicit else f"'{reference}' is no file here; "
        raise ModelNotFound(
            f"{here}the repository {reference.repo} holds several files: write "
            f"{reference.repo}:Q4_K_M (or another quantization) or {reference.repo}/FILE.gguf"
        )
    from llamalite.models.fetch import fetch_reference

    try:
        return fetch_reference(reference, say)
    except DownloadError as err:
        if reference.explicit or reference.file is None:
            raise
        # What was meant as a path deserves to hear that there is no such file.
        raise type(err)(f"'{reference}' is no file here, and {err}") from err


def _first_part(path: Path, say: Say) -> Path:
    """Return the first part of a split model, given any of them; any other path as it is."""
    parts = [path.with_name(name) for name in shard_names(path.name)]
    missing = [part.name for part in parts if not _is_file(part)]
    if missing:
        raise ModelNotFound(
            f"{path} is one of the {len(parts)} files of a split model, and {missing[0]} is not "
            f"beside it ({len(missing)} missing in all)"
        )
    if parts[0].name != path.name:
        say(f"{path.name} is part of a split model: taking its first file, {parts[0].name}")
    return parts[0]


def _not_found(text: str, path: Path, *, is_name: bool) -> ModelNotFound:
    """Make the error for a name that is neither a file nor known."""
    shown = repr(text if len(text) <= 200 else text[:200] + "…")
    if not text.strip():
        return ModelNotFound(f"the model's name is empty: give {FORMS}")
    if _exists(path):
        return ModelNotFound(f"{shown} {_what_else(path)}")
    separators = {os.sep, os.altsep or os.sep, "/"}
    if not is_name or text.lower().endswith(".gguf") or any(sep in text for sep in separators):
        parent = path.parent
        where = "" if _exists(parent) else f" (nor a folder {str(parent)[:200]!r})"
        return ModelNotFound(f"there is no file {shown}{where}: check the path")
    near = nearest_names(text)
    hint = f"did you mean {' or '.join(near)}? Known" if near else "known"
    return ModelNotFound(
        f"no model is called {shown}: {hint} short names: {', '.join(known_names())}; "
        f"a model can be {FORMS}"
    )


def _what_else(path: Path) -> str:
    if not path.is_dir():
        return "is no regular file: give the path of a GGUF file"
    try:
        models = sorted(child.name for child in path.iterdir() if child.suffix.lower() == ".gguf")
    except OSError as err:
        return f"is a folder that can't be read ({err.strerror}): give the path of a GGUF file"
    if not models:
        return "is a folder without GGUF files: give the path of a GGUF file"
    there = ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
    return f"is a folder: give the path of a file in it ({there})"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a path, unreadable folder, NUL character
        return False


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
