#!/usr/bin/env python3
"""Fetch a prebuilt libllama: a thin front of llamalite.libs that runs from a bare checkout.

Exit codes: 0 done, 1 it could not be fetched, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llamalite.errors import LlamaliteError
from llamalite.libs.find import list_installed
from llamalite.libs.install import install
from llamalite.libs.platforms import ALL_PLATFORMS, Platform, current_platform
from llamalite.libs.releases import PINNED
from llamalite.libs.sources import SOURCES


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.list:
            _print_list(options.platform)
            return 0
        sources = tuple(options.source) if options.source else SOURCES
        installed = install(
            options.backend, options.release, options.platform, options.dest, sources
        )
    except LlamaliteError as error:
        print(f"fetch_libllama: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"fetch_libllama: the Python package {error.name} isn't installed: give --dest FOLDER "
            f"or set LLAMALITE_HOME",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("fetch_libllama: stopped; nothing was installed", file=sys.stderr)
        return 130
    print(installed.folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fetch_libllama.py",
        description="Fetch a prebuilt libllama, verify it and print the folder it is in.",
    )
    parser.add_argument("--backend", default="cpu", help="cpu, vulkan, cuda, metal, … (cpu)")
    parser.add_argument(
        "--release", help=f"{PINNED.tag}, or npm:VERSION for npm's packages ({PINNED.tag})"
    )
    parser.add_argument(
        "--platform", choices=[str(platform) for platform in ALL_PLATFORMS], help="(this machine's)"
    )
    parser.add_argument("--dest", type=Path, help="folder to make (one under LLAMALITE_HOME)")
    parser.add_argument(
        "--source", action="append", choices=SOURCES, help="try this one only; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list what is published and installed")
    return parser


def _print_list(platform_name: str | None) -> None:
    platform = Platform.parse(platform_name) if platform_name else current_platform()
    print(f"{PINNED.tag} for {platform}: {', '.join(PINNED.backends(str(platform)))}")
    for installed in list_installed():
        print(
            f"installed: {installed.release} {installed.backend} {installed.platform} "
            f"from {installed.source}: {installed.folder}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
