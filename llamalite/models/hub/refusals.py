"""What the Hub says when it refuses, and huggingface_hub when it fails, in a few plain words.

Owns those words. May import `address` and `errors`; huggingface_hub only inside functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llamalite.errors import DownloadError, LlamaliteError
from llamalite.models.hub.address import page, place, without_ours


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
    if repo is not None:
        if code == "GatedRepo":
            return f"accept its terms at {page(repo)} first, then set HF_TOKEN"
        known = {
            "RepoNotFound": "no such repository, or a private one: set HF_TOKEN",
            "RevisionNotFound": "there is no such revision",
            "EntryNotFound": "the repository has no such file",
        }
        if code in known:
            return known[code]
    said = f"the server answered {status} {phrase}".rstrip()
    if status in (401, 403):
        return said + (": it wants a login" if repo is None else ": check HF_TOKEN")
    if retry_after and retry_after.strip().isdecimal():
        return f"{said}: try again in {retry_after.strip()} s"
    return said


@contextmanager
def hub_errors(repo: str, what: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises about a repository into one DownloadError of one line.

    Args:
        repo: "owner/name".
        what: is asked for; "" for the repository itself.
    """
    try:
        yield
    except LlamaliteError:
        raise
    # huggingface_hub lets through its HTTP client's and its Rust part's exceptions, which have no
    # common base and differ among its versions.
    except Exception as err:
        reason = without_ours(_reason(err, repo))
        raise DownloadError(f"{what or repo} can't be had from {place()}: {reason}") from err


def _reason(err: BaseException, repo: str) -> str:
    from huggingface_hub import errors

    if isinstance(err, errors.HFValidationError):
        return "that is no repository name"
    if isinstance(err, errors.HfHubHTTPError):
        return _http_reason(err, repo)
    if isinstance(err, errors.LocalEntryNotFoundError | ValueError) and err.__cause__ is not None:
        return _reason(err.__cause__, repo)
    if isinstance(err, OSError) and err.strerror:
        return f"{err.strerror}: {err.filename}" if err.filename else err.strerror
    return " ".join(str(err).split())[:300] or type(err).__name__


def _http_reason(err: Any, repo: str) -> str:
    from huggingface_hub import errors

    known: tuple[tuple[type[BaseException], str], ...] = (
        (errors.GatedRepoError, "GatedRepo"),
        (errors.RepositoryNotFoundError, "RepoNotFound"),
        (errors.RevisionNotFoundError, "RevisionNotFound"),
        (errors.RemoteEntryNotFoundError, "EntryNotFound"),
    )
    code = next((code for kind, code in known if isinstance(err, kind)), "")
    answer = err.response
    later = answer.headers.get("Retry-After")
    return refusal(answer.status_code, answer.reason_phrase, code, repo, later)
