"""Names that a person gives to models: which can be one.

Owns that rule, for the store's names and the configuration's alike. Imports the standard library
and `llamalite.errors`.
"""

from __future__ import annotations

import re
import unicodedata

from llamalite.errors import InvalidParameter

RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.I)
"""Names that Windows has taken, whatever their suffix."""

_NAME = re.compile(r"[^\W_][\w.:+-]*")
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST = 100


def check_name(name: str, what: str, *, param: str = "name") -> str:
    """Return the name of an alias or a preset, its accents composed, if it can be one.

    Args:
        name: as the user gave it.
        what: what it names, for the message: "the alias", "the preset".
        param: for the error.

    Raises:
        InvalidParameter: it isn't made of letters, digits and `.:+-_`, or would read as a path, a
            Hub reference, an address or an option.
    """
    name, reason = unicodedata.normalize("NFC", name), None
    if not _NAME.fullmatch(name):
        reason = "must begin with a letter or digit and hold only letters, digits and . : + - _"
    elif len(name) > _LONGEST:
        reason = f"has more than {_LONGEST} characters"
    elif _DRIVE.match(name) or name.lower().startswith("hf:"):
        reason = "would read as a path or a Hub reference"
    elif name.lower().endswith(".gguf"):
        reason = "would read as a file's name"
    elif RESERVED.fullmatch(name.partition(":")[0]) or name[-1] in ".:":
        reason = "can't be a file's name everywhere"
    if reason:
        raise InvalidParameter(f"{what} {shown(name)} {reason}: choose another", param=param)
    return name


def shown(name: str) -> str:
    """Return a name in quotes for a message, cut if it is long."""
    return repr(name if len(name) <= 100 else name[:100] + "…")
