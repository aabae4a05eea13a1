"""What filters, tests, methods and operators cost, by name and by the values they are given.

Every function charges before the work is done. Those that return arguments have replaced iterators
by lists, since what an iterator will yield can't be weighed. Imports `llamalite.text.meter` alone.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping, MappingView, Sequence, Set, Sized
from typing import Any

from llamalite.text.meter import MAX_INTEGER_BITS, SLOT, STEP, Meter, OverBudget

# Filters that take no longer on a large value than on a small one.
_CONSTANT = frozenset(
    ["attr", "count", "d", "default", "first", "items", "last", "length", "random", "safe"]
)
# Filters that look at each item but into none; what `map` and `select` apply is charged by itself.
_SHALLOW = frozenset(
    ["batch", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice"]
)
# Filters that compare items again and again.
_SORTING = frozenset(["dictsort", "groupby", "max", "min", "sort", "unique"])
# Filters whose results are long, or made of many parts, or much slower than copying.
_COSTLY = frozenset(
    ["e", "escape", "forceescape", "join", "string", "title", "urlencode", "wordcount"]
)
_PADDING = frozenset(["batch", "center", "round", "slice", "truncate"])
_CONSTANT_TESTS = frozenset(
    [
        "boolean",
        "callable",
        "defined",
        "escaped",
        "false",
        "filter",
        "float",
        "integer",
        "iterable",
        "mapping",
        "none",
        "number",
        "sameas",
        "sequence",
        "string",
        "test",
        "true",
        "undefined",
    ]
)
REMOVED_FILTERS = ("pprint", "striptags", "urlize", "wordwrap", "xmlattr")
"""Filters no chat template needs and whose cost can't be told beforehand."""

_REFUSED_METHODS = frozenset(
    [
        "decode",
        "encode",
        "expandtabs",
        "from_bytes",
        "striptags",
        "to_bytes",
        "translate",
        "unescape",
    ]
)
_PADDING_METHODS = frozenset(["center", "ljust", "rjust", "zfill"])
_TRIMMING_METHODS = frozenset(["lstrip", "rfind", "rindex", "rpartition", "rstrip", "strip"])
_SPLITTING_METHODS = frozenset(["rsplit", "split", "splitlines"])
_CONSTANT_METHODS = frozenset(["copy", "get", "items", "keys", "values"])


def charge_filter(
    meter: Meter, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Charge for a filter; `args` begins with the filtered value. Return the arguments to use."""
    meter.charge(2 * STEP)
    if name in _CONSTANT:
        return args
    args = tuple(map(meter.reusable, args))
    value, options = args[0], (*args[1:], *kwargs.values())
    if name in _PADDING:
        for option in options:
            meter.width(option)
    if name in _SHALLOW:
        meter.charge(STEP * _length(value))
    elif name == "replace" and len(args) > 2:
        meter.replace(*args[:3])
    elif name == "format":
        meter.percent(meter.text(value), kwargs or args[1:])
    else:
        _charge_walk(meter, name, value, options)
    return args


def _charge_walk(meter: Meter, name: str, value: Any, options: tuple[Any, ...]) -> None:
    weight = meter.weigh(value) + meter.weigh(*options)
    if name in _SORTING:
        meter.charge(16 * weight)
    elif name in _COSTLY or not isinstance(value, str):
        meter.charge(8 * weight)
    if name in ("tojson", "indent", "join", "trim"):
        n_parts = _length(value) if name == "join" else weight
        meter.charge(n_parts * sum(map(_spread, options)))
        meter.width(max((_spread(option) for option in options if _is_count(option)), default=0))
    elif name == "sum" and not all(isinstance(option, (int, str)) for option in options):
        meter.charge(weight * _length(value))  # a sum of lists copies every partial sum


def charge_test(
    meter: Meter, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Charge for a test; `args` begins with the tested value. Return the arguments to use."""
    meter.charge(STEP)
    if name in _CONSTANT_TESTS:
        return args
    if name == "in" and len(args) == 2:
        meter.weigh(args[0])
        return args[0], charge_search(meter, args[1])
    meter.weigh(args, kwargs)
    return args


def charge_search(meter: Meter, container: Any) -> Any:
    """Charge for looking for something in a container; return the container to use."""
    container = meter.reusable(container)
    if not isinstance(container, (Mapping, Set, KeysView)):
        meter.weigh(container)
    return container


def charge_call(
    meter: Meter, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Charge for calling anything but a macro; return the positional arguments to use.

    Raises:
        OverBudget: also for methods no chat template needs and whose cost can't be told.
    """
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    args = tuple(map(meter.reusable, args))
    meter.weigh(args, kwargs)
    if isinstance(owner, (str, int)):
        _charge_text_method(meter, owner, name, args)
    elif isinstance(owner, (Mapping, MappingView, Sequence, Set)) and name not in _CONSTANT_METHODS:
        meter.weigh(owner)
    return args


def _charge_text_method(meter: Meter, owner: Any, name: str, args: tuple[Any, ...]) -> None:
    if name in _REFUSED_METHODS:
        raise OverBudget(f"it calls the method {name!r}, which chat templates may not use")
    size = _length(owner)
    meter.charge(size)
    if name in _PADDING_METHODS:
        for arg in args:
            meter.width(arg)
    elif name in _TRIMMING_METHODS:  # searches from the right may look at every pair of characters
        meter.charge(size * max(map(_length, args), default=0) // 16)
    elif name in _SPLITTING_METHODS:
        separator = args[0] if args and isinstance(args[0], str) and args[0] else None
        meter.charge(STEP * owner.count(separator) if separator else 8 * size)
        if name == "rsplit" and separator:
            meter.charge(size * len(separator) // 16)
    elif name == "join" and args:
        meter.charge(size * _length(args[0]))
    elif name == "replace" and len(args) > 1:
        meter.replace(owner, *args[:2])


def charge_operator(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """Charge for a binary operator on values that are no long integers."""
    meter.charge(STEP)
    if operator == "*":
        meter.multiply(left, right)
    elif operator == "%" and isinstance(left, str):
        meter.percent(left, right)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * right > MAX_INTEGER_BITS:
            raise OverBudget("it raises a number to a high power")
    elif isinstance(left, str) and isinstance(right, str):
        meter.charge(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        meter.charge(SLOT * (len(left) + len(right)))
    elif not isinstance(left, (int, float)):
        meter.weigh(left, right)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _is_count(option: Any) -> bool:
    return isinstance(option, int) and not isinstance(option, bool)


def _spread(option: Any) -> int:
    """Return how many characters an option may add at every place it is used."""
    if isinstance(option, str):
        return len(option)
    if isinstance(option, (list, tuple)):
        return sum(map(_spread, option))
    return abs(option) if _is_count(option) else 0
