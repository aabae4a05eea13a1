"""Questions to single rules of a rewritten schema: types, literals, what a member must fulfil.

Imports the standard library and its siblings.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llamalite.constraint.schema_keywords import TYPES


def target_name(reference: str) -> str:
    """Return the name of the definition that a `$ref` leads to."""
    return reference.rpartition("/")[2]


def types_of(rules: list[dict[str, Any]]) -> set[str]:
    """Return the types a value may have that fulfils all of these; "number" holds "integer"."""
    types = set(TYPES) - {"integer"}
    for rule in rules:
        given = rule.get("type", TYPES)
        types = widened({given} if isinstance(given, str) else set(given)) & widened(types)
        if "number" in types:
            types.discard("integer")
    return types


def widened(types: set[str]) -> set[str]:
    """Return the same with "integer" named where "number" is."""
    return types | {"integer"} if "number" in types else types


def type_of(literal: Any) -> str:
    """Return the narrowest type of a value."""
    if isinstance(literal, bool):
        return "boolean"
    if isinstance(literal, (int, float)):
        return "integer" if literal == int(literal) else "number"
    return {type(None): "null", str: "string", list: "array", dict: "object"}[type(literal)]


def literals_of(rule: dict[str, Any]) -> set[str] | None:
    """Return the values a rule names, as JSON that is equal for equal values; None = any."""
    values = rule.get("enum", [rule["const"]] if "const" in rule else None)
    if values is None:
        return None
    return {json.dumps(_plain(value), sort_keys=True) for value in values}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def property_schemas(rule: dict[str, Any], key: str) -> list[Any]:
    """Return what a rule surely asks of a property."""
    found = [rule["properties"][key]] if key in rule.get("properties", {}) else []
    patterns = rule.get("patternProperties", {})
    found += [schema for pattern, schema in patterns.items() if _may_match(pattern, key) is True]
    unsure = any(_may_match(pattern, key) is None for pattern in patterns)
    if not found and not unsure and "additionalProperties" in rule:
        found.append(rule["additionalProperties"])
    return found


def _may_match(pattern: str, key: str) -> bool | None:
    try:
        return re.search(pattern, key, re.ASCII) is not None
    except (re.error, RecursionError, OverflowError):
        return None


def first_item(rule: dict[str, Any]) -> Any:
    """Return what a rule asks of the first element."""
    first = rule.get("prefixItems", [None])[0]
    return first if first is not None else rule.get("items", True)
