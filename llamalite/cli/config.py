"""Show and change settings.

Usage:
  llamalite config show [--json]
  llamalite config path
  llamalite config init [--force]
  llamalite config get KEY
  llamalite config [--] set KEY VALUE
  llamalite config unset KEY

`show` prints every setting, its value and who said it; keys of clients are not shown. `path` prints
where the configuration file is, or would be. `init` writes one that explains every setting and sets
none. `get` prints one value. `set` writes one into the file, `unset` takes it out; all else in the
file stays as it is.

KEY is n_ctx, sampling.temperature, server.port …, aliases.NAME for another name of a model, or
models.NAME.KEY for what holds for one model alone; `unset models.NAME` takes out all of that. A
list or table as VALUE is JSON.

Options:
  --json      print one JSON object: each setting's value and origin
  --force     write over a file that is there
  -h, --help  print this

What the command line says wins over LLAMALITE_* variables (LLAMALITE_N_CTX,
LLAMALITE_SAMPLING_TEMPERATURE …), those over [models.NAME] in the file, that over the rest of the
file, and that over the defaults. LLAMALITE_CONFIG names another file.
"""

from __future__ import annotations

import json
import os
from typing import Any

from llamalite import config
from llamalite.cli import terminal
from llamalite.cli.options import Options, checked_text, parse
from llamalite.config import file, keys, layers
from llamalite.config.fields import plain
from llamalite.errors import InvalidParameter, LlamaliteError

_MOST_SHOWN = 48


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if argv[:1] == ["set"] and not {"--", "-h", "--help"} & {*argv}:
        argv = ["--", *argv]  # a value may begin with a dash
    options = parse(__doc__, "config", argv)
    if options is None:
        return 0
    actions = {
        "show": _show, "path": _path, "init": _init, "get": _get, "set": _set, "unset": _unset,
    }  # fmt: skip
    for name in actions:
        if options.flag(name):
            actions[name](options)
    return 0


def _show(options: Options) -> None:
    said = {
        key: (keys.shown_value(key, value), origin)
        for key, (value, origin) in layers.everything().items()
    }
    if options.flag("--json"):
        rows = {key: {"value": value, "origin": origin} for key, (value, origin) in said.items()}
        terminal.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    written = {key: _cut(_written(value)) for key, (value, _) in said.items()}
    width, value_width = max(map(len, written)), max(map(len, written.values()))
    for key, (_, origin) in said.items():
        line = f"{key.ljust(width)}  {written[key].ljust(value_width)}  {origin}"
        terminal.write(line + "\n")


def _path(_: Options) -> None:
    terminal.write(f"{config.config_path()}\n")


def _init(options: Options) -> None:
    path = file.write_config(keys.commented_file(), replace=options.flag("--force"))
    terminal.say(f"{path} explains every setting and sets none yet")


def _get(options: Options) -> None:
    key = _key(options)
    said = layers.everything().get(key)
    if said is None:
        keys.split_key(key)
        raise InvalidParameter(f"{key} isn't set", param=key)
    value = plain(said.value)
    written = "" if value is None else _written(value)
    terminal.write(f"{value if isinstance(value, str) else written}\n")


def _set(options: Options) -> None:
    key = _key(options)
    where = keys.split_key(key)
    if where[0] == "aliases":
        _check_alias(where[1])
    value = keys.file_value(where, checked_text(options.text("VALUE") or "", "VALUE"))
    path = file.set_value(where, value)
    terminal.say(f"{key} = {_written(keys.shown_value(key, value))} in {path}")
    _warn(key)


def _check_alias(name: str) -> None:
    """Refuse what `llamalite alias` refuses, too: the name of a model that is here."""
    from llamalite.models.store.installed import installed_models
    from llamalite.models.store.named import check_free

    check_free(name, (model.name for model in installed_models()), replace=True)


def _unset(options: Options) -> None:
    key = _key(options)
    where = keys.find_key(file.read_config(), key)
    if where is None:
        if not key.startswith("models."):
            keys.split_key(key)
        terminal.say(f"{key} isn't set in {config.config_path()}")
    else:
        terminal.say(f"{key} is no longer set in {file.remove_value(where)}")
    _warn(key)


def _key(options: Options) -> str:
    return keys.without_quotes(options.text("KEY") or "")


def _warn(key: str) -> None:
    """Say what keeps a change from being felt."""
    variable = layers.variable_of(key)
    if os.environ.get(variable):
        terminal.say(f"note: {variable} is set, and wins over the file")
    try:
        config.load_config()
    except LlamaliteError as error:
        terminal.say(f"note: the configuration is still faulty: {error}")


def _written(value: Any) -> str:
    """Return a value in a line: text in quotes, lists and tables as JSON."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"
