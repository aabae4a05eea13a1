"""Remove models, or names of models.

Usage:
  llamalite rm [-f] [--json] [--quiet] [--] NAME...

NAME is one that `llamalite list` or `llamalite alias` prints, or whole words that a model's name
begins with and no other's (`tinyllama`); damaged models have their file's. Of an alias or a preset
only the name goes. A model's file goes with its last name: while aliases, presets, hard links or
other revisions need it, it stays. Of a link only the link goes. A model that a program has loaded
is refused, and so is what a symbolic link here leads to.

Options:
  -f, --force    don't ask
  --json         print JSON
  -q, --quiet    no notices
  -h, --help     print this
"""

from __future__ import annotations

from llamalite.cli import terminal
from llamalite.cli.confirm import confirmed
from llamalite.cli.options import parse
from llamalite.cli.tables import print_json
from llamalite.libs.transfer.wording import size_text
from llamalite.models.store.removal import Removal, carry_out, plan_removal


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "rm", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    plan = plan_removal(options.texts("NAME"), say)
    if not options.flag("--force") and not confirmed(_question(plan)):
        say("nothing was removed")
        return 1
    done: list[Removal] = []

    def tell(removal: Removal) -> None:
        done.append(removal)
        if not options.flag("--json"):
            terminal.write(f"{terminal.one_line(removal.name)}\n")
        if removal.note:
            say(f"{removal.name}: {removal.note}")

    try:
        carry_out(plan, tell)
    finally:
        if options.flag("--json") and done:
            print_json([_json(removal) for removal in done])
    n_files = sum(len(removal.files) for removal in plan)
    if n_files:
        freed = sum(removal.n_bytes for removal in plan)
        say(f"removed {n_files} file{'s' * (n_files > 1)}, {size_text(freed)}")
    return 0


def _question(plan: list[Removal]) -> str:
    parts = []
    for removal in plan:
        what = f"{removal.name} ({size_text(removal.n_bytes)})" if removal.files else removal.name
        parts.append(f"{what}, though {removal.note}" if removal.note else what)
    return f"remove {'; '.join(parts)}?"


def _json(removal: Removal) -> dict[str, object]:
    return {
        "name": removal.name,
        "files": [str(path) for path in removal.files],
        "n_bytes": removal.n_bytes,
        "note": removal.note,
    }
