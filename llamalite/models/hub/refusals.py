"""What it means that the Hub, or another web server, refuses or doesn't answer, in plain words.

Owns those words. May import `address`, `asking`, `libs` and `errors`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llamalite.models.hub.address import endpoint, identity, is_hub, page, without_ours
from llamalite.models.hub.asking import seconds_of

if TYPE_CHECKING:
    from llamalite.libs.transfer.web import Refused, Unanswered


def refusal(
    status: int, phrase: str, code: str, repo: str | None, retry_after: str | None = None
) -> str:
    """Say what an HTTP error means for the user.

    Args:
        status: of the answer.
        phrase: that came with it.
        code: its `X-Error-Code`, or "".
        repo: of the Hub, or None if it is another server that refused.
        retry_after: its `Retry-After`, or None.
    """
    token = _token() if repo is not None else ""
    if repo is not None:
        if code == "GatedRepo" and token:
            return f"{token} isn't let in: accept the terms at {page(repo)} with its account"
        if code == "GatedRepo":
            return f"accept its terms at {page(repo)} first, then set HF_TOKEN"
        private = f" where {token} isn't let in" if token else ": set HF_TOKEN"
        known = {
            "RepoNotFound": f"no such repository, or a private one{private}",
            "RevisionNotFound": "there is no such revision",
            "EntryNotFound": "the repository has no such file",
        }
        if code in known:
            return known[code]
    said = f"the server answered {status} {phrase}".rstrip()
    if status in (401, 403) and repo is None:
        return f"{said}: it wants a login"
    if status in (401, 403):
        return f"{said}: " + (f"{token} isn't let in" if token else "set HF_TOKEN")
    wait_s = seconds_of(retry_after)
    if wait_s is not None:
        return f"{said}: try again in {wait_s} s"
    return said


def _token() -> str:
    """Return what to call the token that is sent; "" where there is none."""
    if not identity(endpoint()):
        return ""
    return "the HF_TOKEN that is set" if os.environ.get("HF_TOKEN") else "the token in use"


def reason_of(failure: Refused | Unanswered, repo: str | None, code: str = "") -> str:
    """Say why there is no answer, for the user.

    Args:
        failure: what asking came to.
        repo: of the Hub, whose file or listing was asked for; None if it is another server's.
        code: holds where the answer has no `X-Error-Code`.
    """
    from llamalite.libs.transfer.web import Refused

    if not isinstance(failure, Refused):
        return without_ours(failure.reason)
    headers, asked = failure.headers, repo if is_hub(failure.led_to) else None
    code = headers.get("X-Error-Code") or code
    later = headers.get("Retry-After")
    return without_ours(refusal(failure.status, failure.reason, code, asked, later))
