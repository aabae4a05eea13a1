"""Places in a schema: JSON pointers, what they lead to, and errors that name them.

Imports the standard library and `llamalite.errors`.

Source: RFC 6901.
"""

from __future__ import annotations

import difflib
import json
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from llamalite.errors import ConstraintError

MAX_BYTES = 1 << 20
"""Longest schema, in UTF-8."""
_MAX_SHOWN = 80
_KINDS = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Place:
    """A place in a schema.

    Attributes:
        at: its JSON pointer; "" is the whole.
        depth: objects and lists around it.
        key: the last keyword or name of the pointer, as written.
    """

    at: str
    depth: int
    key: str = ""

    def down(self, key: str | int) -> Place:
        """Return the place of a member or element."""
        token = str(key).replace("~", "~0").replace("/", "~1")
        return Place(f"{self.at}/{token}", self.depth + 1, str(key))

    def beside(self, key: str) -> Place:
        """Return the place of another member of the same object."""
        return Place(f"{self.at.rpartition('/')[0]}/{key}", self.depth, key)


def fail(place: Place, message: str) -> NoReturn:
    """Raise ConstraintError for a place in a schema."""
    at = "".join(c if c.isprintable() else repr(c)[1:-1] for c in place.at)
    if len(at) > 4 * _MAX_SHOWN:
        at = f"{at[: 2 * _MAX_SHOWN]}…{at[-2 * _MAX_SHOWN :]}"
    raise ConstraintError(f"{at or 'the schema'}: {message}", param="json_schema")


def kind_of(value: Any) -> str:
    """Return what a JSON value is, for messages."""
    if value is None:
        return "null"
    if isinstance(value, (list, dict)) and not value:
        return f"an empty {'list' if isinstance(value, list) else 'object'}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"the number {shown(value)}"
    return _KINDS[type(value)]


def shown(value: Any) -> str:
    """Return a JSON value for messages, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


def suggestion(name: Any, known: Iterable[str]) -> str:
    """Return "; did you mean …?" if a known name is near, else ""."""
    by_lower = {word.lower(): word for word in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def parse_json(text: str) -> Any:
    """Read a schema's text.

    Raises:
        ConstraintError: it is too long, no JSON, or says something twice.
    """
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _unreadable(f"character {error.start + 1} is half of one: save it as UTF-8") from None
    if size > MAX_BYTES:
        raise _unreadable(f"it has {size} bytes and at most {MAX_BYTES} are allowed")
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_twins)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _unreadable("it holds an escape of half a character (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise _unreadable(f"it is no JSON: {error}") from None
    return value


def _unreadable(message: str) -> ConstraintError:
    return ConstraintError(f"the schema can't be read: {message}", param="json_schema")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twin[:_MAX_SHOWN]!r} stands twice in one object")
    return members


def find_pointer(root: Any, fragment: str) -> tuple[str, Any] | None:
    """Return the pointer and the schema that a reference's fragment leads to, if any."""
    node, place = root, Place("", 0)
    for token in urllib.parse.unquote(fragment).split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
        place = place.down(key)
    return place.at, node


def find_anchor(root: Any, name: str) -> tuple[str, Any] | None:
    """Return the pointer and the schema that bears an anchor, if any."""
    waiting = [(Place("", 0), root)]
    while waiting:
        place, node = waiting.pop()
        if isinstance(node, dict):
            if node.get("$anchor") == name or f"#{name}" in (node.get("$id"), node.get("id")):
                return place.at, node
            waiting += [(place.down(key), inner) for key, inner in node.items()]
        elif isinstance(node, list):
            waiting += [(place.down(i), inner) for i, inner in enumerate(node)]
    return None


def has_reference(node: Any) -> bool:
    """Say whether there is a `$ref` somewhere in it."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "$ref" in node:
                return True
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return False
