"""Turn arguments as people write them into what docopt reads without guessing.

docopt takes `-ngl 99` for `-n gl 99`, completes prefixes of long options, and takes a prompt that
begins with a dash for options. This pass knows the options a usage text declares, maps llama.cpp's
spellings to them, and leaves docopt `--name=value`, `--flag` and the positional arguments.

Imports `llamalite.errors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llamalite.errors import InvalidParameter

ALIASES = {
    "--temp": "--temperature",
    "--n-predict": "--max-tokens",
    "--predict": "--max-tokens",
    "--n-gpu-layers": "--gpu-layers",
    "--system-prompt": "--system",
    "--typical-p": "--typical",
    "--top-n-sigma": "--top-nsigma",
    "--sampler-seq": "--samplers",
    "--hf-repo": "--model",
    "--chat-template": "--template",
    "--chat-template-file": "--template",
    "-ngl": "--gpu-layers",
    "-ub": "--ubatch-size",
    "-tb": "--threads-batch",
    "-sys": "--system",
    "-hf": "--model",
    "-hfr": "--model",
    "-np": "--parallel",
    "-fa": "--flash-attn",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
    "-sm": "--split-mode",
    "-mg": "--main-gpu",
    "-ts": "--tensor-split",
    "-nkvo": "--no-kv-offload",
    "-ot": "--override-tensor",
    "-dev": "--device",
    "-cmoe": "--cpu-moe",
    "-ncmoe": "--n-cpu-moe",
    "-cnv": "--conversation",
    "-no-cnv": "--no-conversation",
    "-mli": "--multiline-input",
    "-st": "--single-turn",
    "-sp": "--special",
    "-bf": "--binary-file",
    "-sysf": "--system-prompt-file",
    "-hff": "--hf-file",
    "-hft": "--hf-token",
    "-mu": "--model-url",
    "-md": "--model-draft",
    "-ngld": "--gpu-layers-draft",
    "-lv": "--log-verbosity",
    "-gan": "--grp-attn-n",
    "-gaw": "--grp-attn-w",
    "-cb": "--cont-batching",
    "-kvu": "--kv-unified",
    "-lcs": "--lookup-cache-static",
    "-lcd": "--lookup-cache-dynamic",
    "-bs": "--backend-sampling",
    "-jf": "--json-schema-file",
}
"""llama.cpp's spellings, and the long option each stands for; a command need not have that one."""

_DECLARATION = re.compile(r"^ +(?:(-\w), )?(--[\w-]+)(=\S+)?", re.M)
_REPEATABLE = re.compile(r"\[(--[\w-]+)[^\]]*\]\.\.\.")
_ATTACHED = re.compile(r"(-\w)(-?[\d.]\S*)")
_FLAGS = re.compile(r"-\w+")


@dataclass(frozen=True)
class Option:
    """An option as a usage text declares it."""

    name: str
    takes_value: bool
    repeatable: bool


def declared_options(usage: str) -> dict[str, Option]:
    """Return the options of a usage text by every spelling: `-n` and `--max-tokens`."""
    repeatable = set(_REPEATABLE.findall(usage))
    options = {}
    for short, name, value in _DECLARATION.findall(usage):
        option = Option(name, bool(value), name in repeatable)
        options[name] = option
        if short:
            options[short] = option
    return options


def canonical(argv: list[str], options: Mapping[str, Option], command: str) -> list[str]:
    """Return the same arguments, options first and spelled out, then the positional ones.

    Of an option given twice the last one counts, unless it is repeatable. `--` stands before the
    positional arguments if one of them begins with a dash.

    Raises:
        InvalidParameter: an option is unknown, lacks its value, or has one it doesn't take.
    """
    given: list[tuple[Option, str]] = []
    positional: list[str] = []
    waiting = list(reversed(argv))
    while waiting:
        argument = waiting.pop()
        if argument == "--":
            positional += reversed(waiting)
            break
        if argument == "-" or not argument.startswith("-"):
            positional.append(argument)
            continue
        for option, spelled, value in _read(argument, options, command):
            if option.takes_value and value is None:
                if not waiting:
                    raise InvalidParameter(f"{spelled} needs a value")
                value = waiting.pop()
            given.append((option, f"{option.name}={value}" if value is not None else option.name))
    last = {option.name: i for i, (option, _) in enumerate(given)}
    kept = [text for i, (o, text) in enumerate(given) if o.repeatable or last[o.name] == i]
    dashed = any(text.startswith("-") and text != "-" for text in positional)
    return [*kept, *(["--"] if dashed else []), *positional]


def _read(
    argument: str, options: Mapping[str, Option], command: str
) -> list[tuple[Option, str, str | None]]:
    """Split one argument into (option, spelling, value where it is attached)."""
    spelled, equals, value = argument.partition("=")
    option = _find(spelled, options)
    if option is not None:
        if equals and not option.takes_value:
            raise InvalidParameter(f"{spelled} takes no value")
        return [(option, spelled, value if equals else None)]
    attached = _ATTACHED.fullmatch(argument)  # -n5, -t0.2, -n-1
    if attached and (option := _find(attached[1], options)) and option.takes_value:
        return [(option, attached[1], attached[2])]
    if _FLAGS.fullmatch(argument):  # -vv, -vq: flags alone may share a dash
        found = [_find(f"-{letter}", options) for letter in argument[1:]]
        flags = [flag for flag in found if flag is not None and not flag.takes_value]
        if len(flags) == len(argument) - 1:
            return [(flag, flag.name, None) for flag in flags]
    raise _unknown(spelled, options, command)


def _find(spelled: str, options: Mapping[str, Option]) -> Option | None:
    return options.get(spelled) or options.get(ALIASES.get(spelled, ""))


def _unknown(spelled: str, options: Mapping[str, Option], command: str) -> InvalidParameter:
    from difflib import get_close_matches

    if spelled in ALIASES:
        long = f" ({ALIASES[spelled]})" if ALIASES[spelled] != spelled else ""
        return InvalidParameter(f"llama.cpp's {spelled}{long} is no option of this command")
    near = []
    if spelled.startswith("--"):
        near = [name for name in options if len(spelled) > 3 and name.startswith(spelled)]
        near = near or get_close_matches(spelled, [*options, *ALIASES], 1)
    near = [name for name in near if _find(name, options)]
    if near:
        hint = f"did you mean {' or '.join(near[:4])}?"
    elif command == "run":
        hint = "a prompt that begins with a dash goes behind '--'"
    else:
        hint = f"see 'llamalite {command} --help'"
    shown = spelled if len(spelled) <= 40 else spelled[:40] + "…"
    return InvalidParameter(f"unknown option {shown}: {hint}")
