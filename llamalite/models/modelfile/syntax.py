'''A Modelfile's lines: directives with their values, which quotes may carry over several lines.

Owns quoting in both directions; doesn't know what directives mean. As in Ollama, there are no
escapes: a value that begins with `"` or `"""` goes on to the next line that ends with the same.
May import `errors` alone.
'''

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llamalite.errors import InvalidParameter

_QUOTES = ('"""', '"')
_WORDED = {"PARAMETER", "MESSAGE"}
_LONGEST_WORD = 60
_UNQUOTED = {"ADAPTER"}  # quotes may be around its path alone


@dataclass(frozen=True)
class Directive:
    """One directive.

    Attributes:
        where: file and line, for messages.
        name: upper case.
        value: what follows, without quotes if they were around all of it.
        word: the first word of what follows where the directive has one before its value (the
            name of a parameter, the role of a message), else "".
    """

    where: str
    name: str
    value: str
    word: str = ""


def read_directives(text: str, where: str) -> Iterator[Directive]:
    """Yield the directives of a Modelfile.

    Args:
        text: the whole file.
        where: the file, for messages.

    Raises:
        InvalidParameter: a directive has no value, its name or first word is longer than any that
            is known, or a quoted value doesn't end.
    """
    lines = iter(enumerate(_lines(text), 1))
    for number, line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, rest = _first_word(stripped)
        name, at, word = name.upper(), f"{where}, line {number}", ""
        if name in _WORDED:
            word, rest = _first_word(rest)
        if too_long := next((text for text in (name, word) if len(text) > _LONGEST_WORD), None):
            begun = too_long[:_LONGEST_WORD]
            raise InvalidParameter(f"{at}: {begun!r}… is longer than any word that may be there")
        quote = next((quote for quote in _QUOTES if rest.startswith(quote)), None)
        if quote is not None and name not in _UNQUOTED:
            # What is before the value has been stripped, what is in it must not be.
            begun = line.lstrip()[len(stripped) - len(rest) + len(quote) :]
            rest = _quoted(begun, quote, lines, at)
        elif not rest:
            raise InvalidParameter(f"{at}: {name} {word}".rstrip() + " has no value: give it one")
        yield Directive(at, name, rest, word)


def write_value(value: str, where: str) -> str:
    """Return a value as it is written in a Modelfile, in quotes where it needs them.

    Raises:
        InvalidParameter: no quotes can hold it.
    """
    plain = value == value.strip() and "\n" not in value and value and not value.startswith('"')
    if plain:
        return value
    for quote in reversed(_QUOTES) if "\n" not in value else _QUOTES:
        *within, _ = value.split("\n")
        early = any(line.rstrip().endswith(quote) for line in within)
        written = f"{quote}{value}{quote}"
        if not early and (quote == '"""' or not written.startswith('"""')):
            return written
    raise InvalidParameter(f"{where} has lines that end with quotes: a Modelfile can't hold that")


def _lines(text: str) -> list[str]:
    text = text.removeprefix("\ufeff")
    lines = text.split("\n" if "\n" in text else "\r")  # as Macs once had it
    from_windows = len(lines) > 1 and all(line.endswith("\r") for line in lines[:-1])
    return [line.removesuffix("\r") for line in lines] if from_windows else lines


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(None, 1) or [""]
    return word, rest[0] if rest else ""


def _quoted(begun: str, quote: str, lines: Iterator[tuple[int, str]], at: str) -> str:
    """Return a quoted value, taking lines until one ends with the quotes."""
    value = [begun]
    while not value[-1].rstrip().endswith(quote):
        following = next(lines, None)
        if following is None:
            raise InvalidParameter(f"{at}: the value begins with {quote} and doesn't end with it")
        value.append(following[1])
    value[-1] = value[-1].rstrip().removesuffix(quote)
    return "\n".join(value)
