"""Proofs that no value fulfils two choices of a oneOf.

Works on rewritten schemas (see `schema`). A proof that isn't found counts as no proof. Imports the
standard library and its siblings.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from llamalite.constraint.schema_rules import (
    first_item,
    literals_of,
    property_schemas,
    target_name,
    type_of,
    types_of,
    widened,
)

_MAX_STEPS = 20_000
_MAX_DEPTH = 12


def find_overlap(
    choices: list[Any], around: Any, definitions: dict[str, Any]
) -> tuple[int, int] | None:
    """Return two choices of a oneOf that one value may fulfil both, or None if there are none.

    Args:
        choices: the rewritten choices.
        around: the schema that holds them.
        definitions: what `$ref` leads to.
    """
    beside = {key: rule for key, rule in around.items() if key not in ("anyOf", "allOf", "$ref")}
    prover = _Prover(definitions)
    if prover.has_discriminator(choices, beside):
        return None
    for (i, one), (k, other) in itertools.combinations(enumerate(choices), 2):
        if not prover.is_empty([beside, one, other], 0):
            return i, k
    return None


class _Prover:
    """Proves that no value fulfils several schemas at once, within a number of steps."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._n_steps = 0

    def has_discriminator(self, choices: list[Any], beside: dict[str, Any]) -> bool:
        """Say whether some required property has other literals in each choice (fast)."""
        flat = [self._flatten([beside, choice]) for choice in choices]
        if any(rules is None for rules in flat):
            return False
        names: set[str] | None = None
        for rules in flat:
            required = {name for rule in rules or [] for name in rule.get("required", [])}
            names = required if names is None else names & required
        return any(self._tells_apart(name, flat) for name in names or set())

    def _tells_apart(self, name: str, flat: list[list[dict[str, Any]] | None]) -> bool:
        seen: set[str] = set()
        for rules in flat:
            literals = None
            if not self._is_object(rules or []):
                return False
            for rule in rules or []:
                inner = rule.get("properties", {}).get(name)
                literals = literals_of(inner) if isinstance(inner, dict) else literals
                if literals is not None:
                    break
            if literals is None or seen & literals:
                return False
            seen |= literals
        return True

    def _is_object(self, rules: list[dict[str, Any]]) -> bool:
        return types_of(rules) == {"object"}

    def is_empty(self, schemas: list[Any], depth: int) -> bool:
        """Say whether it is proven that nothing fulfils all of these."""
        self._n_steps += 1
        if depth > _MAX_DEPTH or self._n_steps > _MAX_STEPS:
            return False
        rules = self._flatten(schemas)
        if rules is None:
            return True
        types = types_of(rules)
        if not types or self._no_literal_fits(rules, types):
            return True
        if all(self._is_type_empty(name, rules, depth) for name in types):
            return True
        return any(
            all(self.is_empty([*without, choice], depth + 1) for choice in rule["anyOf"])
            for rule, without in _choices(rules)
        )

    def _flatten(self, schemas: list[Any]) -> list[dict[str, Any]] | None:
        """Return the rules that hold together, `$ref` and allOf opened; None if one is false."""
        rules: list[dict[str, Any]] = []
        waiting, opened = list(reversed(schemas)), set()
        while waiting:
            schema = waiting.pop()
            if schema is False:
                return None
            if schema is True:
                continue
            target = schema.get("$ref")
            if target is not None and target not in opened:
                opened.add(target)
                waiting.append(self._definitions[target_name(target)])
            waiting += reversed(schema.get("allOf", []))
            rules.append(schema)
        return rules

    def _no_literal_fits(self, rules: list[dict[str, Any]], types: set[str]) -> bool:
        sets = [literals for rule in rules if (literals := literals_of(rule)) is not None]
        if not sets:
            return False
        left = set.intersection(*sets)
        return not any(type_of(json.loads(literal)) in widened(types) for literal in left)

    def _is_type_empty(self, name: str, rules: list[dict[str, Any]], depth: int) -> bool:
        low_key, high_key = _BOUNDS.get(name, ("", ""))
        low = max((rule[low_key] for rule in rules if low_key in rule), default=None)
        high = min((rule[high_key] for rule in rules if high_key in rule), default=None)
        if low is not None and high is not None and low > high:
            return True
        if name == "object":
            required = {key for rule in rules for key in rule.get("required", [])}
            return any(self._is_property_empty(key, rules, depth) for key in required)
        if name == "array" and low:
            return self.is_empty([first_item(rule) for rule in rules], depth + 1)
        return False

    def _is_property_empty(self, key: str, rules: list[dict[str, Any]], depth: int) -> bool:
        inner = [schema for rule in rules for schema in property_schemas(rule, key)]
        return self.is_empty(inner, depth + 1)


_BOUNDS = {
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


def _choices(rules: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    found = []
    for i, rule in enumerate(rules):
        if "anyOf" in rule:
            rest = {key: value for key, value in rule.items() if key != "anyOf"}
            found.append((rule, [*rules[:i], rest, *rules[i + 1 :]]))
    return found
