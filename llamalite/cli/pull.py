"""Fetch models from the Hugging Face Hub or another address.

Usage:
  llamalite pull [--file=FILE] [--revision=REV] [--force] [--no-projector] [--json] [--quiet]
                 [--] MODEL...

MODEL is a short name (smollm2:135m), a name of your own, owner/repo on the Hub with or without
:QUANT, /path/FILE.gguf and @REVISION, an address (https://…gguf), or file:///path/FILE.gguf, which
is copied. Without a quantization Q4_K_M is taken, else Q4_0, else the nearest that fits in memory.
All parts of a split model come, and the projector of one that reads images. The model's path goes
to stdout, a line for each MODEL.

What is here already isn't fetched again. What breaks off or is stopped goes on where it was,
when it is pulled again.

Options:
  -f, --file=FILE   take this file of the repository
  --revision=REV    branch, tag or commit, instead of main
  --force           fetch it anew though it is here
  --no-projector    leave out the projector
  --json            print a JSON object for each MODEL, one a line
  -q, --quiet       no notices, no progress
  -h, --help        print this

HF_TOKEN lets into gated and private repositories; HF_ENDPOINT is another Hub's address.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from llamalite.cli import terminal
from llamalite.cli.bars import shown_pull
from llamalite.cli.options import Options, parse
from llamalite.errors import InvalidParameter
from llamalite.libs.transfer.wording import size_text
from llamalite.models.pull import Pulled, Wish, pull_all


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "pull", argv)
    if options is None:
        return 0
    wishes = _wishes(options)
    quiet = options.flag("--quiet")
    lines: list[str] = []
    try:
        with shown_pull(quiet) as report:
            for model in pull_all(wishes, None, report):
                report.say(_said(model))
                lines.append(_json(model) if options.flag("--json") else str(model.path))
    except KeyboardInterrupt:
        if not quiet:
            terminal.say("stopped; what arrived is kept, and the next pull goes on there")
        return 130
    finally:  # once no bar is in the way
        terminal.write("".join(f"{line}\n" for line in lines))
    return 0


def _wishes(options: Options) -> list[Wish]:
    """Turn options into wishes.

    Raises:
        InvalidParameter: a value is empty, or there is one file for several models.
    """
    names = options.texts("MODEL")
    file, revision = options.text("--file"), options.text("--revision")
    for name, value in (("--file", file), ("--revision", revision)):
        if value is not None and not value.strip():
            raise InvalidParameter(f"{name} is empty: give a value or leave it out", param=name)
    if file is not None and len(names) > 1:
        raise InvalidParameter(f"--file goes with one MODEL, not {len(names)}", param="--file")
    force, projector = options.flag("--force"), not options.flag("--no-projector")
    return [Wish(name, file, revision, force, projector) for name in names]


def _said(model: Pulled) -> str:
    where = "was here already" if model.was_here else "is here now"
    parts = f" in {len(model.paths)} files" if len(model.paths) > 1 else ""
    projector = ", with its projector" if model.projector is not None else ""
    return f"{model.name} {where} ({size_text(model.n_bytes)}{parts}{projector})"


def _json(model: Pulled) -> str:
    fields = asdict(model)
    fields["path"] = str(model.path)
    fields["paths"] = [str(path) for path in model.paths]
    fields["projector"] = None if model.projector is None else str(model.projector)
    return json.dumps(fields, ensure_ascii=False)
