#!/usr/bin/env python3
"""Fetch a prebuilt libllama: `llamalite lib install` for a bare checkout, with nothing installed.

It does the same with the same code and options. Exit codes: 0 done, 1 it could not be fetched or
doesn't work here, 2 the command line is wrong, 130 interrupted.
"""

# ruff: noqa: E402 (what stands before the imports is there for them)
from __future__ import annotations

import os
import signal
import sys


def _stop(*_: object) -> None:
    os.write(2, b"fetch_libllama: stopped\n")
    os._exit(130)


_handler = signal.getsignal(signal.SIGINT)
if __name__ == "__main__" and _handler is signal.default_int_handler:
    # Raised in the middle of an import, KeyboardInterrupt may come out as another error.
    signal.signal(signal.SIGINT, _stop)

import argparse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llamalite import config
from llamalite.cli import terminal
from llamalite.config import requested_backend
from llamalite.core.installation import Wish, install_and_test
from llamalite.errors import InvalidParameter, LlamaliteError
from llamalite.libs.platforms import ALL_PLATFORMS, Platform
from llamalite.libs.sources.offers import list_offers
from llamalite.libs.sources.plan import SOURCES
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.transfer.progress import say_on_stderr


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        signal.signal(signal.SIGINT, _handler)
        terminal.prepare_output()
        options = _parser().parse_args(arguments)
        return _print_list(options) if options.list else _install(options)
    except InvalidParameter as error:
        return _complain(str(error), 2)
    except LlamaliteError as error:
        return _complain(str(error), 1)
    except ModuleNotFoundError as error:
        said = f"the Python package {error.name} isn't installed: give --dest FOLDER"
        return _complain(f"{said} or set LLAMALITE_HOME", 1)
    except OSError as error:
        terminal.abandon_output(error)
        what = f"{error.filename}: " if error.filename else ""
        return _complain(f"{what}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _complain("stopped", 130)


def _complain(message: str, code: int) -> int:
    say_on_stderr(f"fetch_libllama: {message}")
    return code


def _install(options: argparse.Namespace) -> int:
    wish = Wish(
        backend=options.backend,
        release=options.release,
        platform=options.platform,
        dest=config.user_path(options.dest, "--dest") if options.dest else None,
        sources=tuple(options.source or ()),
        local=config.user_path(options.archive, "FROM") if options.archive else None,
        allow_unverified=options.allow_unverified,
        test=not options.no_test,
    )
    outcome = install_and_test(wish, terminal.be_silent if options.quiet else None)
    terminal.write(f"{outcome.installed.folder}\n")
    if outcome.failure is not None:
        raise outcome.failure
    return 0


def _print_list(options: argparse.Namespace) -> int:
    platform = Platform.parse(options.platform) if options.platform else None
    for offer in list_offers(options.release, platform, say_on_stderr):
        size = f"{offer.n_bytes:,} bytes" if offer.n_bytes is not None else "size unknown"
        terminal.write(
            f"{offer.platform} {offer.backend}: {offer.what} ({size}) from {offer.source}, "
            f"llama.cpp {offer.release or 'of an unknown build'}, {offer.verified}\n"
        )
    return 0


def _text(given: str) -> str:
    if not given.strip():
        raise argparse.ArgumentTypeError("it is empty: give a value or leave it out")
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fetch_libllama.py",
        description="Fetch a prebuilt libllama, verify it, test it and print the folder it is in.",
    )
    parser.add_argument(
        "archive", metavar="FROM", nargs="?", type=_text, help="an archive or folder here instead"
    )
    parser.add_argument(
        "--backend", type=_text, help=f"cpu, vulkan, cuda, metal, … or auto ({requested_backend()})"
    )
    parser.add_argument(
        "--release", type=_text, help=f"latest, a tag, npm:VERSION or pypi:VERSION ({PINNED.tag})"
    )
    parser.add_argument(
        "--platform", choices=[str(platform) for platform in ALL_PLATFORMS], help="(this machine's)"
    )
    parser.add_argument(
        "--dest", metavar="FOLDER", type=_text, help="folder to make (one under LLAMALITE_HOME)"
    )
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
