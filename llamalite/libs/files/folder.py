"""Which files in a folder are libllama: the choice among names of all eras.

Opens no library and reads none, but for recognising one that stands alone. Imports the standard
library, `llamalite.errors` and the modules beside it.

Source: names of b5640 to b11739 as upstream and npm publish them.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamalite.errors import LibraryIncompatible, LibraryNotFound
from llamalite.libs.files.binaries import recognise
from llamalite.libs.files.bounded import open_regular
from llamalite.libs.files.remedies import TOGETHER
from llamalite.libs.platforms import LibraryName, local_suffix, parse_library_name

RECORD_NAME = "install.json"
"""Record of an installed folder; written last, so that it marks a complete install."""

_NPM_RECORD = "_nlcBuildMetadata.json"
_INNER_FOLDERS = ("build/bin", "bin", "lib", "lib64")
_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
_MAX_SUBFOLDERS = 200
_MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class LibraryFiles:
    """One build of libllama in one folder.

    Attributes:
        folder: where all the files are.
        mtmd: the multimodal library, where the build has it.
        backends: backend libraries (`ggml-cpu-*`, `ggml-vulkan`, …), by name.
        release: upstream's tag (`b11146`, `v0.5.0`), or None if nothing says it.
    """

    folder: Path
    llama: Path
    ggml: Path
    ggml_base: Path
    mtmd: Path | None
    backends: tuple[Path, ...]
    release: str | None

    @property
    def core(self) -> tuple[Path, ...]:
        """The libraries every use needs, in load order."""
        return (self.ggml_base, self.ggml, self.llama)


def scan_folder(folder: Path) -> LibraryFiles:
    """Find libllama in a folder, or in `bin`, `lib`, `build/bin` or one folder below it.

    Args:
        folder: a folder; a path to the libllama file itself stands for the folder it is in.

    Raises:
        LibraryNotFound: there is no libllama.
        LibraryIncompatible: a sibling is missing, or several builds lie side by side.
    """
    try:
        return _scan(folder)
    except OSError as error:
        raise LibraryNotFound(
            f"{error.filename or folder} can't be read: {error.strerror or error}"
        ) from None


def _scan(folder: Path) -> LibraryFiles:
    if folder.is_file():
        named = parse_library_name(folder.name)
        if named is None or named.stem != "llama":
            raise LibraryNotFound(
                f"{folder} is neither a folder nor a libllama file: give the folder that has "
                f"libllama in it"
            )
        return _choose(folder.parent, asked=folder)
    if not folder.is_dir():
        problem = _why_no_file(folder) or f"there is no folder {folder}"
        raise LibraryNotFound(f"{problem}: give a folder that has libllama in it")
    places = list(_places(folder))
    for place in places:
        if any(name.stem == "llama" for _, name in _library_names(place)):
            return _choose(place)
    for place in places:
        if broken := _broken(place, {"llama"}):
            raise LibraryNotFound(
                f"{broken}: give a folder that has libllama in it, or run `llamalite lib install`"
            )
    raise LibraryNotFound(
        f"{folder} has no libllama in it, nor in bin, lib or build/bin, nor one folder down: give "
        f"the folder that has it, or run `llamalite lib install`"
    )


def _places(folder: Path) -> Iterator[Path]:
    """Folders to look in, nearest first."""
    yield folder
    yield from (folder / inner for inner in _INNER_FOLDERS)
    below = sorted(path for path in folder.iterdir() if path.is_dir())[:_MAX_SUBFOLDERS]
    for top in below:
        yield top
        yield from (top / inner for inner in _INNER_FOLDERS)
    packaged = folder / "bins"  # npm packages: bins/PLATFORM
    if packaged.is_dir():
        yield from sorted(path for path in packaged.iterdir() if path.is_dir())


def _entries(folder: Path) -> list[Path]:
    """Return what a folder has in it, in order; [] if it is none or closed to us."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except PermissionError:
        return []  # the top folder's own listing raises; one closed subfolder spoils nothing


def _library_names(folder: Path) -> list[tuple[Path, LibraryName]]:
    named = ((path, parse_library_name(path.name)) for path in _entries(folder))
    return [(path, name) for path, name in named if name is not None and path.is_file()]


def _broken(folder: Path, stems: set[str]) -> str | None:
    """Say why a file that has the name of one of these libraries is none, or None."""
    for path in _entries(folder):
        named = parse_library_name(path.name)
        if named is not None and named.stem in stems and not path.is_file():
            return _why_no_file(path)
    return None


def _why_no_file(path: Path) -> str | None:
    """Say what stands in the place of a file; None if nothing does."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(kind):
        return f"{path} is a folder, and no library lies in it"
    if stat.S_ISLNK(kind):
        try:
            target = path.resolve(strict=True)
        except FileNotFoundError:
            return f"{path} is a link to {os.readlink(path)}, which isn't there"
        except (OSError, RuntimeError):  # Python 3.10 to 3.12 raise RuntimeError
            return f"{path} is a link that leads round in a circle"
        return f"{path} is a link to {target}, which is no regular file"
    return f"{path} is no regular file but a {_KINDS.get(stat.S_IFMT(kind), 'device')}"


def _choose(folder: Path, asked: Path | None = None) -> LibraryFiles:
    names = _library_names(folder)
    by_stem: dict[str, list[tuple[Path, LibraryName]]] = {}
    for path, named in names:
        by_stem.setdefault(named.stem, []).append((path, named))
    llama, tag = _pick_llama(folder, by_stem["llama"], asked)
    siblings = {
        stem: _best(by_stem.get(stem, []), llama, tag) for stem in ("ggml", "ggml-base", "mtmd")
    }
    ggml, ggml_base = siblings["ggml"], siblings["ggml-base"]
    if ggml is None or ggml_base is None:
        recognise(llama)  # a file that is no library at all is the better thing to report
        absent = [stem for stem in ("ggml", "ggml-base") if siblings[stem] is None]
        broken = _broken(folder, set(absent))
        raise LibraryIncompatible(
            f"{llama} misses its sibling lib{' and '.join(absent)} in the same folder"
            f"{f' ({broken})' if broken else ''}: {TOGETHER}"
        )
    backends = [
        best
        for stem in sorted(by_stem)
        if stem.startswith("ggml-") and stem != "ggml-base"
        for best in [_best(by_stem[stem], llama, tag)]
        if best is not None
    ]
    release = _recorded_release(folder) or tag
    return LibraryFiles(folder, llama, ggml, ggml_base, siblings["mtmd"], tuple(backends), release)


def _pick_llama(
    folder: Path, candidates: list[tuple[Path, LibraryName]], asked: Path | None
) -> tuple[Path, str | None]:
    if asked is not None:
        named = next(named for path, named in candidates if path.name == asked.name)
        return asked, named.tag
    tags = sorted({named.tag or "" for _, named in candidates})
    if len(tags) > 1:
        held = ", ".join(sorted(path.name for path, _ in candidates))
        raise LibraryIncompatible(
            f"{folder} holds several builds of libllama ({held}): point LLAMALITE_LIB at one file"
        )
    path, named = min(candidates, key=lambda item: _preference(item[1]))
    return path, named.tag


def _best(candidates: list[tuple[Path, LibraryName]], llama: Path, tag: str | None) -> Path | None:
    """Choose the file that goes with this libllama: its tag or no tag, its platform's suffix."""
    fitting = [(path, named) for path, named in candidates if named.tag in (tag, None)]
    if not fitting:
        return None
    suffix = "." + llama.name.rpartition(".")[2]
    return min(
        fitting,
        key=lambda item: (item[1].tag != tag, suffix not in item[0].name, *_preference(item[1])),
    )[0]


def _preference(named: LibraryName) -> tuple[bool, int, str]:
    # The name with one number (libllama.so.0) is the one the others ask for, where there is one;
    # the plain name comes next, and the full version last.
    order = {0: 1, 1: 0}.get(len(named.version.split(".")) if named.version else 0, 2)
    return named.suffix != local_suffix(), order, named.version


def _recorded_release(folder: Path) -> str | None:
    record = read_json(folder / RECORD_NAME)
    if isinstance(record.get("release"), str):
        return str(record["release"])
    build: object = read_json(folder / _NPM_RECORD)
    for key in ("buildOptions", "llamaCpp", "release"):
        build = build.get(key) if isinstance(build, dict) else None
    return build if isinstance(build, str) else None


def read_json(path: Path) -> dict[str, object]:
    """Read a small JSON object; {} if it is absent, too large or malformed."""
    try:
        with open_regular(path) as stream:
            text = stream.read(_MAX_RECORD_BYTES + 1)
        value = json.loads(text) if len(text) <= _MAX_RECORD_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
