"""A command's options after docopt has read them, as values of the right type.

Owns what is said about numbers and files that can't be read. Only module that imports docopt.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from llamalite.cli import terminal
from llamalite.cli.argv import canonical, declared_options
from llamalite.errors import InvalidParameter
from llamalite.libs.transfer.wording import size_text

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST_TEXT = 100_000_000


class Options:
    """What was given on the command line, by long name (`--top-k`) or place (`MODEL`)."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def text(self, name: str) -> str | None:
        """Return an option's value as it is, or None."""
        value = self._values[name]
        return None if value is None else checked_text(str(value), name)

    def texts(self, name: str) -> list[str]:
        """Return all values of a repeatable option."""
        return [checked_text(str(value), name) for value in self._values[name]]

    def flag(self, name: str) -> bool:
        """Say whether a flag was given."""
        return bool(self._values[name])

    def count(self, name: str) -> int:
        """Return how often a repeatable flag was given."""
        return int(self._values[name])

    def whole(self, name: str, low: int | None = None) -> int | None:
        """Return an option's value as a whole number of at least `low`, or None."""
        value = self.text(name)
        if value is None:
            return None
        if not _WHOLE.fullmatch(value):
            raise InvalidParameter(f"{name} must be a whole number, not {shown(value)}", param=name)
        if low is not None and int(value) < low:
            raise InvalidParameter(f"{name} must be at least {low}, not {value}", param=name)
        return int(value)

    def number(self, name: str) -> float | None:
        """Return an option's value as a number, or None."""
        value = self.text(name)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise InvalidParameter(f"{name} must be a number, not {shown(value)}", param=name)
        return float(value)

    def file_text(self, name: str, most: int = _LONGEST_TEXT) -> str | None:
        """Return the text of the file that an option names (`-` = stdin), or None.

        Raises:
            InvalidParameter: it can't be read, or has more than `most` bytes.
        """
        path = self.text(name)
        if path is None:
            return None
        return read_stdin(most) if path == "-" else read_file(path, name, most)


def parse(usage: str | None, command: str, argv: list[str]) -> Options | None:
    """Read a command's arguments by its usage text; print that and return None for `--help`.

    Raises:
        InvalidParameter: the arguments don't fit the usage.
    """
    import docopt

    if not usage:
        raise InvalidParameter("Python's -OO removes the usage texts: run it without -OO")
    arguments = canonical(argv, declared_options(usage), command)
    if "--help" in arguments:
        terminal.write(usage.strip() + "\n")
        return None
    try:
        return Options(dict(docopt.docopt(usage, [command, *arguments], default_help=False)))
    except docopt.DocoptExit:
        from llamalite.cli.usage import wrong_arguments

        raise wrong_arguments(usage, command, arguments) from None


def shown(value: str) -> str:
    """Return a value in quotes for a message, cut if it is long."""
    return repr(value if len(value) <= 60 else value[:60] + "…")


def checked_text(value: str, name: str) -> str:
    """Return text if it is valid Unicode: arguments in another encoding arrive damaged."""
    if not any("\ud800" <= char <= "\udfff" for char in value):
        return value
    try:
        # In a locale without UTF-8 Python decodes arguments byte by byte: undo that.
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:
        raise InvalidParameter(f"{name} is not valid UTF-8", param=name) from None


def read_stdin(most: int = _LONGEST_TEXT) -> str:
    """Return all of stdin as text; more than `most` bytes are refused."""
    if sys.stdin is None:
        raise InvalidParameter("there is nothing to read: stdin is closed", param="prompt")
    return _decode(sys.stdin.buffer.read(most + 1), "stdin", most)


def read_file(path: str, name: str, most: int = _LONGEST_TEXT) -> str:
    """Return a file's text, of at most `most` bytes; `name` is the option that names the file."""
    try:
        with open(path, "rb") as stream:  # a device may have no end
            content = stream.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{name}: can't read {path}: {reason}", param=name) from None
    return _decode(content, path, most)


def _decode(content: bytes, where: str, most: int) -> str:
    if len(content) > most:
        raise InvalidParameter(f"{where} has more than {size_text(most)}: give a shorter text")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidParameter(
            f"{where} is not valid UTF-8 (byte {error.start}): convert it first"
        ) from None
