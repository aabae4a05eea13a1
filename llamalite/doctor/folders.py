"""The folders llamalite works in: whether they can be used, and the models in them.

Makes nothing in them that stays. Imports `config`, `errors` and `report`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from llamalite import config
from llamalite.doctor.report import HomeFacts, ModelFacts, Problem
from llamalite.errors import LlamaliteError

_MOST_MODELS = 200


def folder_problem() -> Problem | None:
    """Say why a setting names no folder at all, or that the configuration is faulty, or None."""
    for name, named, advice in (
        ("LLAMALITE_HOME", config.home, "set LLAMALITE_HOME to a folder"),
        ("LLAMALITE_LIB", config.library_override, "set LLAMALITE_LIB to a folder"),
        ("models_dir", config.models_dir, "correct it, or see 'llamalite config --help'"),
    ):
        try:
            folder = named()
            if folder is not None:
                folder.absolute()
        except LlamaliteError as error:
            return Problem.of(str(error), advice, is_fatal=True)
        except FileNotFoundError:
            return Problem(
                f"the current folder is gone, and {name} is relative to it",
                f"go to a folder that is there, or give {name} as a whole path",
                is_fatal=True,
            )
    return None


def home_facts() -> HomeFacts:
    """Look at `LLAMALITE_HOME`, or at the nearest folder above it that exists."""
    folder = config.home().absolute()
    libs = folder / "libs"
    there = [path for path in (libs, folder, *folder.parents) if os.path.lexists(path)]
    looked_at = there[:2] if there[0] == libs else there[:1]
    unwritable = [line for path in looked_at if (line := _why_unwritable(path))]
    unreadable = [line for path in there[:1] if path == libs and (line := _why_unreadable(path))]
    return HomeFacts(
        folder=str(folder),
        is_writable=not unwritable,
        free_bytes=_free_bytes(there),
        why_not=next(iter(unreadable + unwritable), None),
    )


def _why_unwritable(folder: Path) -> str | None:
    if not os.path.isdir(folder):
        return f"{folder} is no folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} can't be written to ({error.strerror})"


def _why_unreadable(folder: Path) -> str | None:
    try:
        os.listdir(folder)
    except NotADirectoryError:
        return None
    except OSError as error:
        return f"{folder} can't be read ({error.strerror})"
    return None


def _free_bytes(folders: list[Path]) -> int | None:
    for folder in folders:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def model_facts() -> tuple[tuple[ModelFacts, ...], tuple[str, ...]]:
    """List the models in `LLAMALITE_HOME` and the Hub's cache, and what can't be read there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    unreadable: dict[str, str] = {}

    def skip(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            unreadable[str(error.filename)] = f"{error.filename} ({error.strerror})"

    def models() -> Iterator[ModelFacts]:
        for folder in (config.models_dir(), *_snapshots(Path(HF_HUB_CACHE), skip)):
            yield from _models(folder, skip)

    found = tuple(islice(models(), _MOST_MODELS))
    return found, tuple(unreadable.values())


def _snapshots(cache: Path, skip: Callable[[OSError], None]) -> list[Path]:
    try:
        names = sorted(name for name in os.listdir(cache) if name.startswith("models--"))
    except OSError as error:
        skip(error)
        return []
    return [cache / name / "snapshots" for name in names]


def _models(folder: Path, skip: Callable[[OSError], None]) -> Iterator[ModelFacts]:
    for base, folders, names in os.walk(folder, onerror=skip):
        folders.sort()
        for name in sorted(name for name in names if name.endswith(".gguf")):
            path = os.path.join(base, name)
            try:
                status = os.stat(path)
            except OSError as error:
                error.filename = base  # a folder may be listed and not entered
                skip(error)
                continue
            if stat.S_ISREG(status.st_mode):
                yield ModelFacts(path, status.st_size)
