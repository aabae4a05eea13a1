"""What an answer must follow, as it is asked for. Imports the standard library and `errors`."""

from __future__ import annotations

from dataclasses import dataclass

from llamalite.errors import ConstraintError

KINDS = ("gbnf", "json_schema", "json_object", "regex", "lark")


@dataclass(frozen=True)
class Constraint:
    """A rule for the text of an answer.

    Attributes:
        kind: "gbnf" (llama.cpp's grammars), "json_schema" (the schema as JSON text), "json_object"
            (any JSON object; `text` is ignored), "regex" (of the whole answer) or "lark"
            (llguidance's dialect of Lark grammars).
        text: the rule itself.
        root: start rule of a GBNF grammar.

    Raises:
        ConstraintError: there is no such kind.
    """

    kind: str
    text: str = ""
    root: str = "root"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConstraintError(
                f"constraint {self.kind!r} is none of {', '.join(KINDS)}", param="constraint"
            )
