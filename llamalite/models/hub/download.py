"""Files of the Hub, fetched into its cache: each once, whole and proved, or not at all.

Owns the order of locking, fetching, proving and placing, and what is said when the disk or the Hub
won't. May import `address`, `cache`, `listing`, `refusals`, `libs` and `errors`.

NOTE: the bytes come by `libs.transfer` and not by huggingface_hub, whose newer versions begin anew
whatever was interrupted (2.4: a file of a new name for each try).
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from llamalite.errors import DownloadError
from llamalite.libs.transfer.download import Transfer
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.partial import own_partial, shown_wait
from llamalite.libs.transfer.progress import Progress
from llamalite.libs.transfer.source import Source
from llamalite.libs.transfer.space import check_space, unwritable
from llamalite.libs.transfer.wording import size_text
from llamalite.models.hub.address import (
    check_reachable,
    file_url,
    identity,
    is_hub,
    place,
    without_ours,
)
from llamalite.models.hub.cache import (
    PARTIAL_SUFFIX,
    blob_lock,
    cache_variable,
    more_room,
    place_blob,
    remember_revision,
    repo_folder,
    snapshot_path,
)
from llamalite.models.hub.listing import HubEntry, HubListing
from llamalite.models.hub.refusals import refusal

_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def download_file(
    listing: HubListing, entry: HubEntry, progress: Progress, *, force: bool = False
) -> Path:
    """Return where a file of the Hub lies in the cache, fetching what is missing of it.

    What an interrupted fetch left is continued, whoever left it; of two at once, one fetches and
    the other waits. Nothing lies under the file's name before it is whole and its digest is right.

    Args:
        listing: the repository's.
        entry: one of its files.
        progress: shows the transfer; not told anything if the file is here.
        force: fetch it though it is here.

    Raises:
        InvalidParameter: the file's path leads out of the repository.
        Offline: network use is switched off.
        ChecksumMismatch: other bytes came; none of them are kept.
        DownloadError: the Hub can't be reached, refused or fell silent, or the disk is full.
    """
    path = snapshot_path(listing.repo, listing.commit, entry.path)
    name = _name(listing, entry)
    if not _BLOB.fullmatch(entry.blob):
        raise DownloadError(f"{place()} gives no digest of {name}: it is no Hugging Face Hub")
    if not force and _is_whole(path, entry):
        with contextlib.suppress(OSError):  # a cache that may only be read
            remember_revision(listing.repo, listing.revision, listing.commit)
        return path
    check_reachable(f"{name} ({size_text(entry.n_bytes)})")
    try:
        _bring(listing, entry, path, progress, force)
    except OSError as err:
        raise unwritable(err, path, cache_variable()) from err
    return path


def _bring(
    listing: HubListing, entry: HubEntry, path: Path, progress: Progress, force: bool
) -> None:
    """Put the file into the cache, unless another process does so first."""
    repo = listing.repo
    blob = repo_folder(repo) / "blobs" / entry.blob
    part = blob.with_name(blob.name + PARTIAL_SUFFIX)
    with blob_lock(repo, entry.blob, shown_wait(part, _name(listing, entry), progress)):
        if force or not (_is_whole(path, entry) or _is_whole(blob, entry)):
            blob.parent.mkdir(parents=True, exist_ok=True)
            _fetch(listing, entry, part, progress)
            place_blob(blob, path, part)
        elif not _is_whole(path, entry):
            place_blob(blob, path, None)
        remember_revision(repo, listing.revision, listing.commit)


def _fetch(listing: HubListing, entry: HubEntry, part: Path, progress: Progress) -> None:
    """Fetch what is missing of a partial file until it is the whole."""
    from llamalite.libs.transfer.web import Refused, Unanswered

    name = _name(listing, entry)
    url = file_url(listing.repo, entry.path, listing.commit)
    expected = Expected(entry.n_bytes, entry.sha256, entry.git_oid)
    source = Source(url, expected, identity(url), where=f"{place()}/{name}")
    with own_partial(part, expected) as file:
        check_space(part.parent, entry.n_bytes - file.n_bytes, name, more_room())
        try:
            Transfer(source, name).fetch(file, progress)
        except Refused as err:
            repo = listing.repo if is_hub(err.led_to) else None
            code, later = err.headers.get("X-Error-Code") or "", err.headers.get("Retry-After")
            reason = refusal(err.status, err.reason, code, repo, later)
            raise DownloadError(f"{name} can't be fetched from {place()}: {reason}") from err
        except Unanswered as err:
            reason = without_ours(err.reason)
            raise DownloadError(f"{name} can't be fetched from {place()}: {reason}") from err
        file.finish()


def _is_whole(path: Path, entry: HubEntry) -> bool:
    """Say whether a file is here with the right size; its digest was proved when it came."""
    try:
        return os.stat(path).st_size == entry.n_bytes
    except OSError:
        return False


def _name(listing: HubListing, entry: HubEntry) -> str:
    return f"{listing.repo}/{entry.path}"
