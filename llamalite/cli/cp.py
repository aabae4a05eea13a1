"""Give a model's file or a preset a second name.

Usage:
  llamalite cp [--quiet] [--] NAME NEW

Of a model, NEW is a file in the folder for models that takes no room: both names lead to the same
bytes, and either can be removed without the other. Of an alias or a preset, NEW is a copy that can
be changed by itself.

Options:
  -q, --quiet    no notices
  -h, --help     print this
"""

from __future__ import annotations

from llamalite.cli import terminal
from llamalite.cli.options import parse
from llamalite.models.store.copying import copy_model


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "cp", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    say(copy_model(options.text("NAME") or "", options.text("NEW") or ""))
    return 0
