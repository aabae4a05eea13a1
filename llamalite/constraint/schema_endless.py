"""Schemas that lead to themselves: those that never end, and those that say nothing in between.

Works on rewritten schemas (see `schema`). Imports the standard library and its siblings.
"""

from __future__ import annotations

from typing import Any

from llamalite.constraint.schema_rules import property_schemas, target_name, types_of

_NAMED = frozenset({"properties", "patternProperties", "$defs"})


def find_loop(definitions: dict[str, Any]) -> str | None:
    """Return the name of a definition that stands for itself, nothing written in between."""
    follows = {name: _in_place(schema) for name, schema in definitions.items()}
    free = [name for name, targets in follows.items() if not targets]
    users: dict[str, list[str]] = {name: [] for name in definitions}
    for name, targets in follows.items():
        for target in targets:
            users[target].append(name)
    while free:
        done = free.pop()
        follows.pop(done)
        for user in users[done]:
            follows[user].discard(done)
            if not follows[user]:
                free.append(user)
    return next(iter(follows), None)


def _in_place(schema: Any) -> set[str]:
    """Return the definitions that must hold, or may, for the very value a schema is about."""
    found, waiting = set(), [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "$ref" in node:
                found.add(target_name(node["$ref"]))
            waiting += [*node.get("allOf", []), *node.get("anyOf", [])]
    return found


def close_endless(root: Any, definitions: dict[str, Any]) -> bool:
    """Make references to what never ends allow nothing; False if the root never ends.

    A schema never ends if each value that fulfils it would hold another one that does.
    """
    ending: set[str] = set()
    while True:
        more = {
            name
            for name, schema in definitions.items()
            if name not in ending and _can_end(schema, ending)
        }
        if not more:
            break
        ending |= more
    if not _can_end(root, ending):
        return False
    endless = set(definitions) - ending
    if endless:
        for schema in [root, *definitions.values()]:
            _cut(schema, endless)
    return True


def _can_end(schema: Any, ending: set[str]) -> bool:
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and target_name(schema["$ref"]) not in ending:
        return False
    if not all(_can_end(inner, ending) for inner in schema.get("allOf", [])):
        return False
    if not any(_can_end(inner, ending) for inner in schema.get("anyOf", [True])):
        return False
    types = types_of([schema])
    if "enum" in schema or "const" in schema or types - {"object", "array"}:
        return True
    return ("object" in types and _object_can_end(schema, ending)) or (
        "array" in types and _array_can_end(schema, ending)
    )


def _object_can_end(schema: dict[str, Any], ending: set[str]) -> bool:
    return all(
        _can_end(inner, ending)
        for key in schema.get("required", [])
        for inner in property_schemas(schema, key)
    )


def _array_can_end(schema: dict[str, Any], ending: set[str]) -> bool:
    n_items, prefix = schema.get("minItems", 0), schema.get("prefixItems", [])
    if not all(_can_end(inner, ending) for inner in prefix[:n_items]):
        return False
    return n_items <= len(prefix) or _can_end(schema.get("items", True), ending)


def _cut(schema: Any, endless: set[str]) -> None:
    waiting = [(schema, False)]  # each with whether it holds schemas by names of any kind
    while waiting:
        node, is_named = waiting.pop()
        if isinstance(node, list):
            waiting += [(inner, False) for inner in node]
        elif isinstance(node, dict) and is_named:
            waiting += [(inner, False) for inner in node.values()]
        elif isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and target_name(reference) in endless:
                node.clear()
                node["anyOf"] = [False]
            waiting += [
                (value, key in _NAMED)
                for key, value in node.items()
                if key not in ("enum", "const")
            ]
