"""Check GBNF grammars in Python, so that libllama never gets one it chokes on.

libllama's own parser prints to stderr and returns NULL on a syntax error, and some builds recurse
without end or allocate without bound on grammars that parse. This module owns the syntax: what
every build from b5640 on reads. `grammar_graph` owns recursion and cost. Neither knows vocabularies
or native calls. Imports the standard library and `llamalite.errors`.

Stricter than libllama on purpose, because it would read something else than what is written or die
later: a rule defined twice (the last one would win), an empty class `[]`, a range that runs
backwards, `{m,n}` with m > n, 2000 repetitions or more, token references (`<think>`, `<[12]>`:
builds before 2026 lack them), and the escape `\\-` (newest builds only).

Source: llama.h `llama_sampler_init_grammar`; llama.cpp grammars/README.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from llamalite.constraint.grammar_graph import Item, Rule, check_recursion
from llamalite.errors import ConstraintError

MAX_BYTES = 1 << 20
"""Longest grammar text, in UTF-8."""
MAX_NESTING = 256
"""Deepest nesting of parentheses; libllama recurses once for each."""
MAX_REPETITIONS = 1999
"""Most copies that stacked repetitions may make of one rule; libllama's own bound."""
MAX_ELEMENTS = 250_000
"""Most elements after repetitions are written out, as libllama does."""

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_COUNT = re.compile(r"[0-9]+")
_ESCAPE = re.compile(r'\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([tnr\\"\[\]]))')
_CONTROL = {"t": "\t", "n": "\n", "r": "\r"}


def check_grammar(text: str, root: str = "root") -> None:
    """Raise unless `text` is a GBNF grammar that libllama can run from rule `root`.

    Raises:
        ConstraintError: with line and column where there is one; `param` is "grammar".
    """
    if "\0" in text:
        raise ConstraintError("the grammar contains a NUL character: remove it", param="grammar")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ConstraintError(
            f"the grammar is not valid Unicode (character {error.start + 1}): save it as UTF-8",
            param="grammar",
        ) from None
    if size > MAX_BYTES:
        raise ConstraintError(
            f"the grammar has {size} bytes and at most {MAX_BYTES} are allowed", param="grammar"
        )
    parser = _Parser(text)
    parser.parse()
    parser.check_names(root)
    check_recursion(parser.rules)


@dataclass
class _Frame:
    """A rule or group being read: its rule, and what the next repetition sign applies to."""

    rule: Rule
    opened_at: int
    n_symbols_before: int
    sequence: list[Item] = field(default_factory=list)
    n_elements: int = 0  # elements of the last item; 0 = there is nothing to repeat
    n_copies: int = 1  # rules that the last item stands for, as libllama counts them


class _Parser:
    """One pass over the text; `rules` holds named rules first seen and groups, by number."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.rules: list[Rule] = []
        self._numbers: dict[str, int] = {}
        self._defined_at: dict[str, int] = {}
        self._used_at: dict[str, int] = {}
        self._n_symbols = 0
        self._n_elements = 0
        self._frames: list[_Frame] = []

    def fail(self, message: str, pos: int | None = None) -> NoReturn:
        """Raise with the line and column of `pos` (default: the current position)."""
        pos = min(self.pos if pos is None else pos, len(self.text))
        line = self.text.count("\n", 0, pos) + 1
        column = pos - (self.text.rfind("\n", 0, pos) + 1) + 1
        message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        raise ConstraintError(f"grammar line {line}, column {column}: {message}", param="grammar")

    def parse(self) -> None:
        self._skip(lines=True)
        while self.pos < len(self.text):
            self._rule()
        if not self._defined_at:
            raise ConstraintError("the grammar is empty: it defines no rule", param="grammar")

    def check_names(self, root: str) -> None:
        for name, pos in self._used_at.items():
            if name not in self._defined_at:
                self.fail(f"rule {name!r} is used but not defined", pos)
        if root not in self._defined_at:
            raise ConstraintError(f"the grammar defines no rule {root!r}", param="grammar")

    # -- text ---------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self.text[self.pos : self.pos + 1]

    def _found(self) -> str:
        char = self._peek()
        return repr(char) if char else "the end of the grammar"

    def _skip(self, *, lines: bool) -> None:
        match = (_SPACE_AND_LINES if lines else _SPACE).match(self.text, self.pos)
        assert match is not None
        self.pos = match.end()

    def _skip_after(self, n_chars: int) -> None:
        """Step over a sign and the space behind it; line ends count as space inside a group."""
        self.pos += n_chars
        self._skip(lines=len(self._frames) > 1)

    # -- rules --------------------------------------------------------------------------------

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.rules)
            self.rules.append(Rule(name))
            self._n_symbols += 1
        return self._numbers[name]

    def _rule(self) -> None:
        start = self.pos
        match = _NAME.match(self.text, start)
        if match is None:
            self.fail(f"expected a rule name (letters, digits, -), found {self._found()}")
        name = match.group()
        self.pos = match.end()
        self._skip(lines=False)
        if not self.text.startswith("::=", self.pos):
            self.fail(f"expected '::=' after rule name {name!r}, found {self._found()}")
        if name in self._defined_at:
            first = self.text.count("\n", 0, self._defined_at[name]) + 1
            self.fail(f"rule {name!r} is defined twice (first on line {first})", start)
        self._defined_at[name] = start
        self.pos += 3
        self._skip(lines=True)
        number = self._number(name)
        self._frames = [_Frame(self.rules[number], start, self._n_symbols)]
        self._alternatives()
        if self.pos < len(self.text) and self._peek() not in "\r\n":
            self._unexpected()
        self._skip(lines=True)

    def _unexpected(self) -> NoReturn:
        char = self._peek()
        if char == ")":
            self.fail("')' without a '(' before it")
        if char in "<!":
            self.fail("token references (<...>, !<...>) are not supported: spell the text out")
        if char == "_":
            self.fail("rule names have letters, digits and '-', no '_'")
        if self.text.startswith("::=", self.pos):
            self.fail("'::=' inside a rule: put each rule on its own line")
        self.fail(f"expected an item, '|' or the end of the line, found {self._found()}")

    def _alternatives(self) -> None:
        """Read until the rule ends; groups push and pop frames instead of recursing."""
        while True:
            frame, char = self._frames[-1], self._peek()
            if char == '"':
                self._literal()
            elif char == "[":
                self._char_class()
            elif char == ".":
                self._push_item(Item(), 1)
                self._skip_after(1)
            elif char and char in "*+?{":
                self._repetition()
            elif char == "(":
                self._open_group()
            elif char == "|":
                frame.rule.alternatives.append(frame.sequence)
                frame.sequence, frame.n_elements = [], 0
                self.pos += 1
                self._skip(lines=True)
            elif char == ")" and len(self._frames) > 1:
                self._close_group()
            elif match := _NAME.match(self.text, self.pos):
                self._reference(match.group())
            else:
                break
        if len(self._frames) > 1:
            if self.pos < len(self.text):
                self._unexpected()
            self.fail("this '(' is never closed", frame.opened_at)
        frame.rule.alternatives.append(frame.sequence)

    # -- items --------------------------------------------------------------------------------

    def _push_item(self, item: Item, n_elements: int, n_copies: int = 1) -> None:
        frame = self._frames[-1]
        frame.n_elements, frame.n_copies = n_elements, n_copies
        if n_elements:
            frame.sequence.append(item)
            self._count(n_elements)

    def _count(self, n_elements: int) -> None:
        self._n_elements += n_elements
        if self._n_elements > MAX_ELEMENTS:
            self.fail(
                f"the grammar grows beyond {MAX_ELEMENTS} elements: use fewer or smaller {{m,n}}"
            )

    def _reference(self, name: str) -> None:
        self._used_at.setdefault(name, self.pos)
        self._push_item(Item(self._number(name)), 1)
        self._skip_after(len(name))

    def _open_group(self) -> None:
        if len(self._frames) > MAX_NESTING:
            self.fail(f"parentheses are nested more than {MAX_NESTING} deep")
        owner = self._frames[-1].rule
        group = Rule(owner.name)
        self._frames.append(_Frame(group, self.pos, self._n_symbols))
        self._n_symbols += 1
        self.pos += 1
        self._skip(lines=True)

    def _close_group(self) -> None:
        group = self._frames.pop()
        group.rule.alternatives.append(group.sequence)
        number = len(self.rules)
        self.rules.append(group.rule)
        self._push_item(Item(number), 1, max(1, self._n_symbols - group.n_symbols_before))
        self._skip_after(1)

    def _char(self) -> int:
        """Read one character or escape; return its code point."""
        char = self._peek()
        if char != "\\":
            self.pos += 1
            return ord(char)
        match = _ESCAPE.match(self.text, self.pos)
        if match is None:
            shown = self.text[self.pos : self.pos + 2]
            known = r"\n \t \r \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH"
            self.fail(f"unknown or incomplete escape {shown}; known are {known}")
        self.pos = match.end()
        hexadecimal = match[1] or match[2] or match[3]
        return int(hexadecimal, 16) if hexadecimal else ord(_CONTROL.get(match[4], match[4]))

    def _literal(self) -> None:
        start = self.pos
        self.pos += 1
        n_chars = 0
        while self._peek() != '"':
            if self.pos >= len(self.text):
                self.fail("this '\"' is never closed", start)
            self._char()
            n_chars += 1
        self._push_item(Item(), n_chars)
        self._skip_after(1)

    def _char_class(self) -> None:
        start = self.pos
        self.pos += 2 if self.text.startswith("[^", start) else 1
        n_elements = 0
        while self._peek() != "]":
            if self.pos >= len(self.text):
                self.fail("this '[' is never closed", start)
            at = self.pos
            low = self._char()
            n_elements += 1
            if self._peek() == "-" and self.text[self.pos + 1 : self.pos + 2] != "]":
                self.pos += 1
                if self.pos >= len(self.text):
                    self.fail("this '[' is never closed", start)
                if self._char() < low:
                    self.fail(f"the range {self.text[at : self.pos]} runs backwards", at)
                n_elements += 1
        if not n_elements:
            self.fail("an empty character class: escape a ']' inside a class as \\]", start)
        self._push_item(Item(), n_elements)
        self._skip_after(1)

    # -- repetition ---------------------------------------------------------------------------

    def _repetition(self) -> None:
        start, sign = self.pos, self._peek()
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign, (0, 0))
        if sign == "{":
            low, high = self._bounds()
        else:
            self._skip_after(1)
        frame = self._frames[-1]
        if not frame.n_elements:
            self.fail(f"nothing before {self.text[start : start + 1]!r} to repeat", start)
        # NOTE: an unbounded high weighs as its low, and a zero as one: libllama's own count.
        n_copies = frame.n_copies * (high or low or 1)
        if n_copies > MAX_REPETITIONS:
            self.fail(f"{n_copies} repetitions of one item, at most {MAX_REPETITIONS} work", start)
        self._apply(frame, low, high)
        frame.n_copies = n_copies

    def _bounds(self) -> tuple[int, int | None]:
        start = self.pos
        self._skip_after(1)
        low = self._bound()
        high: int | None = low
        if self._peek() == ",":
            self._skip_after(1)
            high = None if self._peek() == "}" else self._bound()
        if self._peek() != "}":
            self.fail(f"expected '}}' to end a repetition, found {self._found()}")
        if high is not None and high < low:
            self.fail(f"a repetition from {low} to {high} runs backwards", start)
        self._skip_after(1)
        return low, high

    def _bound(self) -> int:
        match = _COUNT.match(self.text, self.pos)
        if match is None:
            self.fail(f"expected a number in a repetition, found {self._found()}")
        # A number of a million digits would take int() seconds, and some Pythons refuse it.
        if len(match.group()) > 9 or int(match.group()) > MAX_REPETITIONS:
            self.fail(f"a repetition of more than {MAX_REPETITIONS}: not every libllama takes it")
        self._skip_after(len(match.group()))
        return int(match.group())

    def _apply(self, frame: _Frame, low: int, high: int | None) -> None:
        """Put the repetition on the last item, counting what libllama writes out for it."""
        last = frame.sequence.pop()
        if high == 0:
            frame.n_elements = 0
            return
        if (last.low, last.high) != (1, 1):
            self.rules.append(Rule(frame.rule.name, [[last]]))
            last = Item(len(self.rules) - 1)
        frame.sequence.append(Item(last.rule, low, high))
        n_optional = 1 if high is None else high - low
        self._n_symbols += n_optional
        copies = max(low - 1, 0) * frame.n_elements
        self._count(copies + n_optional * (frame.n_elements + 3))
        frame.n_elements = low * frame.n_elements + (n_optional > 0)
