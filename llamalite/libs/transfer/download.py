"""Fetches one file over HTTP, continuing what broke off, and verifies it.

Owns the transfer, its retries and the proof that what arrived is what was asked for. Doesn't know
what the file is for. Imports `llamalite.errors`, `answers`, `expected`, `partial`, `patience`,
`progress` and `source`; network libraries inside functions.

NOTE: what an earlier fetch left may have taken hours. It is dropped only once an answer is here
that can be the whole file: neither a login page nor a proxy's mistake costs more than a try.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.errors import ChecksumMismatch, DownloadError
from llamalite.libs.transfer import answers
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.partial import PartialFile, partial_file
from llamalite.libs.transfer.patience import Arriving, Beat, rest
from llamalite.libs.transfer.progress import Progress, Say, show_progress
from llamalite.libs.transfer.source import Broken, Source, Whole, wait_of

if TYPE_CHECKING:
    from http.client import HTTPResponse

STALL_LIMIT_S = 15.0
"""Longest silence of a server before the transfer is given up."""

MAX_RETRIES = 5
"""How often in a row a transfer is taken up again where its connection broke."""

_MUCH_BYTES = 4 << 20  # after which a broken connection counts as the first
_MOST_BYTES = 8 << 30  # where nobody says how much it is


def download(
    url: str,
    into: Path,
    n_bytes: int | None,
    sha256: str | None,
    say: Say | None = None,
    cache: Path | None = None,
    secrets: Mapping[str, str] | None = None,
    *,
    progress: Progress | None = None,
) -> None:
    """Fetch a file and verify it.

    Args:
        url: http or https; redirects are followed.
        into: path of the whole, verified file; nothing is there after a failure.
        n_bytes: its size, or None where nobody has said it.
        sha256: its digest, in hexadecimal; None verifies nothing.
        say: takes lines, with a progress line per 10 %; None for stderr, with a bar on a terminal.
        cache: folder, made on demand, in which what arrived stays for the next fetch if this one
            breaks off or is killed; only where the digest is known.
        secrets: headers for the host of `url` alone, not for others that it redirects to.
        progress: shows the transfer in place of `say`.

    Raises:
        ChecksumMismatch: what arrived has another size or digest; nothing of it is kept.
        DownloadError: the server refused, fell silent or has something else, or the transfer broke
            off.
        OSError: the disk failed; the space is freed.
    """
    source = Source(url, Expected(n_bytes, sha256), secrets or {})
    shown = contextlib.nullcontext(progress) if progress else show_progress(into.name, n_bytes, say)
    with partial_file(into, sha256, cache) as part, shown as progress:
        Transfer(source, into.name).fetch(part, progress)
        part.move_to(into)


@dataclass
class Transfer:
    """One file's way here.

    Attributes:
        name: what lines for a person call the file.
        most: bytes that may come where nobody says how many there are.
        on_size: told how many bytes are to come, before anything changes.
        on_begin: called when the source's version and size are those of what the part is part of.
    """

    source: Source
    name: str
    most: int = _MOST_BYTES
    on_size: Callable[[int], None] | None = None
    on_begin: Callable[[], None] | None = None

    @property
    def expected(self) -> Expected:
        """What the file must be."""
        return self.source.expected

    def fetch(self, part: PartialFile, progress: Progress) -> None:
        """Fetch what is missing of a file until it is whole and proved.

        Raises:
            ChecksumMismatch: what arrived has another size or digest.
            Refused, Unanswered, DownloadError: as `download`.
        """
        n_bytes, found = self.expected.n_bytes, part.n_bytes
        if n_bytes is not None:
            progress.expect(n_bytes)
            if found > n_bytes:
                part.restart()
        if part.n_bytes:
            progress.say(f"continuing {self.name} at {part.n_bytes:,} bytes")
        self._run(part, progress)
        if found and not self.expected.is_met_by(part.n_bytes, part.digest):
            progress.say(f"what was kept of {self.name} is damaged: fetching it anew")
            part.restart()
            self._run(part, progress)
        if not self.expected.is_met_by(part.n_bytes, part.digest):
            kind = self.expected.kind
            raise self._mismatch(f"{part.n_bytes:,} bytes with {kind} {part.digest[:16]}…")

    def _run(self, part: PartialFile, progress: Progress) -> None:
        """Fetch all that is missing, taking up again what breaks as long as there is progress."""

        def beat() -> None:
            progress.at(part.n_bytes)

        furthest, retries = part.n_bytes, 0
        while self.expected.n_bytes is None or part.n_bytes < self.expected.n_bytes:
            begun = part.n_bytes
            try:
                self._attempt(part, progress, beat)
                return
            except Whole:
                return
            except Broken as broken:
                if part.n_bytes - begun > _MUCH_BYTES:
                    retries = 0
                if retries == MAX_RETRIES or (part.n_bytes <= furthest and broken.failure is None):
                    raise broken.failure or self._given_up(part, broken) from None
                furthest, retries = max(part.n_bytes, furthest), retries + 1
                wait_s = wait_of(broken.failure, retries)
                then = f"going on in {wait_s:g} s" if wait_s > 2 else "going on"
                here = self.expected.share(part.n_bytes)
                progress.say(f"{self.name} broke off after {here} ({broken}): {then}")
                rest(wait_s, beat)

    def _attempt(self, part: PartialFile, progress: Progress, beat: Beat) -> None:
        answer = self.source.ask(part, STALL_LIMIT_S, beat)
        with Arriving(answer, STALL_LIMIT_S, beat) as arriving:
            total = self._total(answer, part)
            if total is not None:
                progress.expect(total)
                if self.on_size is not None:
                    self.on_size(total - part.n_bytes)
            beat()
            block = self._read(arriving, part)
            if answer.status == 200:
                self.source.check_begin(answer, block, part)
                part.restart()
                self.source.version, self.source.total = answers.version_of(answer), total
            elif total is not None:
                self.source.total = total
            if self.on_begin is not None:
                self.on_begin()
            while block:
                part.append(block)
                self._check_end(part, total)
                beat()
                block = self._read(arriving, part)
        if part.n_bytes < (total or self.expected.n_bytes or 0):
            raise Broken("the connection was closed")

    def _total(self, answer: HTTPResponse, part: PartialFile) -> int | None:
        """Return the whole file's size as an answer has it."""
        total, known = answers.total_of(answer), self.expected.n_bytes
        if total is not None and known not in (None, total):
            raise self.source.something_else(answer, f"{total:,} bytes", part)
        return total

    def _read(self, arriving: Arriving, part: PartialFile) -> bytes:
        from http.client import HTTPException

        try:
            return arriving.read()
        except TimeoutError:
            here = self.expected.share(part.n_bytes)
            raise DownloadError(
                f"{self.source.where} fell silent for {STALL_LIMIT_S:g} s after {here}: try again"
                f"{part.kept}"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            from llamalite.libs.transfer.web import short_reason

            raise Broken(short_reason(error)) from None

    def _check_end(self, part: PartialFile, total: int | None) -> None:
        most = self.expected.n_bytes or total
        if most is not None and part.n_bytes > most:
            raise self._mismatch(f"more than {most:,} bytes")
        if most is None and part.n_bytes > self.most:
            raise ChecksumMismatch(
                f"{self.source.where} has no end: over {self.most:,} bytes came, of which nothing "
                f"was kept"
            )

    def _given_up(self, part: PartialFile, broken: Broken) -> DownloadError:
        here = self.expected.share(part.n_bytes)
        return DownloadError(
            f"{self.source.where} broke off after {here} ({broken}): try again{part.kept}"
        )

    def _mismatch(self, came: str) -> ChecksumMismatch:
        return ChecksumMismatch(
            f"{self.source.where} gave {came}, not {self.expected}: nothing was kept; try again, "
            f"or another source"
        )
