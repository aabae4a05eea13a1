"""A rewritten schema and the parts it is made of, each with the pointer of where it came from.

Owns finding the part to blame. Imports the standard library.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_PATIENCE_S = 1.0
"""Time for finding the part to blame; what was found until then is blamed."""


@dataclass
class Part:
    """One schema inside a schema.

    Attributes:
        at: its JSON pointer in what was asked for.
        schema: what it is rewritten to.
        inner: the schemas it is made of.
        target: name of the definition its `$ref` leads to.
    """

    at: str
    schema: Any
    inner: list[Part] = field(default_factory=list)
    target: str | None = None


@dataclass
class CleanSchema:
    """A schema that has only keywords which can be enforced.

    Attributes:
        patterns: every regular expression in it, and the pointer of where it stands first.
    """

    root: Part
    definitions: dict[str, Part]
    patterns: dict[str, str]

    def to_dict(self, part: Part | None = None) -> dict[str, Any]:
        """Return a part (default: all) as a schema of its own."""
        schema = (part or self.root).schema
        if isinstance(schema, bool):
            schema = {} if schema else {"anyOf": [False]}
        definitions = {name: inner.schema for name, inner in self.definitions.items()}
        return {**schema, "$defs": definitions} if definitions else schema

    def blame(self, complaint: str, complain: Callable[[dict[str, Any]], str]) -> tuple[str, str]:
        """Return the pointer of the smallest part that meets with a complaint, and what it is.

        Args:
            complaint: what was said of the whole.
            complain: says what is wrong with a schema, "" if nothing.
        """
        part, seen = self.root, {id(self.root)}
        give_up_at = time.monotonic() + _PATIENCE_S
        while time.monotonic() < give_up_at:
            for inner in self._inside(part):
                if (
                    time.monotonic() > give_up_at
                    or id(inner) in seen
                    or isinstance(inner.schema, bool)
                ):
                    continue
                seen.add(id(inner))
                said = complain(self.to_dict(inner))
                if _same(said, complaint):
                    part, complaint = inner, said
                    break
            else:
                break
        if time.monotonic() > give_up_at:
            return part.at, complaint
        for key in part.schema if isinstance(part.schema, dict) else ():
            rest = {other: rule for other, rule in part.schema.items() if other != key}
            if key != "type" and rest and not complain(self.to_dict(Part(part.at, rest))):
                return f"{part.at}/{key}", complaint
        return part.at, complaint

    def _inside(self, part: Part) -> list[Part]:
        return part.inner if part.target is None else [*part.inner, self.definitions[part.target]]


def _same(one: str, other: str) -> bool:
    lines = [text.split("\n")[0] for text in (one, other)]
    return lines[0] == lines[1] or all(line.startswith("Unsatisfiable") for line in lines)
