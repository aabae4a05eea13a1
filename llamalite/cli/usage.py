"""What is wrong with arguments that fit none of the forms a command's usage text has.

Owns which form comes nearest, and the words. Knows usage texts as docopt reads them, and arguments
as `argv.canonical` leaves them. Imports its sibling `argv` and `llamalite.errors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamalite.cli.argv import declared_options
from llamalite.errors import InvalidParameter

_OPTION = re.compile(r"(?<!\w)--?[a-z][\w-]*")
_PART = re.compile(r"\[[^]]*\](?:\.\.\.)?|\S+")
_GIVEN_BY_OPTIONS = re.compile(r" \[--\w[^]]*\]\.\.\.")


@dataclass(frozen=True)
class _Form:
    """One way of calling a command.

    Attributes:
        text: as the usage has it, in one line.
        actions: words that stand there as they are: `set`.
        places: names of the positional arguments, without brackets and dots.
        n_needed: how many of them must be there.
        is_open: the last one may be repeated.
        options: those it takes, by long name; `demanded` those it doesn't go without.
        choices: options of which only one may be given.
    """

    text: str
    actions: tuple[str, ...]
    places: tuple[str, ...]
    n_needed: int
    is_open: bool
    options: frozenset[str]
    demanded: frozenset[str]
    choices: tuple[frozenset[str], ...]

    def distance(self, options: set[str], words: Sequence[str]) -> tuple[int, int, int]:
        """Return how far arguments are from this form, to be compared."""
        n_words = len(words) - len(self.actions)
        return (
            self.actions != tuple(words[: len(self.actions)]),
            len(options - self.options) + len(self.demanded - options),
            max(self.n_needed - n_words, 0) + 2 * len(self.excess(words)),
        )

    def excess(self, words: Sequence[str]) -> Sequence[str]:
        """Return the words that have no place."""
        return () if self.is_open else words[len(self.actions) + len(self.places) :]

    def fault(self, options: set[str], words: Sequence[str]) -> str:
        """Say what is wrong with arguments to which this form comes nearest."""
        for choice in self.choices:
            if len(both := sorted(choice & options)) > 1:
                return f"{' and '.join(both)} exclude each other"
        if odd := sorted(options - self.options):
            return f"{' and '.join(odd)} {_has(odd)} no place there"
        missing = self.places[len(words) - len(self.actions) : self.n_needed]
        if missing:
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        if excess := self.excess(words):
            return f"{_cut(excess[0])} is one too many"
        return "they don't go together"


def wrong_arguments(usage: str, command: str, arguments: Sequence[str]) -> InvalidParameter:
    """Return the error for arguments that docopt refused.

    Args:
        usage: the command's usage text.
        command: its name.
        arguments: as `argv.canonical` returns them.
    """
    forms = list(_forms(usage, command))
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    options = {x.partition("=")[0] for x in arguments[:end] if x.startswith("--")}
    words = [x for x in arguments[:end] if not x.startswith("--")] + [*arguments[end + 1 :]]
    form = min(forms, key=lambda form: form.distance(options, words))
    if form.distance(options, words)[0]:
        actions = ", ".join(dict.fromkeys(form.actions[0] for form in forms))
        said = f"{_cut(words[0])} is none of {actions}" if words else f"give one of {actions}"
        return InvalidParameter(f"wrong arguments: {said}: see 'llamalite {command} --help'")
    hint = " (text of several words goes in quotes)" if "PROMPT" in form.places else ""
    return InvalidParameter(
        f"wrong arguments: {form.fault(options, words)}{hint}; usage: {form.text}"
    )


def _forms(usage: str, command: str) -> Iterable[_Form]:
    body = " ".join(usage.partition("Usage:")[2].partition("\n\n")[0].split())
    start = f"llamalite {command}"
    declared = declared_options(usage)
    for rest in body.split(start)[1:]:
        text = rest.strip()
        if text.startswith("[options]"):
            text = _GIVEN_BY_OPTIONS.sub("", text)
        parts = [part for part in _PART.findall(text) if part not in ("[--]", "[options]")]
        flags = [frozenset(declared[name].name for name in _OPTION.findall(part)) for part in parts]
        words = [part for part, found in zip(parts, flags, strict=True) if not found]
        places = [word for word in words if not word.islower()]
        is_all = text.startswith("[options]")
        yield _Form(
            text=f"{start} {text}".strip(),
            actions=tuple(word for word in words if word.islower()),
            places=tuple(place.strip("[].") for place in places),
            n_needed=sum(not place.startswith("[") for place in places),
            is_open=any(place.rstrip("]").endswith("...") for place in places),
            options=frozenset(o.name for o in declared.values()) if is_all else _all(flags),
            demanded=_all(
                found for part, found in zip(parts, flags, strict=True) if part[0] != "["
            ),
            choices=tuple(found for part, found in zip(parts, flags, strict=True) if "|" in part),
        )


def _all(groups: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*groups)


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _cut(word: str) -> str:
    return repr(word if len(word) <= 60 else word[:60] + "…")
