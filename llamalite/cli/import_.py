"""Take a GGUF file into the store.

Usage:
  llamalite import [--alias=NAME] [--copy | --link] [--json] [--quiet] [--] PATH

PATH is copied into the folder for models, with all parts of a split model and the projector
(`mmproj`) beside it, and the model's name is printed. The file at PATH stays as it is.

Options:
  --alias=NAME    give it this name, too
  --copy          copy the file [default]
  --link          make a symbolic link to it instead, which takes no room
  --json          print JSON
  -q, --quiet     no notices
  -h, --help      print this
"""

from __future__ import annotations

from llamalite.cli import terminal
from llamalite.cli.list import model_json
from llamalite.cli.options import parse
from llamalite.cli.tables import print_json
from llamalite.models.store.importing import Mode, import_model


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "import", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    path = options.text("PATH") or ""
    mode: Mode = "link" if options.flag("--link") else "copy"
    model = import_model(path, options.text("--alias"), mode, say)
    if options.flag("--json"):
        print_json(model_json(model))
    else:
        terminal.write(f"{terminal.one_line(model.name)}\n")
    return 0
