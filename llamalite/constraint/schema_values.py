"""Values inside a schema: counts, numbers, literals, patterns and formats that can be enforced.

Imports the standard library and its siblings.
"""

from __future__ import annotations

import re
from typing import Any

from llamalite.constraint import schema_keywords as keywords
from llamalite.constraint.schema_pointers import Place, fail, kind_of, shown, suggestion

MAX_EXACT = 2**53
"""Largest whole number that every JSON reader keeps exactly."""
MAX_COUNT = 2**31 - 1
"""Larger counts stand for this one: no answer is so long."""
_MAX_DIGITS = 30
_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")


def check_count(value: Any, place: Place) -> int:
    """Return a whole number that isn't negative."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or value < 0 or value % 1:
        fail(place, f"a whole number from 0 on is wanted, not {kind_of(value)}")
    return int(min(value, MAX_COUNT))


def check_number(value: Any, place: Place) -> int | float:
    """Return a number that is kept exactly."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fail(place, f"a number is wanted, not {kind_of(value)}")
    if abs(value) > MAX_EXACT:
        fail(
            place, f"{shown(value)} is beyond ±2^53, where numbers can't be told apart: use another"
        )
    # NOTE: tiny ones would be written out with hundreds of digits.
    if value and abs(value) < 10**-_MAX_DIGITS:
        fail(place, f"{value} is nearer to 0 than 1e-{_MAX_DIGITS}")
    return value


def check_bound(value: Any, place: Place) -> int | float:
    """Return a bound of numbers; one that is beyond all exact numbers is drawn in to them."""
    is_lower = place.key.endswith("inimum")
    if isinstance(value, (int, float)) and (value < -MAX_EXACT if is_lower else value > MAX_EXACT):
        return -MAX_EXACT if is_lower else MAX_EXACT
    return check_number(value, place)


def check_literal(value: Any, place: Place, max_depth: int) -> None:
    """Raise if a value can't be written as it stands."""
    if place.depth > max_depth:
        fail(place, f"nested more than {max_depth} deep")
    if isinstance(value, str):
        found = _UNWRITABLE.search(value)
        if found:
            fail(place, f"holds the control character {found.group()!r}, which can't be written")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_literal(inner, place.down(key), max_depth)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            check_literal(inner, place.down(i), max_depth)
    elif value is not None and not isinstance(value, bool):
        check_number(value, place)


def format_rules(value: Any, place: Place) -> dict[str, Any]:
    """Return the keywords that enforce a format."""
    if not isinstance(value, str):
        fail(place, f"the name of a format is wanted, not {kind_of(value)}")
    if value in keywords.HINT_FORMATS:
        return {}
    if value in keywords.INTEGER_FORMATS:
        low, high = keywords.INTEGER_FORMATS[value]
        return {"minimum": low, "maximum": high}
    if value in keywords.PATTERNS:
        return {"pattern": keywords.PATTERNS[value]}
    if value in keywords.NATIVE_FORMATS:
        return {"format": value}
    known = sorted({*keywords.PATTERNS, *keywords.NATIVE_FORMATS, *keywords.INTEGER_FORMATS})
    hint = suggestion(value, known) or f"; can be: {', '.join(known)}"
    return fail(place, f"the format {shown(value)} can't be enforced{hint}")
