"""What a repository on the Hub holds: its files, their sizes and digests.

Owns the Hub's listings: how they are asked for, page by page, and what of the answers is believed.
May import `address`, `asking`, `refusals`, `libs` and `errors`.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

from llamalite.errors import DownloadError, Unreachable
from llamalite.libs.transfer.wording import size_text
from llamalite.models.hub.address import check_reachable, endpoint, place
from llamalite.models.hub.asking import LIMIT_S, ask, patiently
from llamalite.models.hub.refusals import reason_of

_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.A)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HALF = re.compile("[\ud800-\udfff]")  # of a character, which JSON can say
_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')
_WHOLE_LIMIT_S = 120.0
_MOST_BYTES = 64 * 10**6  # 200,000 files
_MOST_PAGES = 1000
_MOST_FILE_BYTES = 1 << 50
_BAD_TOKEN = "Invalid credentials in Authorization header"  # an X-Error-Message
_NO_LISTING = (
    "it answered something that is no listing (a login page?): check HF_ENDPOINT and the network"
)


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


class _Doubtful(Exception):
    """The Hub answered, but not what a Hub answers."""


def list_repo(repo: str, revision: str = "main") -> HubListing:
    """Ask the Hub what a repository holds.

    Raises:
        Offline: network use is switched off.
        Unreachable: the Hub doesn't answer.
        DownloadError: it has no such repository or revision for this user, or is no Hub.
    """
    from llamalite.libs.transfer.web import Refused, Unanswered

    check_reachable(f"the list of {repo}'s files")
    what = repo if revision == "main" else f"{repo}@{revision}"
    kind = DownloadError
    try:
        if not _REPO.fullmatch(repo):
            raise _Doubtful("that is no repository name")
        return _list(repo, revision)
    except _Doubtful as err:
        reason = str(err)
    except Unanswered as err:
        kind, reason = Unreachable, reason_of(err, repo)
    except Refused as err:
        # To who isn't known, the Hub doesn't say whether there is such a repository.
        is_unknown = err.status == 401 and err.headers.get("X-Error-Message") != _BAD_TOKEN
        reason = reason_of(err, repo, "RepoNotFound" if is_unknown else "")
    raise kind(f"{what} can't be had from {place()}: {reason}")


def _list(repo: str, revision: str) -> HubListing:
    questions = _Questions()
    model = f"{endpoint()}/api/models/{repo}"
    said, _ = questions.ask(f"{model}/revision/{quote(revision, safe='')}")
    commit = said.get("sha") if isinstance(said, dict) else None
    if not (isinstance(commit, str) and _COMMIT.fullmatch(commit)):
        raise _Doubtful(_NO_LISTING)
    files: list[HubEntry] = []
    url = f"{model}/tree/{commit}?recursive=true"
    while url:
        said, url = questions.ask(url)
        if not isinstance(said, list) or _is_less_safe(url):
            raise _Doubtful(_NO_LISTING)
        files += [entry for found in said if (entry := _entry(found))]
    return HubListing(repo, revision, commit, tuple(files))


class _Questions:
    """What is asked for one listing, within limits that hold for all of it."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + _WHOLE_LIMIT_S
        self._pages_left, self._bytes_left = _MOST_PAGES, _MOST_BYTES

    def ask(self, url: str) -> tuple[Any, str]:
        """Return what an answer says, and the address of the next page or ""."""
        self._pages_left -= 1
        if self._pages_left < 0 or time.monotonic() > self._deadline:
            raise _Doubtful(
                f"its listing doesn't end within {_MOST_PAGES:,} pages or {_WHOLE_LIMIT_S:g} s"
            )
        answer = patiently(lambda: ask(url, self._bytes_left + 1, limit_s=LIMIT_S))
        self._bytes_left -= len(answer.body)
        if self._bytes_left < 0:
            raise _Doubtful(f"its listing has more than {size_text(_MOST_BYTES)}")
        try:
            following = _NEXT.search(answer.headers.get("Link") or "")
            return json.loads(answer.body), urljoin(url, following[1]) if following else ""
        except (ValueError, RecursionError):
            raise _Doubtful(_NO_LISTING) from None


def _entry(said: object) -> HubEntry | None:
    """Return the file that an item of a listing tells of, or None if it is a folder."""
    if not isinstance(said, dict):
        raise _Doubtful(_NO_LISTING)
    if said.get("type") == "directory":
        return None
    path, n_bytes, git_oid, lfs = (said.get(key) for key in ("path", "size", "oid", "lfs"))
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else lfs
    if (
        said.get("type") == "file"
        and isinstance(path, str)
        and _HALF.search(path) is None
        and isinstance(n_bytes, int)
        and not isinstance(n_bytes, bool)
        and 0 <= n_bytes <= _MOST_FILE_BYTES
        and isinstance(git_oid, str)
        and _COMMIT.fullmatch(git_oid)
        and (sha256 is None or (isinstance(sha256, str) and _SHA256.fullmatch(sha256)))
    ):
        return HubEntry(path, n_bytes, sha256, git_oid)
    raise _Doubtful(_NO_LISTING)


def _is_less_safe(url: str) -> bool:
    return endpoint().startswith("https:") and url.startswith("http:")
