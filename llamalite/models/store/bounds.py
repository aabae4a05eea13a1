"""The folders that anything may be removed from: `models_dir` and the Hub's cache, and no other.

Owns the one check that comes before whatever is removed or locked there, and the removing itself:
nothing else in `store` takes a model, a blob or a folder away. Links on the way to a file count as
what they lead to. May import `hub`, `config` and `errors`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from llamalite import config
from llamalite.errors import ModelError
from llamalite.models.hub.cache import cache_folder

_MOST_LINKS = 40  # systems follow no more


def place_of(path: str | os.PathLike[str]) -> Path:
    """Return where a path lies: links on the way followed, but not one that it is itself."""
    folder, name = os.path.split(os.fspath(path))
    if name in ("", ".", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(folder), name)


def way_of(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the places that a path leads by: its own, then each link's target, then the file's."""
    for _ in range(_MOST_LINKS):
        place = place_of(path)
        yield place
        if not place.is_symlink():
            return
        path = place.parent / os.readlink(place)


def is_inside(path: str | os.PathLike[str], *roots: Path) -> bool:
    """Say whether a path really lies below one of the roots: `models_dir` and the Hub's cache."""
    above = place_of(path).parents
    return any(Path(os.path.realpath(root)) in above for root in roots or _roots())


def check_inside(path: str | os.PathLike[str], *roots: Path) -> None:
    """Refuse to touch what only seems to lie below one of the roots; `is_inside` says which.

    Raises:
        ModelError: it lies elsewhere.
    """
    if not is_inside(path, *roots):
        raise ModelError(
            f"{path} really lies in {place_of(path).parent}, outside {_named(roots)}, and is left "
            f"alone: remove it yourself"
        )


def is_own(folder: Path, say: Callable[[str], None], *roots: Path) -> bool:
    """Say whether what lies in a folder may be removed, also to the user where a link leads out."""
    if is_inside(folder / "any", *roots):
        return True
    where = os.path.realpath(folder)
    say(f"{folder} leads to {where}, outside {_named(roots)}: what is there is left alone")
    return False


def unlink(path: Path, *roots: Path) -> None:
    """Remove a file, or a link and not what it leads to; nothing happens if there is none.

    Raises:
        ModelError: it lies outside.
        OSError: it can't be removed.
    """
    check_inside(path, *roots)
    path.unlink(missing_ok=True)


def rmdir(folder: Path) -> None:
    """Remove an empty folder; errors as of `unlink`."""
    check_inside(folder)
    folder.rmdir()


def rmtree(folder: Path) -> None:
    """Remove a folder, which must be no link, with all in it; of links in it only these."""
    check_inside(folder)
    shutil.rmtree(folder)


def _roots() -> tuple[Path, Path]:
    return config.models_dir(), cache_folder()


def _named(roots: tuple[Path, ...]) -> str:
    return " and ".join(map(str, roots or _roots()))
