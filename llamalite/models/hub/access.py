"""Files of the Hugging Face Hub: in its cache on this computer, or fetched into it.

Owns how huggingface_hub is asked, how long an unreachable Hub may take, and how its exceptions
become one line. The cache stays the Hub's own (`HF_HOME`), shared with other programs. Doesn't know
the catalog or other sources. May import `libs` and `errors`; huggingface_hub only inside functions,
because importing it takes a third of a second.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llamalite.errors import ChecksumMismatch, DownloadError, LlamaliteError
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.wording import without_login

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)


@dataclass(frozen=True)
class HubFile:
    """One file of a repository on the Hub.

    Attributes:
        repo: "owner/name".
        file: path in the repository.
        sha256: digest it must have; None = the one the Hub declares.
        n_bytes: size it must have; None = the one the Hub declares.
    """

    repo: str
    file: str
    sha256: str | None = None
    n_bytes: int | None = None

    def __str__(self) -> str:
        return f"{self.repo}/{self.file}"


def endpoint() -> str:
    """Return the Hub's address, without a slash at its end: `HF_ENDPOINT`, else the public one.

    It may hold a password: `place` is for messages.
    """
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def place() -> str:
    """Return the Hub's address for people."""
    return without_login(endpoint())


def cached_files(repo: str) -> dict[str, Path]:
    """Return the files of a repository's main revision that are in the cache, by path in the repo.

    NOTE: reads the documented layout (refs/main names a folder of snapshots/) by itself, since
    importing the function that does costs more than reading a model's header.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        snapshot = folder / "snapshots" / commit
        paths = [path for path in snapshot.rglob("*") if path.is_file()] if commit else []
    except (OSError, ValueError):
        return {}
    return {path.relative_to(snapshot).as_posix(): path for path in paths}


def cached_path(wanted: HubFile) -> Path | None:
    """Return where a file lies in the cache, of the right size if that is known, or None."""
    path = cached_files(wanted.repo).get(wanted.file)
    if path is None or (wanted.n_bytes is not None and path.stat().st_size != wanted.n_bytes):
        return None
    return path


def download(wanted: HubFile) -> Path:
    """Fetch a file into the Hub's cache, check its size and SHA-256, and return its path.

    huggingface_hub draws the progress bar, on stderr where that is a terminal.

    Raises:
        DownloadError: the Hub or the host it sends to can't be reached, or refused.
        ChecksumMismatch: the Hub holds another file under this name, or sent other bytes; what was
            sent is removed.
    """
    check_reachable()
    with _hub_errors(wanted.repo, wanted.file):
        from huggingface_hub import hf_hub_download

        declared = _declared_sha256(wanted)
        # A file of the wrong size is in the way: it would be taken as it is.
        in_the_way = wanted.file in cached_files(wanted.repo) and cached_path(wanted) is None
        path = Path(
            hf_hub_download(
                wanted.repo, wanted.file, endpoint=endpoint(), force_download=in_the_way
            )
        )
        check_content(path, wanted.sha256 or declared, wanted.n_bytes, str(wanted))
    return path


def check_reachable() -> None:
    """Raise DownloadError if the Hub doesn't answer within three seconds.

    huggingface_hub itself goes on trying for half a minute.
    """
    if reason := unreachable_reason(endpoint()):
        raise DownloadError(f"{place()} can't be reached ({_without_ours(reason)})")


def list_files(repo: str) -> list[str]:
    """Return the paths of all files in a repository.

    Raises:
        DownloadError: the Hub can't be reached, or has no such repository for this user.
    """
    check_reachable()
    with _hub_errors(repo):
        from huggingface_hub import HfApi

        return list(HfApi(endpoint=endpoint()).list_repo_files(repo))


def check_content(path: Path, sha256: str | None, n_bytes: int | None, what: str) -> None:
    """Compare a file that was just fetched with what was asked for; remove it if it differs.

    Raises:
        ChecksumMismatch: the size or the digest differs.
    """
    size = path.stat().st_size
    if n_bytes is not None and size != n_bytes:
        _discard(path)
        raise ChecksumMismatch(
            f"{what} has {size:,} bytes where {n_bytes:,} were expected; it was removed: try again"
        )
    if sha256 is not None and (found := digest(path)) != sha256:
        _discard(path)
        raise ChecksumMismatch(
            f"{what} has SHA-256 {found[:12]}… where {sha256[:12]}… was expected; "
            f"it was removed: try again"
        )


def digest(path: Path) -> str:
    """Return a file's SHA-256 in lower-case hexadecimal."""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _discard(path: Path) -> None:
    """Remove a file, and what it points to in the Hub's cache."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _declared_sha256(wanted: HubFile) -> str | None:
    """Ask the Hub for the file's digest, and stop here if a download would be in vain.

    Leaves what may pass (a server's error, a cut connection) to hf_hub_download, which tries again.

    Raises:
        ChecksumMismatch: it isn't the file that is wanted.
        DownloadError: the host that holds the bytes can't be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(wanted.repo, wanted.file, endpoint=endpoint())
    try:
        found = get_hf_file_metadata(url, endpoint=endpoint())
    except HfHubHTTPError as err:
        status = err.response.status_code
        if status >= 500 or status in (408, 429):
            return None
        raise
    except Exception:  # a cut or slow connection, in httpx's or httpx2's own classes
        return None
    sha256 = found.etag if found.etag and _SHA256.fullmatch(found.etag) else None
    if wanted.sha256 and sha256 and sha256 != wanted.sha256:
        raise ChecksumMismatch(
            f"{place()} now holds another file as {wanted} (SHA-256 {sha256[:12]}…, "
            f"expected {wanted.sha256[:12]}…)"
        )
    # Where Xet serves the file, `location` is not what is used.
    parts = urlsplit(found.location)
    if found.xet_file_data is None and parts.netloc not in ("", urlsplit(url).netloc):
        storage = f"{parts.scheme}://{parts.netloc}"
        if reason := unreachable_reason(storage):
            raise DownloadError(
                f"{without_login(storage)}, which holds {wanted}, can't be reached ({reason})"
            )
    return sha256


@contextmanager
def _hub_errors(repo: str, file: str = "") -> Iterator[None]:
    try:
        yield
    except LlamaliteError:
        raise
    # huggingface_hub lets through its HTTP client's and its Rust part's exceptions, which have no
    # common base and differ among its versions.
    except Exception as err:
        what = f"{repo}/{file}" if file else repo
        reason = _without_ours(_reason(err))
        raise DownloadError(f"{what} can't be had from {place()}: {reason}") from err


def _without_ours(text: str) -> str:
    """Return what others say without the login that `HF_ENDPOINT` may hold."""
    login = _SCHEME.sub("", endpoint(), count=1).rpartition("@")[0]
    return text.replace(login, "…") if login else text


def _reason(err: BaseException) -> str:
    """Say in a few words what one of huggingface_hub's exceptions means for the user."""
    from huggingface_hub import errors

    known: tuple[tuple[type[BaseException], str], ...] = (
        (errors.GatedRepoError, "accept its terms on its page there first, then set HF_TOKEN"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one: set HF_TOKEN"),
        (errors.RevisionNotFoundError, "there is no such revision"),
        (errors.RemoteEntryNotFoundError, "the repository has no such file"),
        (errors.HFValidationError, "that is no repository name"),
    )
    for kind, text in known:
        if isinstance(err, kind):
            return text
    if isinstance(err, errors.HfHubHTTPError):
        status = err.response.status_code
        hint = ": check HF_TOKEN" if status in (401, 403) else ""
        return f"it answered {status} {err.response.reason_phrase}".rstrip() + hint
    if isinstance(err, errors.LocalEntryNotFoundError | ValueError) and err.__cause__ is not None:
        return _reason(err.__cause__)
    if isinstance(err, OSError) and err.strerror:
        return f"{err.strerror}: {err.filename}" if err.filename else err.strerror
    return " ".join(str(err).split())[:300] or type(err).__name__
