"""Give a model another name.

Usage:
  llamalite alias [--json] [--quiet]
  llamalite alias [--force] [--json] [--quiet] [--] NAME MODEL
  llamalite alias --remove [--json] [--quiet] [--] NAME...

NAME then stands for MODEL, which may be any name that `llamalite run` takes; it needn't be on this
computer yet. Without arguments, prints all names that were given, presets and the configuration's
aliases among them. `--remove` takes names away, and leaves the models alone.

Options:
  --remove       remove the names
  -f, --force    replace what NAME stands for
  --json         print JSON
  -q, --quiet    no notices
  -h, --help     print this
"""

from __future__ import annotations

import os

from llamalite.cli import terminal
from llamalite.cli.options import Options, parse
from llamalite.cli.tables import print_json, print_table
from llamalite.config import ModelConfig
from llamalite.errors import InvalidParameter
from llamalite.libs.transfer.progress import Say
from llamalite.models.locate import Located, locate
from llamalite.models.locate.paths import as_path, is_file
from llamalite.models.names.catalog import find_entry
from llamalite.models.store.installed import all_names, installed_models
from llamalite.models.store.named import check_free, same_name, write_named
from llamalite.models.store.removal import remove_aliases


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "alias", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    if options.flag("--remove"):
        _remove(options, say)
    elif options.text("MODEL") is not None:
        _give(options, say)
    else:
        _list(options, say)
    return 0


def _list(options: Options, say: Say) -> None:
    named = all_names(say)
    if options.flag("--json"):
        print_json([{"name": name, **preset.to_dict()} for name, preset in named.items()])
    elif named:
        rows = [(name, preset.model or "", _settings(preset)) for name, preset in named.items()]
        print_table([("NAME", "MODEL", "SETTINGS"), *rows])
    else:
        say("no names were given yet: 'llamalite alias NAME MODEL' gives one")


def _give(options: Options, say: Say) -> None:
    name, model = options.texts("NAME")[0], options.text("MODEL") or ""
    force = options.flag("--force")
    check_free(name, (found.name for found in installed_models()), replace=force)
    located = locate(model)
    if any(same_name(name, other) for other in located.names):
        raise InvalidParameter(
            f"{model} stands for {name} itself: choose another name", param="NAME"
        )
    target = _lasting(model, located)
    write_named(name, ModelConfig(model=target), replace=force)
    if find_entry(name):
        say(f"{name} now stands for this and no longer for the model of the catalog")
    if options.flag("--json"):
        print_json({"name": name, "model": target})
    else:
        terminal.write(f"{name} -> {terminal.one_line(target)}\n")
    if located.path is None:
        say(f"{target} is not on this computer yet: 'llamalite pull {name}' fetches it")


def _lasting(model: str, located: Located) -> str:
    """Return a spelling of a model that means the same from any folder, whatever comes later."""
    path = as_path(model)
    if is_file(path):
        return os.path.abspath(path)
    if len(located.names) > 1 or find_entry(model) or located.installed is None:
        return model
    return located.installed.name


def _remove(options: Options, say: Say) -> None:
    removed = remove_aliases(options.texts("NAME"))
    if options.flag("--json"):
        print_json({"removed": removed})
    else:
        terminal.write("".join(f"{name}\n" for name in removed))


def _settings(preset: ModelConfig) -> str:
    """Return the names of what a preset says beside its model."""
    return ", ".join(key for key in preset.to_dict() if key != "model")
