"""Which build a release's name means: `latest` and `vX.Y.Z` lead to a `bNNNN`.

Owns the names of releases and the notes that tie them to builds. Doesn't know what a build is
fetched for. Imports `llamalite.errors` and the modules beside it; network libraries inside
functions.
"""

from __future__ import annotations

from llamalite.errors import DownloadError, InvalidParameter, LibraryNotFound
from llamalite.libs.sources.github_api import (
    BUILD_TAG,
    LATEST,
    NOTE_FILE,
    REPOSITORY,
    VERSION_TAG,
    Deadline,
    Release,
    ask_release,
    github_url,
    release_url,
    secrets_for,
)
from llamalite.libs.sources.releases import ReleaseTable
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.wording import one_line

_MAX_NOTE_BYTES = 256


def known_tag(asked: str, table: ReleaseTable) -> str | None:
    """Return the build tag of a release's name, or None if only GitHub can tell.

    Raises:
        InvalidParameter: that is no name of a release.
    """
    tag = table.build_tag(asked)
    if BUILD_TAG.fullmatch(tag):
        return tag
    if tag != LATEST and not VERSION_TAG.fullmatch(tag):
        raise InvalidParameter(
            f"there is no release {asked[:60]!r}: give latest, a build such as {table.tag}, or a "
            f"version such as v0.5.0",
            param="release",
        )
    return None


def find_release(
    asked: str, table: ReleaseTable, deadline: Deadline, say: Say, *, trust_pins: bool
) -> Release:
    """Ask the API for the release that holds the builds, following a version's note once.

    Args:
        asked: `latest`, `vX.Y.Z` or `bNNNN`.
        table: what is known of the pinned release.
        deadline: for all calls together.
        say: takes a line that names the build.
        trust_pins: let a name that turns out to mean the pinned release be enough, and return
            what is pinned of it.

    Raises:
        ApiSilent: the API doesn't say.
        LibraryNotFound: there is no such release.
        DownloadError: its note can't be read.
    """
    name = known_tag(asked, table) or asked
    found = ask_release(name, deadline, say)
    if found is not None and not BUILD_TAG.fullmatch(found.tag):
        tag = known_tag(found.tag, table)
        if tag is None:
            tag = build_of(found.tag, deadline) if found.has_note else None
        if tag is None:
            raise LibraryNotFound(
                f"llama.cpp {found.tag} holds neither builds nor a note that names its build: ask "
                f"for one as --release bNNNN"
            )
        say(f"llama.cpp {found.tag} is build {tag}")
        if tag == table.tag and trust_pins:
            return Release(tag, table.assets, has_note=False)
        name, found = tag, ask_release(tag, deadline, say)
    if found is None:
        raise LibraryNotFound(
            f"llama.cpp has no release {name} at {github_url()}/{REPOSITORY}/releases: give "
            f"latest, a build such as {table.tag}, or a version such as v0.5.0"
        )
    return found


def build_of(name: str, deadline: Deadline) -> str | None:
    """Return the build that a `vX.Y.Z` release's note, or the latest release's, names.

    Returns:
        `bNNNN`, or None if the release or its note doesn't exist.

    Raises:
        DownloadError: the note can't be fetched, or names no build.
    """
    from llamalite.libs.transfer.web import Refused, read_small

    url = release_url(name, NOTE_FILE)
    try:
        body = read_small(url, _MAX_NOTE_BYTES, secrets=secrets_for(url), limit_s=deadline.left_s())
    except Refused as refusal:
        if refusal.status == 404:
            return None
        raise
    text = body.decode("utf-8", "replace")
    if not BUILD_TAG.fullmatch(text.strip()):
        raise DownloadError(
            f"{url} names no build but says {one_line(text, 40)!r}: ask for one as --release bNNNN"
        )
    return text.strip()
