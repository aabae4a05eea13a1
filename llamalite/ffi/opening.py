"""Opens shared libraries so that the system's loader finds what lies beside them.

Owns what differs between systems here. Doesn't know what the libraries are. Imports the standard
library, `llamalite.errors` and `llamalite.libs`.

Source: Python's documentation of ctypes.CDLL (winmode) and os.add_dll_directory; Microsoft's of
LoadLibraryExW and SetErrorMode.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llamalite.errors import LibraryIncompatible

_searched: dict[str, Any] = {}
"""Folders Windows searches for DLLs, each for as long as its entry here lives."""


def open_shared(path: Path) -> ctypes.CDLL:
    """Open a library by its full path.

    Raises:
        LibraryIncompatible: the loader refuses it; says why and what can be done.
    """
    place = path.absolute()
    try:
        if sys.platform == "win32":
            _search(str(place.parent))
        # ABI: ctypes' own mode, with a full path, has Windows search the DLL's folder for what it
        # imports; winmode=0 would not.
        return ctypes.CDLL(str(place))
    except OSError as error:
        from llamalite.libs.files.remedies import refusal_remedy

        reason = " ".join(str(error).split())
        raise LibraryIncompatible(
            f"{path} can't be loaded here: {reason}: {refusal_remedy(reason, place.parent)}"
        ) from None


def open_ahead(paths: Iterable[Path]) -> list[Path]:
    """On Windows, open libraries that ggml is about to open, and return those that opened.

    ABI: ggml calls LoadLibraryW, which doesn't search the library's own folder for what it imports
    (CUDA's runtime, libomp.dll); a library that is open already needs no search. Elsewhere RUNPATH
    and @loader_path do this, and nothing is opened.
    """
    opened: list[Path] = []
    if sys.platform == "win32":
        import msvcrt

        # A missing entry point would otherwise be told in a window that waits for a click.
        before = msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS)
        try:
            for path in paths:
                try:
                    open_shared(path)
                except LibraryIncompatible:
                    continue  # ggml tries it again its own way, and logs what is wrong
                opened.append(path)
        finally:
            msvcrt.SetErrorMode(before)
    return opened


def _search(folder: str) -> None:
    if sys.platform == "win32" and folder not in _searched:
        _searched[folder] = os.add_dll_directory(folder)
