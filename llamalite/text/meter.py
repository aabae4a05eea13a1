"""What a chat template may spend: one allowance for all the time and memory a rendering takes.

A template comes from a stranger's file, so every operation whose cost depends on values is charged
here before it runs, in units of roughly ten nanoseconds or one character. The sandbox decides what
is charged; this module knows prices and nothing of Jinja. The allowance grows with the caller's own
messages, never with the template, so the same template and messages always end the same way, on
slow machines too. Imports the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from contextlib import contextmanager
from functools import singledispatch
from itertools import chain
from types import GeneratorType
from typing import Any

BASE_ALLOWANCE = 16_000_000
ALLOWANCE_PER_INPUT_UNIT = 64

STEP = 32
NODE = 8
SLOT = 8

MAX_DEPTH = 128
MAX_CALLS = 60
MAX_INTEGER = 2**61 - 2
"""Below the modulus of Python's hash of integers, so that no two of them collide by design."""
MAX_INTEGER_BITS = 16384
MAX_WIDTH = 10_000
MAX_RANGE = 100_000

# NOTE: both look ahead only, so that every "%" is tried as a start: what Python takes for a key or
# for a literal "%" must not hide the field that follows it.
_PERCENT_WIDTH = re.compile(r"(?=%(?:\([^()]*\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d+))?)")
_NESTED_KEY = re.compile(r"(?=%\([^()]*\()")
_SCALARS = frozenset({str, int, float, bool, type(None)})
_NUMBER = re.compile(r"\d+")


class OverBudget(Exception):
    """A template asked for more work, memory or nesting than one rendering is allowed."""


class Meter:
    """Count down one rendering's allowance.

    Args:
        n_input: what `measure` says of everything the caller hands to the template.
    """

    def __init__(self, n_input: int = 0) -> None:
        self._left = BASE_ALLOWANCE + ALLOWANCE_PER_INPUT_UNIT * n_input
        self._n_calls = 0

    def charge(self, units: int) -> None:
        """Spend `units`; below 1 counts as 1.

        Raises:
            OverBudget: nothing is left.
        """
        self._left -= max(units, 1)
        if self._left < 0:
            raise OverBudget("it asks for more work or memory than a rendering is allowed")

    @contextmanager
    def call(self) -> Iterator[None]:
        """Bound how deep macros, blocks and recursive loops nest."""
        self.charge(4 * STEP)
        self._n_calls += 1
        try:
            if self._n_calls > MAX_CALLS:
                raise OverBudget(f"its calls nest more than {MAX_CALLS} deep")
            yield
        finally:
            self._n_calls -= 1

    def weigh(self, *values: Any) -> int:
        """Charge for walking values with all they hold, shared parts as often as they occur."""
        weight = measure(values, self._left)
        self.charge(weight)
        return weight

    def width(self, value: Any) -> int:
        """Charge for padding up to `value` characters or items, if it is a number at all."""
        if not isinstance(value, int):
            return 0
        if abs(value) > MAX_WIDTH:
            raise OverBudget(f"it asks for a width or count over {MAX_WIDTH}")
        self.charge(abs(value))
        return abs(value)

    def text(self, value: Any) -> str:
        """Return `str(value)`, charged before it is made."""
        if isinstance(value, str):
            self.charge(len(value))
            return value
        # NOTE: repr spells some characters in up to ten; the factor keeps its memory in proportion.
        self.charge(4 * self.weigh(value))
        return str(value)

    def join(self, pieces: Iterable[str]) -> str:
        """Return the pieces as one string, charged before it is made."""
        texts = list(pieces)
        self.charge(sum(map(len, texts)))
        return "".join(texts)

    def settle(self, result: Any) -> Any:
        """Charge for a result; generators are drained now, so that no work hides in them."""
        if isinstance(result, str):
            self.charge(len(result))
        elif isinstance(result, (list, tuple, dict, set, frozenset)):
            self.charge(STEP * len(result))
        elif isinstance(result, int):
            check_bits(result)
        elif isinstance(result, GeneratorType):
            return iter(self._drain(result))
        return result

    def reusable(self, value: Any) -> Any:
        """Replace an iterator by one over a list that can be weighed; return others as they are."""
        return self._drain(value) if isinstance(value, Iterator) else value

    def _drain(self, values: Iterator[Any]) -> list[Any]:
        items = []
        for item in values:
            self.charge(STEP)
            items.append(item)
        return items

    def multiply(self, left: Any, right: Any) -> None:
        """Charge for `left * right` where one is a sequence."""
        for sequence, times in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(sequence, (str, list, tuple)):
                unit = 1 if isinstance(sequence, str) else SLOT
                self.charge(unit * len(sequence) * max(times, 0))

    def percent(self, pattern: str, values: Any) -> None:
        """Charge for `pattern % values`."""
        if _NESTED_KEY.search(pattern):
            raise OverBudget("it formats with a name in nested parentheses")
        for widths in _PERCENT_WIDTH.findall(pattern):
            for width in filter(None, widths):
                if width == "*":
                    raise OverBudget("it formats with a width of '*'")
                self.width(_number(width))
        self.charge(len(pattern) + pattern.count("%") * self.weigh(values))

    def format_spec(self, spec: str) -> None:
        """Charge for one field of `str.format`."""
        self.charge(2 * STEP + len(spec))
        for digits in _NUMBER.findall(spec):
            self.width(_number(digits))

    def replace(self, text: Any, old: Any, new: Any) -> None:
        """Charge for `text.replace(old, new)`."""
        weight = self.weigh(new)
        self.weigh(text, old)
        if isinstance(text, str):
            n_places = text.count(old) if isinstance(old, str) else len(text) + 1
            self.charge(n_places * (len(new) if isinstance(new, str) else 4 * weight))


def check_integer(value: Any) -> None:
    """Refuse integers that arithmetic could make slow; other values pass.

    Raises:
        OverBudget: `value` is an integer outside 61 bits.
    """
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise OverBudget("it calculates with a number of more than 61 bits")


def check_bits(value: int) -> None:
    """Refuse integers that take long even to print.

    Raises:
        OverBudget: `value` has more bits than any number in JSON that Python would print.
    """
    if value.bit_length() > MAX_INTEGER_BITS:
        raise OverBudget(f"it makes a number of more than {MAX_INTEGER_BITS} bits")


def measure(value: Any, limit: float = float("inf")) -> int:
    """Return how much there is of a value: its characters, and some units for every part.

    A part that is held twice counts twice, as in anything that prints or compares the value.

    Args:
        value: anything a template can hold.
        limit: the walk gives up past this many units.

    Raises:
        OverBudget: past `limit`, or parts nest more than MAX_DEPTH deep (hashing a deep tuple ends
            the process in CPython), or an integer is longer than any that Python prints.
    """
    total = 0
    walks: list[Iterator[Any]] = [iter((value,))]
    while walks:
        for item in walks[-1]:
            total += STEP + _own_size(item)
            if total > limit:
                raise OverBudget("it asks for more work or memory than a rendering is allowed")
            inner = None if type(item) in _SCALARS else parts(item)
            if inner is not None:
                walks.append(inner)
                break
        else:
            walks.pop()
        if len(walks) > MAX_DEPTH:
            raise OverBudget(f"it nests values more than {MAX_DEPTH} deep")
    return total


def _own_size(item: Any) -> int:
    if isinstance(item, str):
        return len(item)
    if isinstance(item, int):
        check_bits(item)
        return item.bit_length() // 8
    if isinstance(item, range):
        return SLOT * len(item)
    return 0


@singledispatch
def parts(item: Any) -> Iterator[Any] | None:
    """Return what a value holds and prints, or None for one that holds nothing; can be extended."""
    return None


@parts.register
def _(item: Mapping) -> Iterator[Any]:  # type: ignore[type-arg]
    return chain.from_iterable(item.items())


@parts.register(Sequence)
@parts.register(Set)
@parts.register(MappingView)
def _(item: Iterable[Any]) -> Iterator[Any]:
    return iter(item)


@parts.register(str)
@parts.register(bytes)
@parts.register(range)
def _(item: Any) -> None:
    return None


def _number(digits: str) -> int:
    # NOTE: digits beyond the widest width are not worth parsing, and Python refuses very long ones.
    return int(digits) if len(digits) < 9 else MAX_WIDTH + 1
