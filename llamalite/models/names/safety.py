"""Which names may become names of files.

Owns what is refused: whatever could lead out of a folder, on any system, so that what one computer
accepts another does too. Pure: touches neither disk nor network. May import `errors` alone.
"""

from __future__ import annotations

import re

from llamalite.errors import InvalidParameter

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.I)
_NAME = re.compile(r"[^\W_][\w.:+-]*")
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_PART = 255
_LONGEST_NAME = 100


def check_file_name(path: str, where: str) -> str:
    """Return a relative path with forward slashes if it leads nowhere but down.

    Args:
        path: of a file in a repository, or one made from an address.
        where: what gave it, for the message: "owner/repo", an address.

    Raises:
        InvalidParameter: it is empty or absolute, has `..`, backslashes, colons or control
            characters, or a part that Windows reserves or would change.
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


def check_name(name: str, what: str) -> str:
    """Return the name of an alias or a preset if it can be one.

    Args:
        name: as the user gave it.
        what: what it names, for the message: "the alias", "the preset".

    Raises:
        InvalidParameter: it isn't made of letters, digits and `.:+-_`, or would read as a path, a
            Hub reference, an address or an option.
    """
    reason = None
    if not _NAME.fullmatch(name):
        reason = "must begin with a letter or digit and hold only letters, digits and . : + - _"
    elif len(name) > _LONGEST_NAME:
        reason = f"has more than {_LONGEST_NAME} characters"
    elif _DRIVE.match(name) or name.lower().startswith("hf:"):
        reason = "would read as a path or a Hub reference"
    elif name.lower().endswith(".gguf"):
        reason = "would read as a file's name"
    elif _RESERVED.fullmatch(name.partition(":")[0]) or name[-1] in ".:":
        reason = "can't be a file's name everywhere"
    if reason:
        raise InvalidParameter(f"{what} {shown(name)} {reason}: choose another", param="name")
    return name


def unsafe_reason(path: str) -> str | None:
    """Say in a few words why a relative path may not be used, or None if it may."""
    if not path:
        return "is empty"
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


def shown(name: str) -> str:
    """Return a name in quotes for a message, cut if it is long."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


def _unsafe_part(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"has the part {part!r}"
    if ":" in part:
        return "holds a colon"
    if part[-1] in ". ":
        return "has a part that ends with a dot or a space"
    if _RESERVED.fullmatch(part):
        return f"has the part {part!r}, which Windows reserves"
    if len(part.encode("utf-8", "replace")) > _LONGEST_PART:
        return f"has a part of more than {_LONGEST_PART} bytes"
    return None
