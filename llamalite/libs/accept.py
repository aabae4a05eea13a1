"""Whether what came is what was asked for: the system, the backend, and that it loads here.

Owns those checks of a finished folder. Doesn't know where it came from or where it goes. Imports
the standard library, `llamalite.errors` and the modules beside it.
"""

from __future__ import annotations

from dataclasses import replace

from llamalite.errors import DownloadError, LibraryIncompatible
from llamalite.libs.files.binaries import recognise
from llamalite.libs.files.folder import LibraryFiles
from llamalite.libs.files.inspect import check_loadable
from llamalite.libs.files.machine import this_machine
from llamalite.libs.platforms import Platform, current_platform, parse_library_name
from llamalite.libs.sources.assets import family
from llamalite.libs.sources.plan import Fetch

# Backends whose library isn't called by their name, and those that have none of their own.
_MODULES = {"rocm": "hip"}
_NO_MODULE = ("kleidiai",)
# What a backend's driver brings; without it no build of that backend loads.
_DRIVERS = {"cuda": "libcuda.so.1", "vulkan": "libvulkan.so.1"}


def accept(
    files: LibraryFiles, platform: Platform, way: Fetch, *, strict: bool
) -> tuple[str, list[str]]:
    """Check as much as can be told here.

    Args:
        files: what came.
        platform: which it was asked for.
        way: how it came.
        strict: refuse a backend that can't be loaded on this machine.

    Returns:
        The build's backend, and a line for each optional library that can't be loaded here.

    Raises:
        DownloadError: it is for another system, or has another backend.
        LibraryIncompatible: it can't be loaded here.
    """
    here = platform == current_platform()
    notes = check_loadable(files) if here else _check_kind(files, platform)
    own = backends_of(files)
    backend = way.backend or (own[0] if own else "cpu")
    name = family(backend)
    if name not in ("cpu", *own, *_NO_MODULE):
        raise DownloadError(
            f"what came from {way.origin} has no {name} library in it: choose another source"
        )
    if here and strict and name in own:
        _check_backend(files, name)
    return backend, notes


def backends_of(files: LibraryFiles) -> list[str]:
    """Return the backends a build's own libraries bring, without `cpu`."""
    names = {module: name for name, module in _MODULES.items()}
    stems = [named.stem for path in files.backends if (named := parse_library_name(path.name))]
    found = [stem.removeprefix("ggml-").partition("-")[0] for stem in stems]
    aside = ("cpu", "rpc", "blas")
    return [names.get(name, name) for name in dict.fromkeys(found) if name not in aside]


def _check_kind(files: LibraryFiles, platform: Platform) -> list[str]:
    for path in (*files.core, *files.backends):
        kind = recognise(path)
        if kind.os != platform.os or platform.arch not in kind.arches:
            raise DownloadError(f"{path.name} is for {kind} and {platform} was asked for")
    return []


def _check_backend(files: LibraryFiles, name: str) -> None:
    module = f"ggml-{_MODULES.get(name, name)}"
    paths = tuple(
        path for path in files.backends if path.name.removeprefix("lib").startswith(module)
    )
    problems = check_loadable(replace(files, backends=paths, mtmd=None))
    if problems:
        raise LibraryIncompatible(problems[0])


def check_driver(backend: str) -> None:
    """Look for what a backend's driver brings, before anything is fetched in vain.

    Raises:
        LibraryIncompatible: this machine lacks it.
    """
    machine = this_machine()
    name = _DRIVERS.get(family(backend))
    if name and machine.platform.os == "linux" and machine.find(name) is None:
        raise LibraryIncompatible(
            f"a {backend} build can't be loaded here: this machine has no {name}, which the driver "
            f"brings: install it, or choose --backend cpu"
        )
