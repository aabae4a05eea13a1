"""Where the Hugging Face Hub is, whether it answers, and who it is told is asking.

Owns `HF_ENDPOINT`, what of it may be shown, and for whom the user's token is. Doesn't know what is
asked. May import `libs`, `config` and `errors`; huggingface_hub only inside functions, because
importing it takes a third of a second.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

from llamalite import config
from llamalite.errors import DownloadError, Offline
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.wording import without_login

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)


def endpoint() -> str:
    """Return the Hub's address, without a slash at its end: `HF_ENDPOINT`, else the public one.

    It may hold a password: `place` is for messages.
    """
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def place() -> str:
    """Return the Hub's address for people."""
    return without_login(endpoint())


def page(repo: str) -> str:
    """Return the address of a repository's page, for people."""
    return f"{place()}/{repo}"


def file_url(repo: str, file: str, revision: str = "main") -> str:
    """Return the address of a file's content."""
    return f"{endpoint()}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def without_ours(text: str) -> str:
    """Return what others say without the login that `HF_ENDPOINT` may hold."""
    login = _SCHEME.sub("", endpoint(), count=1).rpartition("@")[0]
    return text.replace(login, "…") if login else text


def identity(url: str) -> dict[str, str]:
    """Return the headers that say who is asking; none for other hosts than the Hub's own."""
    from huggingface_hub import constants, get_token

    if not is_hub(url) or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return {}
    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def is_hub(url: str) -> bool:
    """Say whether an address is one of the Hub's own host."""
    return _origin(url) == _origin(endpoint())


def check_reachable(wanted: str) -> None:
    """Raise an error if the Hub may not be asked, or doesn't answer within three seconds.

    huggingface_hub itself goes on trying for half a minute.

    Args:
        wanted: what would be asked for, for the message.

    Raises:
        Offline: network use is switched off.
        DownloadError: the Hub doesn't answer.
    """
    if config.is_offline():
        raise Offline(
            f"LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids fetching {wanted} from {place()}: unset "
            f"it, or give the path of a GGUF file"
        )
    if reason := unreachable_reason(endpoint()):
        raise DownloadError(f"{place()} can't be reached ({without_ours(reason)})")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
