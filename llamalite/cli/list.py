"""List the models on this computer.

Usage:
  llamalite list [-v] [--json] [--quiet]
  llamalite list --catalog [--json]

Those are the models in the folder for models (imported, linked, or from an address) and all in the
Hugging Face Hub's cache, also what other programs put there. The disk is read anew each time:
a file removed by hand is gone from the list, and what is partial isn't on it.

`--catalog` lists the models that have short names instead, here or not: `llamalite run qwen3:8b`
fetches one, in the quantization marked with a *; `qwen3:8b-q8_0` is another one.

Options:
  --catalog       print the models that have short names
  -v, --verbose   print where the files lie, too
  --json          print JSON
  -q, --quiet     no notices
  -h, --help      print this
"""

from __future__ import annotations

from typing import Any

from llamalite.cli import terminal
from llamalite.cli.options import parse
from llamalite.cli.tables import count_text, iso_time, print_json, print_table, time_text
from llamalite.libs.transfer.wording import size_text
from llamalite.models.names.catalog import CatalogModel, catalog_models
from llamalite.models.store.installed import InstalledModel, installed_models

_HEAD = ("NAME", "SIZE", "QUANT", "PARAMS", "MODIFIED", "FROM")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "list", argv)
    if options is None:
        return 0
    if options.flag("--catalog"):
        _print_catalog(as_json=options.flag("--json"))
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    models = installed_models(say=say)
    if options.flag("--json"):
        print_json([model_json(model) for model in models])
    elif models:
        verbose = options.flag("--verbose")
        head = [*_HEAD, *(["FILES"] if verbose else [])]
        also = any(model.names for model in models)
        rows = [_row(model, also, verbose) for model in models]
        print_table([[*head[:6], *(["ALSO"] if also else []), *head[6:]], *rows], right=(1, 3))
    else:
        say("there are no models here yet: fetch one with 'llamalite pull smollm2:135m'")
    return 0


def model_json(model: InstalledModel) -> dict[str, Any]:
    """Return what is known of a model, as JSON."""
    return {
        "name": model.name,
        "names": list(model.names),
        "reference": model.reference,
        "revision": model.revision,
        "source": model.source,
        "origin": model.origin,
        "paths": [str(path) for path in model.paths],
        "projector": str(model.projector) if model.projector else None,
        "n_bytes": model.n_bytes,
        "modified": iso_time(model.modified),
        "last_used": iso_time(model.last_used),
        "quantization": model.quantization,
        "architecture": model.architecture,
        "n_params": model.n_params,
        "n_ctx_train": model.n_ctx_train,
        "sha256": model.sha256,
    }


def _print_catalog(*, as_json: bool) -> None:
    models = catalog_models()
    if as_json:
        print_json([model._asdict() for model in models])
        return
    head = ("NAME", "ALSO", "QUANTIZATIONS", "CONTEXT", "LICENCE")
    rows = [(m.name, m.also, _marked(m), str(m.n_ctx), m.licence) for m in models]
    print_table([head, *rows], right=(3,))


def _marked(model: CatalogModel) -> str:
    return " ".join(f"{q}*" if q == model.default else q for q in model.quantizations)


def _row(model: InstalledModel, also: bool, verbose: bool) -> list[str]:
    origin = f"{model.source} {model.origin}" if model.origin else model.source
    row = [
        model.name,
        size_text(model.n_bytes),
        model.quantization or "",
        count_text(model.n_params) if model.n_params else "",
        time_text(model.modified),
        origin,
    ]
    if also:
        row.append(", ".join(name for name in model.names if name != model.name))
    if verbose:
        files = [*model.paths, *([model.projector] if model.projector else [])]
        row.append(", ".join(map(str, files)))
    return row
