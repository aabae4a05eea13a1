"""Remove what downloads and removals left behind.

Usage:
  llamalite prune [-n] [-f] [--json] [--quiet]

That is: partial downloads, links to nothing, imports that were killed, records that are damaged or
of files that are gone, and content in the Hub's cache of GGUF repositories that no revision refers
to. What a program is working on stays, and so does every model, and what lies behind a link that
leads out of the folder for models and the Hub's cache. A link to a disk that isn't mounted is a
link to nothing, too: mount the disk first, or the link goes.

Options:
  -n, --dry-run  only say what would be removed
  -f, --force    don't ask
  --json         print JSON
  -q, --quiet    no notices
  -h, --help     print this
"""

from __future__ import annotations

from collections.abc import Sequence

from llamalite.cli import terminal
from llamalite.cli.confirm import confirmed
from llamalite.cli.options import parse
from llamalite.cli.tables import print_json, print_table
from llamalite.libs.transfer.wording import size_text
from llamalite.models.store.prune import Leftover, find_leftovers, remove_leftovers


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "prune", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    found, verb = find_leftovers(say), "would be removed"
    if found and not options.flag("--dry-run"):
        if not options.flag("--force"):
            for left in found:
                terminal.say(f"{left.what}: {left.path} ({size_text(left.n_bytes)})")
            if not confirmed(f"remove {_amount(found)}?"):
                say("nothing was removed")
                return 1
        found, verb = remove_leftovers(found, say), "removed"
    if options.flag("--json"):
        print_json([_json(left) for left in found])
    elif found and (options.flag("--dry-run") or options.flag("--force")):
        _show(found)
    say(f"{_amount(found)} {verb}" if found else "nothing was left behind")
    return 0


def _show(found: Sequence[Leftover]) -> None:
    print_table([(size_text(left.n_bytes), left.what, str(left.path)) for left in found], (0,))


def _amount(found: Sequence[Leftover]) -> str:
    things = f"{len(found)} thing{'s' * (len(found) > 1)}"
    return f"{things}, {size_text(sum(left.n_bytes for left in found))},"


def _json(left: Leftover) -> dict[str, object]:
    return {"path": str(left.path), "what": left.what, "n_bytes": left.n_bytes}
