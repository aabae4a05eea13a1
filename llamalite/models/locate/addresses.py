"""Models at addresses: `https://…gguf`, `http://…gguf` and `file://…`.

May import `libs`, `store`, `names` and `errors`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from llamalite.errors import InvalidParameter
from llamalite.models.names.safety import shown

_SCHEMES = ("https", "http", "file")


def is_address(text: str) -> bool:
    """Say whether a name is an address.

    Raises:
        InvalidParameter: it is one, and of a kind that nothing is fetched from.
    """
    scheme, separator, _ = text.partition("://")
    if not separator or scheme.lower() == "hf" or not scheme.isalnum():
        return False
    if scheme.lower() not in _SCHEMES:
        raise InvalidParameter(
            f"{shown(text)}: models are fetched from addresses that begin with https://, http:// "
            f"or file://, not {scheme}://",
            param="model",
        )
    return True


def local_path(address: str) -> Path | None:
    """Return the path that a `file://` address names; None for the others.

    Raises:
        InvalidParameter: it names another computer.
    """
    parts = urlsplit(address)
    if parts.scheme.lower() != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise InvalidParameter(
            f"{shown(address)} names the computer {parts.netloc}: a file here has three slashes, "
            f"file:///folder/model.gguf",
            param="model",
        )
    # PERF: importing this takes as long as Python's own start.
    from urllib.request import url2pathname

    return Path(url2pathname(parts.path))


def find_address(address: str) -> Path | None:
    """Return the file that was fetched from an address, or None."""
    from llamalite.libs.transfer.wording import without_login
    from llamalite.models.store.records import all_records

    origin = without_login(address)
    for record in all_records().values():
        if record.source == "url" and record.origin == origin and Path(record.path).is_file():
            return Path(record.path)
    return None
