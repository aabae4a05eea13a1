"""Models at addresses: `https://…gguf`, `http://…gguf` and `file://…`.

May import `libs`, `store`, `hub`, `names` and `errors`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from llamalite.errors import InvalidParameter
from llamalite.libs.transfer.wording import without_login
from llamalite.models.locate.paths import is_file
from llamalite.models.names.reference import PUBLIC
from llamalite.models.names.safety import shown

_SCHEMES = ("https", "http", "file")


def is_address(text: str) -> bool:
    """Say whether a name is an address.

    Raises:
        InvalidParameter: it is one, and malformed or of a kind that nothing is fetched from.
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
    try:
        _ = urlsplit(text).port
    except ValueError:  # whose text may hold the login
        raise InvalidParameter(
            f"{shown(without_login(text))} is no address: check its host and port", param="model"
        ) from None
    return True


def without_endpoint(text: str) -> str:
    """Return an address of the Hub that `HF_ENDPOINT` names as the public Hub's; others as are."""
    from llamalite.models.hub.address import endpoint, is_hub

    if "://" not in text or not is_hub(text):
        return text
    folder = urlsplit(endpoint()).path
    path = text.split("/", 3)[3:]
    if not path or not f"/{path[0]}".startswith(f"{folder}/"):
        return text
    return PUBLIC + f"/{path[0]}".removeprefix(folder)


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
    from llamalite.models.store.records import all_records

    origin = without_login(address)
    records = all_records().values()
    paths = [Path(r.path) for r in records if r.source == "url" and r.origin == origin]
    if not paths:
        return None
    from llamalite.models.url import url_path  # PERF: it imports what asks the network

    # The query isn't in the origin, but in the path.
    tail = f"/{url_path(address)}"
    return next((p for p in paths if p.as_posix().endswith(tail) and is_file(p)), None)
