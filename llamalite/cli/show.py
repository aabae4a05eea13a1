"""Print what a model file says about itself. Nothing is loaded; only the header is read.

Usage:
  llamalite show [--json] [--quiet] [--] MODEL
  llamalite show --tensors [--json] [--quiet] [--] MODEL
  llamalite show --metadata=KEY [--json] [--quiet] [--] MODEL
  llamalite show --template [--json] [--quiet] [--] MODEL
  llamalite show --modelfile [--json] [--quiet] [--] MODEL

MODEL is whatever 'llamalite run' takes. Of a model that isn't on this computer the header alone is
read, by HTTP Range requests, and nothing is kept.

Options:
  --tensors         the tensor table: name, type, shape (contiguous dimension first), bytes
  --metadata=KEY    one metadata value: text as it is, everything else as JSON
  --template        the chat template; with --json all of them by name
  --modelfile       the Modelfile that makes the preset MODEL
  --json            print JSON
  -q, --quiet       no notices
  -h, --help        print this
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from llamalite.cli import shown_header, shown_settings, terminal
from llamalite.cli.headers import Found, open_header
from llamalite.cli.options import Options, parse, shown
from llamalite.cli.shown_settings import Said, said_of
from llamalite.errors import BadField, InvalidParameter
from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.wording import size_text
from llamalite.models.locate import UrlTarget

if TYPE_CHECKING:
    from llamalite.models.fit.plan import Plan
    from llamalite.models.store.installed import InstalledModel

_SOURCES = {
    "hub": "the Hub",
    "url": "the address",
    "import": "copied from",
    "link": "a link to",
    "wheel": "the Python package",
}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "show", argv)
    if options is None:
        return 0
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    name = options.text("MODEL") or ""
    if options.flag("--modelfile"):
        terminal.write(_modelfile(name, as_json=options.flag("--json")))
        return 0
    with open_header(name, say) as found:
        for line in _lines(found, options, say):
            terminal.write(line if line.endswith("\n") else line + "\n")
    return 0


def _modelfile(name: str, *, as_json: bool) -> str:
    """Return the Modelfile of a preset or alias; of any other model, one that says no more."""
    from llamalite.config import ModelConfig
    from llamalite.models.locate import locate
    from llamalite.models.modelfile import format_modelfile
    from llamalite.models.store.named import read_named

    preset = read_named(name) or locate(name).preset or ModelConfig(model=name)
    return _json(preset.to_dict()) + "\n" if as_json else format_modelfile(preset)


def _lines(found: Found, options: Options, say: Say) -> Iterator[str]:
    reader = found.reader
    as_json = options.flag("--json")
    key = options.text("--metadata")
    if key is not None:
        value = _metadata(reader, key)
        yield value if isinstance(value, str) and not as_json else _json(value)
    elif options.flag("--template"):
        templates = reader.summary.chat_templates
        yield _json(templates) if as_json else _template(templates, say)
    elif options.flag("--tensors"):
        rows = [
            {"name": t.name, "type": t.type.name, "shape": t.shape, "n_bytes": t.n_bytes}
            for t in reader.tensors
        ]
        yield from [_json(rows)] if as_json else _tensor_table(rows)
    else:
        yield from [_json(_to_dict(found))] if as_json else _summary(found)


def _metadata(reader: GGUFReader, key: str) -> Any:
    if key in reader.metadata:
        return reader.metadata[key]
    from difflib import get_close_matches

    known = list(reader.metadata)
    near = [name for name in known if key in name] or get_close_matches(key, known, 3)
    hint = f"did you mean {', '.join(near[:5])}?" if near else f"it has {len(known)} others"
    raise InvalidParameter(f"{reader.path} has no metadata key {shown(key)}: {hint}")


def _template(templates: Mapping[str, str], say: Say) -> str:
    if not templates:
        raise InvalidParameter("the model has no chat template of its own")
    name = "default" if "default" in templates else next(iter(templates))
    if len(templates) > 1:
        say(f"this is the template {name!r} of {', '.join(templates)}; --json prints them all")
    return templates[name]


def _tensor_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [
        (
            terminal.one_line(row["name"]),
            row["type"],
            "×".join(map(str, row["shape"])),
            str(row["n_bytes"]),
        )
        for row in rows
    ]
    widths = [max((len(cell[i]) for cell in cells), default=0) for i in range(4)]
    for name, kind, shape, n_bytes in cells:
        yield (
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  "
            f"{n_bytes:>{widths[3]}}"
        )


def _to_dict(found: Found) -> dict[str, Any]:
    from llamalite.models.fit.report import to_dict

    said, installed = said_of(found.located), found.located.installed
    plan, projector = _plan(found, said), found.projector
    summary: dict[str, Any] = _plain(found.reader.summary)
    return {
        **summary,
        "path": found.reader.path,
        "is_here": found.located.path is not None,
        "installed_as": installed.name if installed else None,
        "source": installed.source if installed else None,
        "origin": installed.origin if installed else _target(found),
        "names": list(installed.names) if installed else [],
        "projector": projector._asdict() if projector else None,
        **shown_settings.to_dict(said),
        "fit": to_dict(plan) if plan else None,
    }


def _plan(found: Found, said: Said) -> Plan | None:
    """Return whether the model fits here; None for files that are no whole model."""
    from llamalite.models.fit.machine import Machine, free_ram, this_machine
    from llamalite.models.fit.plan import plan

    n_ctx, _ = said.settings.get("n_ctx", (None, ""))
    fitted = partial(plan, found.reader, n_ctx=n_ctx, projector=found.projector)
    try:
        in_ram = fitted(Machine(free_ram()))
        # PERF: a model that fits in RAM fits; finding out about GPUs takes longer than all this.
        return in_ram if in_ram.fits else fitted(this_machine(ask_devices=False))
    except BadField:
        return None


def _verdict(found: Found, said: Said) -> str | None:
    from llamalite.models.fit.report import verdict

    plan = _plan(found, said)
    return verdict(plan) if plan else None


def _target(found: Found) -> str | None:
    return str(found.located.target) if found.located.target else None


def _origin(found: Found, installed: InstalledModel | None) -> str | None:
    target = found.located.target
    if found.located.path is None:  # the file's name says the rest
        revision = getattr(target, "revision", None)
        where = _SOURCES["url" if isinstance(target, UrlTarget) else "hub"]
        return f"{where}{f' at {revision}' if revision else ''}, not on this computer"
    if installed is None or installed.source not in _SOURCES:
        return None
    return f"{_SOURCES[installed.source]} {installed.origin}".strip()


def _summary(found: Found) -> Iterator[str]:
    reader, installed = found.reader, found.located.installed
    said, projector = said_of(found.located), found.projector
    rows = [
        *shown_header.file_rows(reader),
        ("from", _origin(found, installed)),
        ("installed as", ", ".join([installed.name, *installed.names]) if installed else None),
        *shown_settings.rows(said),
        ("projector", f"{projector.path}, {size_text(projector.n_bytes)}" if projector else None),
        *shown_header.model_rows(reader),
        ("fits here", _verdict(found, said)),
    ]
    for name, value in rows:
        if value:
            yield f"{name:<15} {terminal.one_line(value)}"


def _json(value: object) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Turn dataclasses, enums and lazy arrays into what JSON has; NaN and infinities are null."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if is_dataclass(value):
        return {spec.name: _plain(getattr(value, spec.name)) for spec in fields(value)}
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]
