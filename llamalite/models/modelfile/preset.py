"""What a Modelfile's directives mean: a ModelConfig, and a ModelConfig as a Modelfile.

Owns paths relative to the file, and what tells a Go template from a Jinja one. May import `names`,
`text`, `config` and `errors`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from llamalite.config import ModelConfig
from llamalite.errors import InvalidParameter, TemplateError
from llamalite.models.modelfile.parameters import Parameters, parameter_lines
from llamalite.models.modelfile.syntax import Directive, read_directives, write_value
from llamalite.models.names.reference import parse_reference

_ROLES = ("system", "user", "assistant")
_DIRECTIVES = ("FROM", "SYSTEM", "TEMPLATE", "PARAMETER", "ADAPTER", "MESSAGE", "LICENSE")
_UNKNOWN_HERE = {
    "RENDERER": "prompts are rendered by TEMPLATE",
    "PARSER": "answers are read by the model's own format",
    "REQUIRES": "it speaks of Ollama's versions",
    "DRAFT": "there are no draft models",
}
_QUOTED = re.compile(r'"(?P<path>[^"]+)"(?:\s+(?P<scale>\S+))?')
_SCALE = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?", re.I | re.A)
# Nothing that begins like this is a Jinja expression.
_GO = re.compile(
    r"\{\{-?\s*(?:\.|\$|/\*|(?:if|else\s+if|with|range|block|define|template)\s+[^({}|]*[.$\"]"
    r"|(?:end|else)\s*-?\}\})"
)


def parse_modelfile(text: str, where: str | os.PathLike[str]) -> ModelConfig:
    """Return the preset that a Modelfile writes down.

    Args:
        text: the file's content.
        where: the file's path, for messages; relative paths in it begin in its folder.

    Raises:
        InvalidParameter: something in it can't be; the message names the line.
    """
    folder = Path(where).absolute().parent
    said: dict[str, Any] = {}
    parameters = Parameters()
    adapters: list[tuple[str, float]] = []
    messages: list[tuple[str, str]] = []
    licences: list[str] = []
    for line in read_directives(text, os.fspath(where)):
        if line.name == "PARAMETER":
            parameters.take(line)
        elif line.name == "ADAPTER":
            adapters.append(_adapter(line, folder))
        elif line.name == "MESSAGE":
            messages.append(_message(line))
        elif line.name == "LICENSE":
            licences.append(line.value)
        else:
            _take_single(line, folder, said)
    if "model" not in said:
        raise InvalidParameter(f"{where} has no FROM line: write FROM and a model", param="FROM")
    return ModelConfig(
        **said,
        **parameters.loading,
        sampling=parameters.sampling,
        adapters=tuple(adapters),
        messages=tuple(messages),
        license="\n\n".join(licences) if licences else None,
    )


def format_modelfile(preset: ModelConfig) -> str:
    """Return a preset as a Modelfile; `parse_modelfile` reads the same preset from it.

    Raises:
        InvalidParameter: it stands for no model, or a text has lines that end with quotes.
    """
    if preset.model is None:
        raise InvalidParameter("a Modelfile needs a model to stand behind FROM", param="model")
    lines = [f"FROM {write_value(preset.model, 'the name of the model')}"]
    for path, scale in preset.adapters:
        lines.append(f'ADAPTER "{path}" {scale!r}')
    for name, value in parameter_lines(preset):
        lines.append(f"PARAMETER {name} {write_value(value, name)}")
    for name, text in (("TEMPLATE", preset.chat_template), ("SYSTEM", preset.system_prompt)):
        if text is not None:
            lines.append(f"{name} {write_value(text, name)}")
    for role, text in preset.messages:
        lines.append(f"MESSAGE {role} {write_value(text, 'MESSAGE')}")
    if preset.license is not None:
        lines.append(f"LICENSE {write_value(preset.license, 'LICENSE')}")
    return "\n".join(lines) + "\n"


def _take_single(line: Directive, folder: Path, said: dict[str, Any]) -> None:
    """Read a directive that may be given once."""
    fields = {"FROM": "model", "SYSTEM": "system_prompt", "TEMPLATE": "chat_template"}
    if line.name not in fields:
        known = ", ".join(_DIRECTIVES)
        reason = _UNKNOWN_HERE.get(line.name)
        what = f"has no meaning here ({reason})" if reason else f"is no directive ({known} are)"
        raise InvalidParameter(f"{line.where}: {line.name[:40]} {what}", param=line.name)
    field = fields[line.name]
    if field in said:
        raise InvalidParameter(f"{line.where}: {line.name} was given before", param=line.name)
    if line.name == "TEMPLATE":
        _check_template(line)
    said[field] = _model(line, folder) if line.name == "FROM" else line.value
    _check(line, {field: said[field]})


def _model(line: Directive, folder: Path) -> str:
    """Return what FROM names: a whole path where it is a path, else the name as it is."""
    value = line.value.strip()
    is_path = value.startswith((".", "/", "~", "\\")) or PureWindowsPath(value).drive
    if is_path or _lies_in(folder, value):
        return _whole_path(value, line, folder)
    try:
        reference = parse_reference(value)
    except InvalidParameter as error:
        raise InvalidParameter(f"{line.where}: {error}", param="FROM") from None
    if reference is None and value.lower().endswith(".gguf") and "://" not in value:
        return _whole_path(value, line, folder)
    return value


def _adapter(line: Directive, folder: Path) -> tuple[str, float]:
    path, *scale = line.value.rsplit(None, 1)
    if line.value.startswith('"'):
        found = _QUOTED.fullmatch(line.value)
        path, scale = (found["path"], [found["scale"] or "1"]) if found else ("", [])
    elif not scale or not _SCALE.fullmatch(scale[0]):
        path, scale = line.value, ["1"]
    if not path or not _SCALE.fullmatch(scale[0]):
        raise InvalidParameter(f"{line.where}: write ADAPTER PATH [SCALE]", param="ADAPTER")
    _check(line, {"adapters": ((path, float(scale[0])),)})
    return _whole_path(path, line, folder), float(scale[0])


def _message(line: Directive) -> tuple[str, str]:
    role = line.word.lower()
    if role not in _ROLES:
        raise InvalidParameter(
            f"{line.where}: a message's role is {', '.join(_ROLES)}, not {line.word[:40]!r}",
            param="MESSAGE",
        )
    return role, line.value


def _check(line: Directive, said: dict[str, Any]) -> None:
    """Raise InvalidParameter, naming the line, for what ModelConfig refuses."""
    try:
        ModelConfig(**said)
    except InvalidParameter as error:
        raise InvalidParameter(f"{line.where}: {error}", param=line.name) from None


def _check_template(line: Directive) -> None:
    """Raise InvalidParameter for a Go template, and for Jinja with a fault in it."""
    if found := _GO.search(line.value):
        raise InvalidParameter(
            f"{line.where}: this TEMPLATE is a Go template ({found[0][:30]!r}), and templates are "
            f"Jinja here: leave it out to use the model's own, or name one, such as chatml",
            param="TEMPLATE",
        )
    from llamalite.text.chat_template import ChatTemplate
    from llamalite.text.templates import choose_template

    try:
        source = choose_template({}, line.value).source
        ChatTemplate(source)
    except TemplateError as error:
        raise InvalidParameter(f"{line.where}: {error}", param="TEMPLATE") from None


def _lies_in(folder: Path, value: str) -> bool:
    try:
        return (folder / value).is_file()
    except (OSError, ValueError):
        return False


def _whole_path(value: str, line: Directive, folder: Path) -> str:
    """Return a path that doesn't depend on where it is read.

    Raises:
        InvalidParameter: it leads out of the Modelfile's folder by `..`.
    """
    parts = {*PurePath(value).parts, *PureWindowsPath(value).parts}
    if ".." in parts or "\0" in value:
        raise InvalidParameter(
            f"{line.where}: {value[:200]!r} leads out of the Modelfile's folder: give a path below "
            f"it, or a whole one without '..'",
            param=line.name,
        )
    return str(folder / os.path.expanduser(value))
