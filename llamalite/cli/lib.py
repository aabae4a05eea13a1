"""Fetch, list and find the native library, libllama.

Usage:
  llamalite lib install [--backend=NAME] [--release=TAG] [--platform=NAME] [--json] [--quiet]
  llamalite lib list [--json] [--quiet]
  llamalite lib path [--json] [--quiet]

`install` fetches a build and prints its folder. `list` prints what is installed, the build in use
marked with *. `path` prints the folder of the build in use.

Options:
  --backend=NAME    cpu, cuda, vulkan, … as published for the platform [default: cpu]
  --release=TAG     the build to install: the pinned release's tag, or npm:VERSION
  --platform=NAME   fetch for another platform, such as linux-arm64
  --json            print JSON
  -q, --quiet       no notices
  -h, --help        print this

LLAMALITE_LIB, a folder with libllama, wins over what is installed under LLAMALITE_HOME.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from llamalite import config
from llamalite.cli import terminal
from llamalite.cli.options import Options, parse
from llamalite.errors import LibraryError, LibraryNotFound
from llamalite.libs.find import Installed, find_library, libs_folder, list_installed

Say = Callable[[str], None]


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "lib", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    if options.flag("install"):
        _install(options, say)
    elif options.flag("list"):
        _list(options, say)
    else:
        _path(options)
    return 0


def _install(options: Options, say: Say) -> None:
    from llamalite.libs.install import install

    # On a terminal the fetch draws its own bar, which needs `say` left out.
    installed = install(
        options.text("--backend") or "cpu",
        options.text("--release"),
        options.text("--platform"),
        say=say if options.flag("--quiet") or not terminal.is_terminal() else None,
    )
    if options.flag("--json"):
        _print_json(_fields(installed))
    else:
        terminal.write(f"{installed.folder}\n")
    override = config.library_override()
    if override is not None:
        say(f"LLAMALITE_LIB is set, so {override} is used and not this")


def _list(options: Options, say: Say) -> None:
    installs = list_installed()
    try:
        used = find_library()
    except LibraryError as error:
        say(str(error))
        used = None
    in_use = [used is not None and used.folder == item.folder for item in installs]
    if options.flag("--json"):
        pairs = zip(installs, in_use, strict=True)
        _print_json([{**_fields(item), "in_use": mark} for item, mark in pairs])
    else:
        for item, mark in zip(installs, in_use, strict=True):
            columns = (item.release, item.backend, item.platform, item.source, str(item.folder))
            terminal.write(f"{'*' if mark else ' '} {'  '.join(columns)}\n")
    if used is not None and not any(in_use):
        say(f"in use: {used.folder} (LLAMALITE_LIB)")
    elif not installs:
        say(f"nothing is installed under {libs_folder()}: run 'llamalite lib install'")


def _path(options: Options) -> None:
    used = find_library()
    if used is None:
        raise LibraryNotFound(
            f"no libllama for this machine is installed under {libs_folder()}: run 'llamalite lib "
            "install', or set LLAMALITE_LIB to a folder that has one"
        )
    if options.flag("--json"):
        _print_json({"folder": str(used.folder), "release": used.release})
    else:
        terminal.write(f"{used.folder}\n")


def _fields(installed: Installed) -> dict[str, Any]:
    return {**asdict(installed), "folder": str(installed.folder)}


def _print_json(value: Any) -> None:
    terminal.write(json.dumps(value, ensure_ascii=False) + "\n")
