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

The exit code is 8 if a file differs.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamalite.cli import terminal
from llamalite.cli.options import parse
from llamalite.cli.tables import print_json
from llamalite.errors import ChecksumMismatch
from llamalite.models.store.verify import Verdict, verify_models

_SHOWN = {"right": "ok", "wrong": "DIFFERS", "unknown": "not known before"}


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
    if wrong:
        raise ChecksumMismatch(
            f"{len(wrong)} of {len(done)} files differ from what was fetched or imported: fetch "
            f"{wrong[0].name} again with 'llamalite pull --force {wrong[0].name}', or remove it"
        )
    return 0


def _printed(verdicts: Iterator[Verdict]) -> Iterator[Verdict]:
    """Print each verdict as soon as it is there."""
    for verdict in verdicts:
        terminal.write(
            f"{_SHOWN[verdict.state]}  {terminal.one_line(verdict.name)}  "
            f"{terminal.one_line(str(verdict.path))}\n"
        )
        yield verdict


def _json(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.name,
        "path": str(verdict.path),
        "state": verdict.state,
        "expected": verdict.expected,
        "found": verdict.found,
    }
