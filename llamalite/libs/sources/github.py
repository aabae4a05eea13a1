"""Upstream's release files from GitHub, or a mirror of it, as ways to fetch libllama.

Owns which file of which release is fetched and what vouches for it: the digest llamalite pins, the
one GitHub's releases API gives, or, if the user allows it, nothing. Doesn't know where a build is
put in the end. Imports `llamalite.errors`, `llamalite.config` and the modules beside it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from llamalite import config
from llamalite.errors import DownloadError, LibraryNotFound, Offline
from llamalite.libs.platforms import Platform
from llamalite.libs.sources.assets import FAMILIES, Asset, family, find_asset, likely_asset
from llamalite.libs.sources.github_api import (
    GITHUB,
    LATEST,
    REPOSITORY,
    RESOLVE_LIMIT_S,
    ApiSilent,
    Deadline,
    Release,
    api_url,
    github_url,
    release_url,
    secrets_for,
)
from llamalite.libs.sources.github_tags import build_of, find_release, known_tag
from llamalite.libs.sources.releases import ReleaseTable
from llamalite.libs.transfer.download import download
from llamalite.libs.transfer.progress import Say, say_on_stderr
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.unpack import unpack_libraries
from llamalite.libs.transfer.wording import size_text

__all__ = [
    "GitHubFetch",
    "GitHubLookup",
    "PublishedAsset",
    "api_url",
    "github_url",
    "github_way",
    "published",
]

PINNED_DIGEST = "sha256 pinned by llamalite"
NOT_VERIFIED = "not verified"


@dataclass(frozen=True)
class GitHubFetch:
    """A file of upstream's releases, and its runtime's file where it needs one.

    Attributes:
        release: build tag.
        verified: what vouches for what comes.
    """

    asset: Asset
    release: str
    verified: str = PINNED_DIGEST
    source: str = "github"
    label: str = "GitHub"

    @property
    def backend(self) -> str:
        """The archive's own backend (`cuda-12.8` where `cuda` was asked for)."""
        return self.asset.backends[0]

    @property
    def origin(self) -> str:
        """URL of the archive."""
        return release_url(self.release, self.asset.file)

    def describe(self) -> str:
        """Name each file with its size, and where they lie."""
        files = " and ".join(
            f"{asset.file} ({_size(asset.n_bytes)})" for asset in _with_runtime(self.asset)
        )
        return f"{files} from {self.origin.rpartition('/')[0]}"

    def problem(self) -> str | None:
        """Probe GitHub, or the mirror."""
        return _problem()

    def resolve(self, say: Say | None) -> GitHubFetch:
        """Return this very fetch: all about it is known."""
        return self

    def fetch(self, into: Path, cache: Path, say: Say | None) -> None:
        """Download, verify and unpack."""
        with tempfile.TemporaryDirectory(prefix="archive-", dir=into.parent) as folder:
            for asset in _with_runtime(self.asset):
                archive, url = Path(folder) / asset.file, release_url(self.release, asset.file)
                secrets = secrets_for(url)
                download(url, archive, asset.n_bytes, asset.sha256, say, cache, secrets)
                unpack_libraries(archive, into)
                archive.unlink()


@dataclass(frozen=True)
class GitHubLookup:
    """A build that GitHub has yet to be asked about.

    Attributes:
        asked: the release as it was asked for: `latest`, `vX.Y.Z` or `bNNNN`.
        release: its build tag, or None if only GitHub can tell.
    """

    table: ReleaseTable
    asked: str
    release: str | None
    platform: Platform
    backend: str
    allow_unverified: bool = False
    source: str = "github"
    label: str = "GitHub"
    verified: str = NOT_VERIFIED

    @property
    def origin(self) -> str:
        """URL of the release."""
        place = LATEST if self.asked == LATEST else f"tag/{self.release or self.asked}"
        return f"{github_url()}/{REPOSITORY}/releases/{place}"

    def describe(self) -> str:
        """Name the build and the release."""
        return f"the {self.backend} build for {self.platform} of {self.origin}"

    def problem(self) -> str | None:
        """Probe GitHub, or the mirror; the API need not answer."""
        return _problem()

    def resolve(self, say: Say | None) -> GitHubFetch:
        """Find the file and its digest, within about ten seconds.

        Raises:
            LibraryNotFound: there is no such release, or it has no such build.
            DownloadError: nothing vouches for the build, or GitHub doesn't answer.
        """
        tell, deadline = say or say_on_stderr, Deadline(RESOLVE_LIMIT_S)
        try:
            is_pinned = self.table.asset(str(self.platform), self.backend) is not None
            found = find_release(self.asked, self.table, deadline, tell, trust_pins=is_pinned)
            if pinned := self._pinned(found.tag):
                return GitHubFetch(pinned, found.tag)
            return self._choose(found, tell)
        except ApiSilent as silent:
            return self._without_api(silent, deadline, tell)

    def _pinned(self, tag: str) -> Asset | None:
        if tag != self.table.tag:
            return None
        return self.table.asset(str(self.platform), self.backend)

    def _choose(self, found: Release, tell: Say) -> GitHubFetch:
        asset = find_asset(found.assets, str(self.platform), self.backend)
        if asset is None:
            here = [one.backends[0] for one in found.assets if one.platform == str(self.platform)]
            raise LibraryNotFound(
                f"llama.cpp {found.tag} has no {self.backend} build for {self.platform} on GitHub: "
                f"it has {', '.join(sorted(here)) or 'none for that platform'}"
            )
        bare = [part.file for part in _with_runtime(asset) if part.sha256 is None]
        if bare:
            reason = f"the releases API has no sha256 of {bare[0]}"
            return self._unverified(asset, found.tag, reason, tell)
        return GitHubFetch(asset, found.tag, _api_digest())

    def _without_api(self, silent: ApiSilent, deadline: Deadline, tell: Say) -> GitHubFetch:
        reason = f"the releases API {silent.reason}"
        try:
            tag = self.release or build_of(self.asked, deadline)
        except DownloadError as error:
            raise DownloadError(f"{error}; and {reason}") from None
        if tag is None:
            raise LibraryNotFound(
                f"{self.origin} can't be followed to a build: {reason}, and the release doesn't "
                f"exist or holds no note of its build; ask for one as --release bNNNN"
            )
        if pinned := self._pinned(tag):
            tell(f"{reason}; {self.asked} is {tag}, whose sha256 llamalite pins")
            return GitHubFetch(pinned, tag)
        asset = likely_asset(tag, str(self.platform), self.backend)
        return self._unverified(asset, tag, reason, tell)

    def _unverified(self, asset: Asset, tag: str, reason: str, tell: Say) -> GitHubFetch:
        if not self.allow_unverified:
            raise DownloadError(
                f"llama.cpp {tag} ({self.backend}, {self.platform}) can't be verified, because "
                f"{reason}, and llamalite pins no sha256 of it: try again later, leave --release "
                f"out, or give --allow-unverified to take it unseen"
            )
        tell(f"warning: {asset.file} will not be verified, as was allowed: {reason}")
        return GitHubFetch(asset, tag, NOT_VERIFIED)


def github_way(
    table: ReleaseTable,
    release: str | None,
    platform: Platform,
    backend: str,
    *,
    allow_unverified: bool = False,
) -> GitHubFetch | GitHubLookup | None:
    """Return the way to get a build from GitHub, or None if it isn't one of GitHub's.

    Args:
        table: what is known of the pinned release.
        release: `latest`, `bNNNN`, `vX.Y.Z`, or None for the pinned release.
        platform: which the build is for.
        backend: with or without a version: `cuda`, `cuda-12.8`.
        allow_unverified: take a build whose digest nobody says.

    Raises:
        InvalidParameter: that is no name of a release.
    """
    asked = (release or table.tag).strip()
    if ":" in asked or family(backend) not in FAMILIES[str(platform)]:
        return None  # another source's, or what upstream has never published
    tag = known_tag(asked, table)
    if tag == table.tag:
        asset = table.asset(str(platform), backend)
        if asset is not None:
            return GitHubFetch(asset, tag)
    return GitHubLookup(table, asked, tag, platform, backend, allow_unverified)


@dataclass(frozen=True)
class PublishedAsset:
    """One build that a release has.

    Attributes:
        release: build tag.
        n_bytes: with CUDA's runtime, where it needs that; None if nobody says.
        verified: what vouches for it.
    """

    release: str
    platform: str
    backend: str
    file: str
    n_bytes: int | None
    verified: str


def published(
    release: str | None, table: ReleaseTable, say: Say | None = None
) -> list[PublishedAsset]:
    """List every build of a release on GitHub.

    Of the pinned release those with pinned digests are listed whether or not the API answers;
    `say` takes a line when it doesn't.

    Raises:
        Offline: network use is off and the release isn't the pinned one.
        LibraryNotFound: there is no such release.
        DownloadError: the API doesn't say.
        InvalidParameter: that is no name of a release.
    """
    tell = say or say_on_stderr
    asked = (release or table.tag).strip()
    is_pinned = known_tag(asked, table) == table.tag
    if config.is_offline() and not is_pinned:
        raise Offline(f"network use is off, so GitHub can't be asked what {asked} holds")
    rows: dict[str, PublishedAsset] = {}
    if not config.is_offline():
        try:
            deadline = Deadline(RESOLVE_LIMIT_S)
            found = find_release(asked, table, deadline, tell, trust_pins=False)
            rows = {a.file: _published(a, found.tag, _api_digest()) for a in found.assets}
            is_pinned = found.tag == table.tag
        except (DownloadError, LibraryNotFound) as error:
            if not is_pinned:
                raise
            tell(f"only builds with pinned digests are listed: {error}")
    if is_pinned:
        rows |= {a.file: _published(a, table.tag, PINNED_DIGEST) for a in table.assets}
    return sorted(rows.values(), key=lambda row: (row.platform, row.backend != "cpu", row.backend))


def _published(asset: Asset, tag: str, verified: str) -> PublishedAsset:
    parts = _with_runtime(asset)
    sizes = [part.n_bytes for part in parts if part.n_bytes is not None]
    if any(part.sha256 is None for part in parts):
        verified = NOT_VERIFIED
    n_bytes = sum(sizes) if len(sizes) == len(parts) else None
    return PublishedAsset(tag, asset.platform, asset.backends[0], asset.file, n_bytes, verified)


def _api_digest() -> str:
    if github_url() == GITHUB:
        return "sha256 from GitHub's releases API"
    return f"sha256 from the releases API at {api_url()}"


def _problem() -> str | None:
    reason = unreachable_reason(github_url())
    return f"{github_url()} can't be reached: {reason}" if reason else None


def _with_runtime(asset: Asset) -> list[Asset]:
    return [asset, *([asset.runtime] if asset.runtime else [])]


def _size(n_bytes: int | None) -> str:
    return "size unknown" if n_bytes is None else size_text(n_bytes)
