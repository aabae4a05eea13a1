"""Fetch, list, choose and remove the native library, libllama.

Usage:
  llamalite lib install [--backend=NAME] [--release=TAG] [--platform=NAME] [--dest=FOLDER]
                        [--source=NAME]... [--allow-unverified] [--no-test] [--json] [--quiet]
                        [--] [FROM]
  llamalite lib install --list [--release=TAG] [--platform=NAME] [--json] [--quiet]
  llamalite lib list [--json] [--quiet]
  llamalite lib use [--no-test] [--json] [--quiet] [--] NAME
  llamalite lib remove [--json] [--quiet] [--] NAME...
  llamalite lib path [--json] [--quiet]

`install` fetches a build, tests it (a child process decodes some tokens with it), uses it from then
on and prints its folder. FROM is an archive or a folder on this computer to install from instead.
`list` prints what is installed, the build in use marked with *. `use` tests an installed build, or
any folder with libllama, and uses it from then on. `remove` deletes installed builds. `path`
prints the folder of the build in use. NAME is as `list` prints it, at the line's beginning.

Options:
  --backend=NAME      cpu, cuda, vulkan, metal, rocm, sycl as published, or auto: by what this
                      machine has [default $LLAMALITE_BACKEND, else auto]
  --release=TAG       latest, a tag (b11146, v0.5.0), npm:VERSION or pypi:VERSION
                      [default the tested one, b11146]
  --platform=NAME     for another machine: linux-x64, linux-arm64, macos-arm64, macos-x64,
                      windows-x64, windows-arm64
  --dest=FOLDER       make this folder, instead of one under LLAMALITE_HOME
  --source=NAME       try this one only: github, npm or pypi; may be repeated, in order
                      [default $LLAMALITE_LIB_SOURCES, else all]
  --allow-unverified  take a file whose digest nobody has said
  --list              print what the release offers: for which platform and backend, how large,
                      how it can be verified, and which sources have it
  --no-test           don't run the library for a test
  --json              print JSON
  -q, --quiet         no notices
  -h, --help          print this

LLAMALITE_LIB, a folder with libllama, wins over what is installed under LLAMALITE_HOME.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llamalite import config
from llamalite.cli import terminal
from llamalite.cli.options import Options, parse
from llamalite.cli.tables import print_json, print_table
from llamalite.errors import InvalidParameter, LibraryError, LibraryNotFound
from llamalite.libs.find import (
    Installed,
    find_library,
    libs_folder,
    list_installed,
    remove_installs,
)
from llamalite.libs.transfer.wording import size_text

if TYPE_CHECKING:
    from llamalite.core.trial import Trial

Say = Callable[[str], None]
_MAX_CELL = 60


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "lib", argv)
    if options is None:
        return 0
    _check_not_empty(options)
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    actions = {"install": _install, "list": _list, "use": _use, "remove": _remove, "path": _path}
    action = next(action for name, action in actions.items() if options.flag(name))
    if action is _install and options.flag("--list"):
        action = _offers
    action(options, say)
    return 0


def _check_not_empty(options: Options) -> None:
    """Refuse an empty value, which a script's unset variable leaves: it isn't "not given"."""
    single = ("--backend", "--release", "--platform", "--dest", "FROM")
    values = [(name, options.text(name)) for name in single]
    values += [(name, text) for name in ("--source", "NAME") for text in options.texts(name)]
    for name, value in values:
        if value is not None and not value.strip():
            raise InvalidParameter(f"{name} is empty: give a value or leave it out", param=name)


def _install(options: Options, say: Say) -> None:
    from llamalite.core.installation import Wish, install_and_test

    dest, local = options.text("--dest"), options.text("FROM")
    wish = Wish(
        backend=options.text("--backend"),
        release=options.text("--release"),
        platform=options.text("--platform"),
        dest=config.user_path(dest, "--dest") if dest else None,
        sources=tuple(options.texts("--source")),
        local=config.user_path(local, "FROM") if local else None,
        allow_unverified=options.flag("--allow-unverified"),
        test=not options.flag("--no-test"),
    )
    # On a terminal the fetch draws its own bar, which needs `say` left out.
    draws_bar = terminal.is_terminal() and not options.flag("--quiet")
    outcome = install_and_test(wish, None if draws_bar else say)
    installed = outcome.installed
    if options.flag("--json"):
        print_json({**_fields(installed), "self_test": _state(outcome.trial, outcome.failure)})
    else:
        terminal.write(f"{installed.folder}\n")
    if outcome.failure is not None:
        raise outcome.failure
    _say_override(say)


def _offers(options: Options, say: Say) -> None:
    from llamalite.libs.platforms import Platform
    from llamalite.libs.sources.offers import list_offers

    name = options.text("--platform")
    offers = list_offers(options.text("--release"), Platform.parse(name) if name else None, say)
    if options.flag("--json"):
        print_json([asdict(offer) for offer in offers])
        return
    rows = [
        (
            offer.platform,
            offer.backend,
            offer.source,
            offer.release or "?",
            size_text(offer.n_bytes) if offer.n_bytes is not None else "size unknown",
            offer.what,
            offer.verified,
        )
        for offer in offers
    ]
    print_table(rows)


def _list(options: Options, say: Say) -> None:
    installs = list_installed()
    try:
        used = find_library(say)
    except LibraryError as error:
        say(str(error))
        used = None
    in_use = [used is not None and used.folder == item.folder for item in installs]
    if options.flag("--json"):
        pairs = zip(installs, in_use, strict=True)
        print_json([{**_fields(item), "in_use": mark} for item, mark in pairs])
    else:
        print_table(
            [
                (
                    "*" if mark else " ",
                    item.folder.name,
                    _cell(item.release),
                    _cell(item.backend),
                    _cell(item.platform),
                    _cell(item.source),
                    _cell(item.verified or "not recorded how verified"),
                    str(item.folder),
                )
                for item, mark in zip(installs, in_use, strict=True)
            ]
        )
    if used is not None and not any(in_use):
        why = "LLAMALITE_LIB" if config.library_override() else "by 'lib use'"
        say(f"in use: {used.folder} ({why})")
    elif not installs:
        say(f"nothing is installed under {libs_folder()}: run 'llamalite lib install'")


def _use(options: Options, say: Say) -> None:
    from llamalite.core.installation import use_tested

    name = options.texts("NAME")[0]
    files, trial = use_tested(name, say, test=not options.flag("--no-test"))
    if options.flag("--json"):
        release = trial.release if trial is not None else files.release
        fields = {"folder": str(files.folder), "release": release}
        print_json({**fields, "self_test": _state(trial, None)})
    else:
        terminal.write(f"{files.folder}\n")
    _say_override(say)


def _remove(options: Options, say: Say) -> None:
    removed = remove_installs(options.texts("NAME"))
    if options.flag("--json"):
        print_json({"removed": [str(folder) for folder in removed]})
    else:
        terminal.write("".join(f"{folder}\n" for folder in removed))
    say(f"removed {len(removed)} of {len(removed) + len(list_installed())} installed builds")


def _path(options: Options, say: Say) -> None:
    used = find_library(say)
    if used is None:
        raise LibraryNotFound(
            f"no libllama for this machine is installed under {libs_folder()}: run 'llamalite lib "
            "install', or set LLAMALITE_LIB to a folder that has one"
        )
    if options.flag("--json"):
        print_json({"folder": str(used.folder), "release": used.release})
    else:
        terminal.write(f"{used.folder}\n")


def _say_override(say: Say) -> None:
    override = config.library_override()
    if override is not None:
        say(f"LLAMALITE_LIB is set, so {override} is used and not this")


def _state(trial: Trial | None, failure: LibraryError | None) -> dict[str, Any]:
    """Return how the test ended, for --json."""
    if failure is not None:
        return {"state": "failed", "said": str(failure)}
    return {"state": "passed", "said": trial.notice} if trial else {"state": "none", "said": ""}


def _fields(installed: Installed) -> dict[str, Any]:
    return {**asdict(installed), "folder": str(installed.folder)}


def _cell(text: str) -> str:
    """Return a record's field, which anyone may have written, at a bearable length."""
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
