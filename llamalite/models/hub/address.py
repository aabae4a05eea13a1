"""Where the Hugging Face Hub is, whether it answers, and who it is told is asking.

Owns `HF_ENDPOINT`, what of it may be shown, and for whom the user's token is. Doesn't know what is
asked. May import `libs`, `config` and `errors`; huggingface_hub only inside functions, because
importing it takes a third of a second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from llamalite import config
from llamalite.errors import DownloadError, Offline, Unreachable
from llamalite.libs.transfer.wording import one_line, without_login, without_password

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_ADDRESS = re.compile(r"https?://[^/]", re.I)


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
    """Return the headers that say who is asking; none for other hosts than the Hub's own.

    Raises:
        DownloadError: what should be a token is none; it is not sent, so no error repeats it.
    """
    if not is_hub(url):
        return {}
    from huggingface_hub import constants

    token = "" if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else _token()
    if not (token.isascii() and token.isprintable()):
        name = "HF_TOKEN" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
        raise DownloadError(f"{name} holds characters that no token has: copy the token anew")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token() -> str:
    """Return the user's token, as it is; "" where there is none, or its file can't be read."""
    from huggingface_hub import get_token

    try:
        return get_token() or ""
    except (OSError, ValueError):
        return ""
    # One that is asked for anew fails in the ways of whoever gives it.
    except Exception as error:
        said = one_line(without_password(str(error)))
        raise DownloadError(f"no token can be had for the Hub ({said}): log in again") from error


def is_hub(url: str) -> bool:
    """Say whether an address is one of the Hub's own host."""
    try:
        return _origin(url) == _origin(endpoint())
    except ValueError:  # that is no address at all
        return False


def check_reachable(wanted: str) -> None:
    """Raise an error if the Hub may not be asked, or doesn't answer within three seconds.

    huggingface_hub itself goes on trying for half a minute.

    Args:
        wanted: what would be asked for, for the message.

    Raises:
        Offline: network use is switched off.
        Unreachable: the Hub doesn't answer.
        DownloadError: its address is none.
    """
    # PERF: imported when asked for, because it imports ssl.
    from llamalite.libs.transfer.reach import unreachable_reason

    if config.is_offline():
        raise Offline(
            f"LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids fetching {wanted} from {place()}: unset "
            f"it, or give the path of a GGUF file"
        )
    if not _ADDRESS.match(endpoint()):
        raise DownloadError(f"HF_ENDPOINT is {place()}, and must begin with https:// or http://")
    if reason := unreachable_reason(endpoint()):
        raise Unreachable(f"{place()} can't be reached ({without_ours(reason)})")


@contextmanager
def leading_on(consequence: str) -> Iterator[None]:
    """Say of a Hub that doesn't answer what to do about it.

    Args:
        consequence: begins the message.

    Raises:
        Unreachable: the same, with more to say.
    """
    try:
        yield
    except Unreachable as error:
        raise Unreachable(
            f"{consequence}, and {error}: check the network, set HF_ENDPOINT to a mirror, or "
            f"give the path of a GGUF file"
        ) from error


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
