"""Make a preset over a model from a Modelfile.

Usage:
  llamalite create [--file=FILE] [--force] [--quiet] [--] NAME

NAME then stands for that model with those settings, wherever a model is named. The Modelfile has
Ollama's directives: FROM (a path, a short name, owner/repo:QUANT, another NAME), SYSTEM, PARAMETER,
MESSAGE, ADAPTER, LICENSE, and TEMPLATE, which is Jinja here. Nothing is downloaded or copied.

Options:
  -f, --file=FILE  the Modelfile; - reads stdin [default: Modelfile]
  --force          replace the NAME if it is in use
  -q, --quiet      no notices
  -h, --help       print this
"""

from __future__ import annotations

from llamalite.cli import terminal
from llamalite.cli.options import parse
from llamalite.errors import (
    AdapterError,
    AmbiguousFile,
    GGUFError,
    InvalidParameter,
    ModelNotFound,
)
from llamalite.gguf import GGUFReader
from llamalite.models.locate import Located, locate
from llamalite.models.modelfile import parse_modelfile
from llamalite.models.names.catalog import find_entry
from llamalite.models.names.safety import shown
from llamalite.models.store.installed import installed_models
from llamalite.models.store.named import check_free, same_name, write_named

_LONGEST = 1_000_000  # of a Modelfile, in bytes


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "create", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    name, force = options.text("NAME") or "", options.flag("--force")
    # A model whose own name was removed goes by one that may be given to another.
    taken = [model.name for model in installed_models() if not model.is_unnamed]
    check_free(name, taken, replace=force)
    file = options.text("--file") or ""
    where = "stdin" if file == "-" else file
    preset = parse_modelfile(options.file_text("--file", _LONGEST) or "", where)
    located = _check_model(name, preset.model or "", where)
    for path, _ in preset.adapters:
        _check_adapter(path, where)
    write_named(name, preset, replace=force)
    if find_entry(name):
        say(f"{name} now stands for this and no longer for the model of the catalog")
    say(f"created {name}: {preset.model} with settings of its own")
    if located.path is None:
        say(f"{preset.model} is not on this computer yet: 'llamalite pull {name}' fetches it")
    return 0


def _check_model(name: str, model: str, where: str) -> Located:
    """Return what FROM means.

    Raises:
        ModelNotFound: nothing answers to it.
        AmbiguousFile: several models do.
        InvalidParameter: it leads back to the name.
    """
    said = f"{where}: FROM {shown(model)}"
    try:
        located = locate(model)
    except (ModelNotFound, AmbiguousFile, InvalidParameter) as error:
        raise type(error)(f"{said}: {error}") from None
    if any(same_name(name, other) for other in located.names):
        raise InvalidParameter(
            f"{said} stands for {name} itself: choose another name", param="NAME"
        )
    return located


def _check_adapter(path: str, where: str) -> None:
    try:
        with GGUFReader(path) as reader:
            kind = reader.metadata.get("general.type")
    except GGUFError as error:
        raise AdapterError(f"{where}: ADAPTER {error}") from None
    if kind != "adapter":
        raise AdapterError(f"{where}: ADAPTER {path} is no LoRA adapter: it is a {kind or 'model'}")
