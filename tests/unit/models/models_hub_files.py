"""A file of a loopback Hub fetched into the cache, here or by another process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.loopback_hub import LoopbackHub

from llamalite.models.hub.cache import PARTIAL_SUFFIX, cache_folder
from llamalite.models.hub.download import download_file
from llamalite.models.hub.listing import HubListing, list_repo

ROOT = Path(__file__).resolve().parents[3]
REPO, FILE = "owner/Tiny-GGUF", "Tiny.Q4_1.gguf"

_PROGRAM = """
import sys
from llamalite.libs.transfer.progress import show_progress
from llamalite.models.hub.download import download_file
from llamalite.models.hub.listing import HubEntry, HubListing
with show_progress("x", None, lambda line: print(line, flush=True)) as progress:
    listing = {listing!r}
    print(download_file(listing, listing.files[0], progress))
"""


@dataclass
class Noted:
    """Progress that remembers what it was told."""

    sizes: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def expect(self, total: int) -> None:
        self.sizes.append(total)

    def at(self, received: int) -> None:
        self.received.append(received)

    def say(self, line: str) -> None:
        self.lines.append(line)


def fetch(
    file: str = FILE, *, repo: str = REPO, revision: str = "main", force: bool = False
) -> Path:
    """Fetch one file, as a pull does."""
    listing = list_repo(repo, revision)
    entry = listing.entry(file)
    assert entry is not None
    return download_file(listing, entry, Noted(), force=force)


def child(hub: LoopbackHub) -> subprocess.Popen[str]:
    """Start another process that fetches the file."""
    listing = list_repo(REPO)
    entry = listing.entry(FILE)
    assert entry is not None
    one = HubListing(listing.repo, listing.revision, listing.commit, (entry,))
    program = _PROGRAM.format(listing=one)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def part() -> Path:
    """Return the partial file that is in the cache; it need not exist."""
    found = list(cache_folder().rglob(f"*{PARTIAL_SUFFIX}"))
    assert len(found) < 2
    return found[0] if found else cache_folder() / "none"


def n_here() -> int:
    """Return how long the partial file is."""
    try:
        return part().stat().st_size
    except FileNotFoundError:
        return 0
