"""JSON schemas: read, checked keyword by keyword, and rewritten to what can be enforced.

Owns pointers and refusals: every keyword is enforced, only annotates, or is refused by its JSON
pointer. Doesn't know how a schema is enforced. Imports the standard library, `llamalite.errors` and
its siblings.

What comes out is stricter in form than what goes in: annotations are gone, each `$ref` leads to
`#/$defs/<number>`, `oneOf` is an `anyOf` whose choices exclude each other, and a part that only
endless values could fulfil allows nothing.

Source: JSON Schema 2020-12; of older drafts what differs in form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from llamalite.constraint import schema_keywords as keywords
from llamalite.constraint.schema_endless import close_endless, find_loop
from llamalite.constraint.schema_overlap import find_overlap
from llamalite.constraint.schema_parts import CleanSchema, Part
from llamalite.constraint.schema_pointers import (
    Place,
    fail,
    find_anchor,
    find_pointer,
    has_reference,
    kind_of,
    parse_json,
    shown,
    suggestion,
)
from llamalite.constraint.schema_values import (
    check_bound,
    check_count,
    check_literal,
    check_number,
    format_rules,
)

MAX_DEPTH = 100
"""Deepest nesting of objects and lists in a schema."""


def clean_schema(text: str) -> CleanSchema:
    """Read a schema and rewrite it to what can be enforced.

    Raises:
        ConstraintError: it is no JSON or no schema, or asks what can't be enforced; the message
            begins with the JSON pointer.
    """
    root = parse_json(text)
    cleaner = _Cleaner(root)
    return cleaner.run()


class _Cleaner:
    """One pass over a schema; what `$ref` leads to is rewritten once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self.dialect = _dialect(root)
        self.definitions: dict[str, Part] = {}
        self._names: dict[str, str] = {}
        self._waiting: list[tuple[str, str, Any]] = []
        self._patterns: dict[str, str] = {}
        self._one_ofs: list[tuple[Place, Part, list[Part]]] = []

    def run(self) -> CleanSchema:
        root = self.part(self._root, Place("", 0))
        while self._waiting:
            name, at, node = self._waiting.pop()
            self.definitions[name] = self.part(node, Place(at, 0))
        schemas = {name: part.schema for name, part in self.definitions.items()}
        loop = find_loop(schemas)
        if loop is not None:
            fail(Place(self.definitions[loop].at, 0), "refers to itself with nothing in between")
        for place, part, choices in self._one_ofs:
            overlap = find_overlap([choice.schema for choice in choices], part.schema, schemas)
            if overlap is not None:
                first, second = overlap
                fail(
                    place,
                    f"choices {first} and {second} may both hold for one value, and exactly one "
                    "must: tell them apart with a required property that has another const in "
                    "each, or use anyOf",
                )
        if not close_endless(root.schema, schemas):
            what = (
                "false" if root.schema is False else "every value would hold another, without end"
            )
            fail(Place("", 0), f"nothing can fulfil it: {what}")
        return CleanSchema(root, self.definitions, self._patterns)

    def part(self, node: Any, place: Place) -> Part:
        """Rewrite one schema."""
        if place.depth > MAX_DEPTH:
            fail(place, f"nested more than {MAX_DEPTH} deep: move inner parts to $defs")
        if isinstance(node, bool):
            return Part(place.at, node)
        if not isinstance(node, dict):
            fail(place, f"a schema is an object, true or false, not {kind_of(node)}")
        if place.at and not str(node.get("$id", "#")).startswith("#") and has_reference(node):
            fail(
                place.down("$id"),
                "references inside a schema with a name of its own can't be followed: leave this "
                "$id out",
            )
        part = Part(place.at, {})
        for key, value in node.items():
            if key in keywords.ANNOTATIONS or key.startswith("x-"):
                continue
            handle = _HANDLERS.get(key) or _refuse(key, place)
            handle(self, part, node, value, place.down(key))
        return part

    def _parts(self, part: Part, nodes: Any, place: Place) -> list[Part]:
        if not isinstance(nodes, list) or not nodes:
            fail(place, f"a list of schemas is wanted, not {kind_of(nodes)}")
        parts = [self.part(node, place.down(i)) for i, node in enumerate(nodes)]
        part.inner += parts
        return parts

    # -- keywords: each puts what it asks for into part.schema --------------------------------

    def ref(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        at, target = self._resolve(value, place)
        name = self._names.get(at)
        if name is None:
            name = self._names[at] = str(len(self._names))
            self._waiting.append((name, at, target))
        part.schema["$ref"] = f"#/$defs/{name}"
        part.target = name

    def _resolve(self, reference: Any, place: Place) -> tuple[str, Any]:
        if not isinstance(reference, str):
            fail(place, f"a reference is a string, not {kind_of(reference)}")
        base, _, fragment = reference.partition("#")
        own = self._root.get("$id", self._root.get("id", "")) if self._root else ""
        if base and base != str(own).partition("#")[0]:
            fail(place, f"{shown(base)} lies outside this schema: put what it names under $defs")
        if fragment and not fragment.startswith("/"):
            found = find_anchor(self._root, fragment)
        else:
            found = find_pointer(self._root, fragment)
        if found is None:
            fail(place, f"{shown(reference)} leads to nothing in this schema")
        return found

    def types(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        names = value if isinstance(value, list) else [value]
        if not names:
            fail(place, "an empty list of types allows nothing")
        for name in names:
            if name not in keywords.TYPES:
                hint = suggestion(name, keywords.TYPES) or f": {', '.join(keywords.TYPES)}"
                fail(place, f"{shown(name)} is no type{hint}")
        part.schema["type"] = value if isinstance(value, str) else list(dict.fromkeys(names))

    def literal(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        check_literal(value, place, MAX_DEPTH)
        part.schema["const"] = value

    def enum(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        if not isinstance(value, list) or not value:
            fail(place, f"a list of values is wanted, not {kind_of(value)}")
        for i, literal in enumerate(value):
            check_literal(literal, place.down(i), MAX_DEPTH)
        part.schema["enum"] = value

    def all_of(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        parts = self._parts(part, value, place)
        part.schema.setdefault("allOf", []).extend(inner.schema for inner in parts)

    def any_of(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        part.schema["anyOf"] = [inner.schema for inner in self._parts(part, value, place)]

    def one_of(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        parts = self._parts(part, value, place)
        self._one_ofs.append((place, part, parts))
        choices = [inner.schema for inner in parts]
        if "anyOf" in node:
            part.schema.setdefault("allOf", []).append({"anyOf": choices})
        else:
            part.schema["anyOf"] = choices

    def count(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        part.schema[place.key] = check_count(value, place)

    def min_properties(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        count = check_count(value, place)
        required = node.get("required")
        names = required if isinstance(required, list) else []
        n_named = len({name for name in names if isinstance(name, str)})
        open_ended = node.get("additionalProperties") is not False or "patternProperties" in node
        if count > n_named + 1 and open_ended:
            fail(
                place,
                "that so many different properties come can't be enforced, because names that are "
                "free may repeat: name them under required",
            )
        part.schema["minProperties"] = count

    def number(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        if isinstance(value, bool) and self.dialect == 4 and place.key.startswith("exclusive"):
            plain = "minimum" if place.key.endswith("Minimum") else "maximum"
            if value and plain in node:
                part.schema[place.key] = check_bound(node[plain], place.beside(plain))
            return
        part.schema[place.key] = check_bound(value, place)

    def multiple_of(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        number = check_number(value, place)
        if not number > 0:
            fail(place, f"{value} is not above 0")
        part.schema["multipleOf"] = number

    def pattern(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        part.schema["pattern"] = self._pattern(value, place)

    def _pattern(self, value: Any, place: Place) -> str:
        if not isinstance(value, str):
            fail(place, f"a regular expression is wanted, not {kind_of(value)}")
        self._patterns.setdefault(value, place.at)
        return value

    def format(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        rules = format_rules(value, place)
        if any(key in node for key in rules):
            part.schema.setdefault("allOf", []).append(rules)
        else:
            part.schema.update(rules)

    def properties(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        if not isinstance(value, dict):
            fail(place, f"an object of schemas is wanted, not {kind_of(value)}")
        is_pattern = place.key == "patternProperties"
        parts = {}
        for name, inner in value.items():
            if is_pattern:
                self._pattern(name, place.down(name))
            parts[name] = self.part(inner, place.down(name))
        part.inner += parts.values()
        part.schema[place.key] = {name: inner.schema for name, inner in parts.items()}

    def required(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            fail(place, f"a list of property names is wanted, not {kind_of(value)}")
        part.schema["required"] = list(dict.fromkeys(value))

    def one_schema(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        inner = self.part(value, place)
        part.inner.append(inner)
        part.schema[place.key] = inner.schema

    def prefix_items(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        part.schema["prefixItems"] = [inner.schema for inner in self._parts(part, value, place)]

    def items(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        if not isinstance(value, list):
            self.one_schema(part, node, value, place)
        elif self.dialect == 2020:
            fail(place, "a list of schemas is written prefixItems since draft 2020-12")
        else:
            self.prefix_items(part, node, value, place)

    def additional_items(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        if self.dialect == 2020:
            fail(place, "no such keyword since draft 2020-12: use prefixItems and items")
        if isinstance(node.get("items"), list):
            inner = self.part(value, place)
            part.inner.append(inner)
            part.schema["items"] = inner.schema

    def unique_items(self, part: Part, node: dict[str, Any], value: Any, place: Place) -> None:
        at_most_one = isinstance(node.get("maxItems"), int) and node["maxItems"] <= 1
        if value is not False and not at_most_one:
            fail(place, "can't be enforced while a text is written: leave it out and check after")


_Handler = Callable[[_Cleaner, Part, dict[str, Any], Any, Place], None]
_HANDLERS: dict[str, _Handler] = {
    "$ref": _Cleaner.ref,
    "type": _Cleaner.types,
    "const": _Cleaner.literal,
    "enum": _Cleaner.enum,
    "allOf": _Cleaner.all_of,
    "anyOf": _Cleaner.any_of,
    "oneOf": _Cleaner.one_of,
    "minLength": _Cleaner.count,
    "maxLength": _Cleaner.count,
    "pattern": _Cleaner.pattern,
    "format": _Cleaner.format,
    "minimum": _Cleaner.number,
    "maximum": _Cleaner.number,
    "exclusiveMinimum": _Cleaner.number,
    "exclusiveMaximum": _Cleaner.number,
    "multipleOf": _Cleaner.multiple_of,
    "properties": _Cleaner.properties,
    "patternProperties": _Cleaner.properties,
    "additionalProperties": _Cleaner.one_schema,
    "required": _Cleaner.required,
    "minProperties": _Cleaner.min_properties,
    "maxProperties": _Cleaner.count,
    "items": _Cleaner.items,
    "prefixItems": _Cleaner.prefix_items,
    "additionalItems": _Cleaner.additional_items,
    "minItems": _Cleaner.count,
    "maxItems": _Cleaner.count,
    "uniqueItems": _Cleaner.unique_items,
}


def _refuse(key: str, place: Place) -> NoReturn:
    instead = keywords.REFUSED.get(key)
    if instead is not None:
        fail(place.down(key), f"can't be enforced while a text is written: {instead}")
    known = [*_HANDLERS, *keywords.ANNOTATIONS, *keywords.REFUSED]
    fail(place.down(key), f"no such keyword{suggestion(key, known)}")


def _dialect(root: Any) -> int:
    uri = root.get("$schema") if isinstance(root, dict) else None
    if uri is None:
        return 2020
    name = str(uri).rstrip("#").partition("://")[2]
    if name not in keywords.DIALECTS:
        known = ", ".join(f"https://{name}" for name in keywords.DIALECTS)
        fail(Place("/$schema", 0), f"{shown(uri)} is no dialect known here: {known}")
    return keywords.DIALECTS[name]
