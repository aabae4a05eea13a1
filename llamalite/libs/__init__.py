"""Where libllama comes from: find, inspect, fetch, verify, unpack.

Rooms: `platforms` (systems and file names), `files` (what library files say, and whether they can
be loaded here), `transfer` (download, verify, unpack), `sources` (where builds are), and `find`,
`lock`, `staging`, `accept` and `install` (which install is used, how one gets here).

Nothing here loads a library: that is `llamalite.ffi`. May import `llamalite.config` and
`llamalite.errors`. The names below are imported on first use, and everything up to `find`
needs the standard library alone. `install.install` keeps its longer name: the module has it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamalite.libs.files.inspect import LibraryFiles, check_loadable, scan_folder
    from llamalite.libs.find import (
        Installed,
        find_library,
        libs_folder,
        list_installed,
        remove_install,
        unuse,
        use_install,
    )
    from llamalite.libs.install import ensure_library, fetch_npm
    from llamalite.libs.platforms import Platform, current_platform

__all__ = [
    "Installed",
    "LibraryFiles",
    "Platform",
    "check_loadable",
    "current_platform",
    "ensure_library",
    "fetch_npm",
    "find_library",
    "libs_folder",
    "list_installed",
    "remove_install",
    "scan_folder",
    "unuse",
    "use_install",
]

_HOMES = {
    "Installed": "find",
    "LibraryFiles": "files.inspect",
    "Platform": "platforms",
    "check_loadable": "files.inspect",
    "current_platform": "platforms",
    "ensure_library": "install",
    "fetch_npm": "install",
    "find_library": "find",
    "libs_folder": "find",
    "list_installed": "find",
    "remove_install": "find",
    "scan_folder": "files.inspect",
    "unuse": "find",
    "use_install": "find",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
