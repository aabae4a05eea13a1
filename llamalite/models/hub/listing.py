"""What a repository on the Hub holds: its files, their sizes and digests.

Owns the questions that huggingface_hub is asked. May import `address`, `refusals` and `errors`;
huggingface_hub only inside functions.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from llamalite.errors import DownloadError
from llamalite.models.hub.address import check_reachable, endpoint, place
from llamalite.models.hub.refusals import hub_errors

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ATTEMPTS = 3
_LONGEST_WAIT_S = 30.0
_PASSING = {408, 429, 500, 502, 503, 504}
_T = TypeVar("_T")


@dataclass(frozen=True)
class HubEntry:
    """One file of a repository.

    Attributes:
        path: in the repository, with forward slashes; not yet checked for leading out of it.
        sha256: digest of its content, which the Hub knows of all large files, or None.
        git_oid: what git calls it; of a large file (in LFS), that is the pointer.
    """

    path: str
    n_bytes: int
    sha256: str | None
    git_oid: str

    @property
    def blob(self) -> str:
        """The name of its content in the Hub's cache."""
        return self.sha256 or self.git_oid


@dataclass(frozen=True)
class HubListing:
    """What a repository holds at one commit.

    Attributes:
        repo: "owner/name".
        revision: as it was asked for: a branch, a tag, a commit.
        commit: what that stood for, 40 hexadecimal digits.
    """

    repo: str
    revision: str
    commit: str
    files: tuple[HubEntry, ...]

    def entry(self, path: str) -> HubEntry | None:
        """Return the file of that path, or None."""
        return next((entry for entry in self.files if entry.path == path), None)


def list_repo(repo: str, revision: str = "main") -> HubListing:
    """Ask the Hub what a repository holds.

    Raises:
        Offline: network use is switched off.
        DownloadError: the Hub can't be reached, or has no such repository or revision for this
            user.
    """
    check_reachable(f"the list of {repo}'s files")
    what = repo if revision == "main" else f"{repo}@{revision}"
    with hub_errors(repo, what):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint())
        # A model's page is asked for in one request that isn't tried again by huggingface_hub.
        commit = _patiently(lambda: api.model_info(repo, revision=revision).sha)
        if not _COMMIT.fullmatch(commit or ""):
            raise DownloadError(f"{place()} gives no commit for {what}: it is no Hugging Face Hub")
        tree = api.list_repo_tree(repo, recursive=True, revision=commit)
        entries = [_entry(found) for found in tree if hasattr(found, "blob_id")]
    return HubListing(repo, revision, str(commit), tuple(entries))


def _entry(found: Any) -> HubEntry:
    sha256 = found.lfs.sha256 if found.lfs is not None else None
    return HubEntry(found.path, found.size, sha256, found.blob_id)


def _patiently(ask: Callable[[], _T]) -> _T:
    """Return the answer to a question, asked again where the failure may pass."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return ask()
        except Exception as err:
            wait_s = _wait_of(err, 0.5 * attempt)
            if wait_s is None or wait_s > _LONGEST_WAIT_S:
                raise
        time.sleep(wait_s)
    return ask()


def _wait_of(err: Exception, usual_s: float) -> float | None:
    """Return how long to wait before asking again, or None if that is of no use."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(err, HfHubHTTPError):
        said = err.response.headers.get("Retry-After", "").strip()
        passes = err.response.status_code in _PASSING
        return (float(said) if said.isdecimal() else usual_s) if passes else None
    # httpx's or httpx2's own class, for connections that broke.
    broke = any(kind.__name__ == "TransportError" for kind in type(err).__mro__)
    return usual_s if broke else None
