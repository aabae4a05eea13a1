"""What llguidance's complaints mean, in one line each. Imports the standard library."""

from __future__ import annotations

import re

_MAX_SHOWN = 300
_TOO_COMPLEX = "it is too complex: lower the counts of repetitions inside repetitions"
_MEANINGS = {
    "min/maxProperties only supported": "minProperties and maxProperties can be enforced only if "
    "every property under properties is required, or they are 0 or 1 and additionalProperties is "
    "false",
    "circular references with sibling keys": "a $ref that leads back to what it stands in can't "
    "have other keywords beside it: put them into what it leads to",
    "schema too large": "it is too large: split it",
    "stack level exceeded": "it is nested too deeply, or combines schemas that lead to themselves",
    "too many expressions": _TOO_COMPLEX,
    "fuel": _TOO_COMPLEX,
    "Too many items": "it is too complex, or it never ends",
    "NoExtension": "nothing can fulfil it",
    "lookarounds not supported": "anchors inside an expression, word boundaries and look-around "
    "can't be enforced: say what may stand there",
    "look-around": "look-around can't be enforced: say what may stand there",
    "backreferences": "references back to a group can't be enforced",
}
_UNSATISFIABLE = re.compile(r"Unsatisfiable[^:]*: (.*)")
_NOISE = re.compile(r"<state>.*|<non-verbose/>|while processing \S+", re.DOTALL)
_REGEX_FAULT = re.compile(r"regex parse error:.* error: ([^|]*?)(?: \d+ \|.*)?$")


def explain(complaint: str) -> str:
    """Turn a complaint into one line that says what to do, where that is known."""
    line = " ".join(_NOISE.sub("", complaint).split())
    nothing = _UNSATISFIABLE.search(line)
    if nothing:
        line = f"nothing can fulfil it: {nothing.group(1)}"
    fault = _REGEX_FAULT.search(line)
    if fault:
        line = f"no regular expression: {fault.group(1)}"
    line = next((said for sign, said in _MEANINGS.items() if sign in complaint), line)
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return line if len(line) <= _MAX_SHOWN else line[:_MAX_SHOWN] + "…"
