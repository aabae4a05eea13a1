"""Fetches one file over HTTP, continuing what broke off, and verifies it.

Owns the transfer, its retries and the proof that what arrived is what was asked for. Doesn't know
what the file is for. Imports `llamalite.errors`, `partial` and `progress`; network libraries inside
functions.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.errors import ChecksumMismatch, DownloadError
from llamalite.libs.transfer.partial import PartialFile, partial_file
from llamalite.libs.transfer.progress import Progress, Say, show_progress

if TYPE_CHECKING:
    from http.client import HTTPResponse

STALL_LIMIT_S = 15.0
"""Longest silence of a server before the transfer is given up."""

MAX_RETRIES = 5
"""How often one transfer is taken up again where its connection broke."""

_LEAST_BYTES = 1024  # in STALL_LIMIT_S; less is as good as silence
_MOST_BYTES = 8 << 30
_BLOCK_BYTES = 1 << 18


def download(
    url: str,
    into: Path,
    n_bytes: int | None,
    sha256: str | None,
    say: Say | None = None,
    cache: Path | None = None,
    secrets: Mapping[str, str] | None = None,
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
        secrets: headers for `url` alone, not for where it redirects to.

    Raises:
        ChecksumMismatch: what arrived has another size or digest; nothing of it is kept.
        DownloadError: the server refused or fell silent, or the transfer broke off.
        OSError: the disk failed; the space is freed.
    """
    transfer = _Transfer(url, into.name, n_bytes, sha256, secrets or {})
    with partial_file(into, sha256, cache) as part:
        found = part.n_bytes
        if n_bytes is not None and found > n_bytes:
            part.restart()
        with show_progress(into.name, n_bytes, say) as progress:
            if part.n_bytes:
                progress.say(f"continuing {into.name} at {part.n_bytes:,} bytes")
            transfer.run(part, progress)
            if found and not transfer.is_right(part):
                progress.say(f"what was kept of {into.name} is damaged: fetching it anew")
                part.restart()
                transfer.run(part, progress)
        transfer.check(part)
        part.move_to(into)


class _Broken(Exception):
    """The connection broke; what arrived before is good."""


@dataclass
class _Transfer:
    """One file's way here.

    Attributes:
        etag: the version of the file that arrives, where the server says it.
        takes_ranges: False once the server has shown that it can't continue a file.
    """

    url: str
    name: str
    n_bytes: int | None
    sha256: str | None
    secrets: Mapping[str, str]
    etag: str = ""
    takes_ranges: bool = True

    def run(self, part: PartialFile, progress: Progress) -> None:
        """Fetch all that is missing, taking up again what breaks as long as there is progress."""
        furthest, retries = part.n_bytes, 0
        while self.n_bytes is None or part.n_bytes < self.n_bytes:
            try:
                self._attempt(part, progress)
                return
            except _Broken as broken:
                kept = "; what arrived is kept" if part.is_kept else ""
                if part.n_bytes <= furthest or retries == MAX_RETRIES:
                    raise DownloadError(
                        f"{self.url} broke off after {self._of(part.n_bytes)} ({broken}): try "
                        f"again{kept}"
                    ) from None
                furthest, retries = part.n_bytes, retries + 1
                progress.say(
                    f"{self.name} broke off after {self._of(furthest)} ({broken}): going on"
                )
                time.sleep(0.2 * retries)

    def is_right(self, part: PartialFile) -> bool:
        """Tell whether the file is what was asked for, as far as that is known."""
        return self.n_bytes in (None, part.n_bytes) and (
            self.sha256 is None or part.sha256 == self.sha256.lower()
        )

    def check(self, part: PartialFile) -> None:
        """Refuse a file that isn't what was asked for."""
        if not self.is_right(part):
            raise self._mismatch(f"{part.n_bytes:,} bytes with sha256 {part.sha256[:16]}…")

    def _attempt(self, part: PartialFile, progress: Progress) -> None:
        with self._answer(part) as answer:
            total = self._total(answer, part)
            if total is not None:
                progress.expect(total)
            progress.at(part.n_bytes)
            while block := self._read(answer, part):
                part.append(block)
                if part.n_bytes > (self.n_bytes or _MOST_BYTES):
                    return  # too long already: no need to see the rest
                progress.at(part.n_bytes)
        if part.n_bytes < (total or self.n_bytes or 0):
            raise _Broken("the connection was closed")

    def _answer(self, part: PartialFile) -> HTTPResponse:
        """Ask for the rest of the file, or for all of it where the rest can't be had."""
        from llamalite.libs.transfer.web import Refused, open_url

        continues = part.n_bytes and self.takes_ranges and (self.sha256 or self.etag)
        if not continues:
            part.restart()
            answer = open_url(self.url, None, self.secrets, silence_s=STALL_LIMIT_S)
        else:
            asked = {"Range": f"bytes={part.n_bytes}-"}
            if not self.sha256:
                asked["If-Range"] = self.etag
            try:
                answer = open_url(self.url, asked, self.secrets, silence_s=STALL_LIMIT_S)
            except Refused as refusal:
                if refusal.status != 416:
                    raise
                self.takes_ranges = False
                return self._answer(part)
        if continues and answer.status == 200:
            part.restart()
        elif answer.status != (206 if continues else 200):
            answer.close()
            raise DownloadError(f"{self.url} answered {answer.status}, which is no file")
        elif continues and _range_of(answer)[0] != part.n_bytes:
            answer.close()
            self.takes_ranges = False
            return self._answer(part)
        return answer

    def _total(self, answer: HTTPResponse, part: PartialFile) -> int | None:
        """Return the whole file's size as the answer has it, and note which version it is."""
        etag = answer.headers.get("ETag") or ""
        self.etag = etag if etag.startswith('"') else ""
        if answer.status == 206:
            total = _range_of(answer)[1]
        else:
            length = answer.headers.get("Content-Length") or ""
            total = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
        if total is not None and self.n_bytes not in (None, total):
            raise self._mismatch(f"{total:,} bytes")
        return total

    def _read(self, answer: HTTPResponse, part: PartialFile) -> bytes:
        from http.client import HTTPException

        started = time.monotonic()
        block = b""
        try:
            # NOTE: a server that drips a byte now and then is never silent, and never done.
            while fresh := answer.read1(_BLOCK_BYTES):
                block += fresh
                if len(block) >= _LEAST_BYTES:
                    return block
                if time.monotonic() - started > STALL_LIMIT_S:
                    raise TimeoutError
        except TimeoutError:
            part.append(block)
            kept = "; what arrived is kept" if part.is_kept else ""
            raise DownloadError(
                f"{self.url} fell silent for {STALL_LIMIT_S:g} s after {self._of(part.n_bytes)}: "
                f"try again{kept}"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            from llamalite.libs.transfer.web import short_reason

            part.append(block)
            raise _Broken(short_reason(error)) from None
        return block

    def _of(self, received: int) -> str:
        whole = f" of {self.n_bytes:,}" if self.n_bytes is not None else ""
        return f"{received:,}{whole} bytes"

    def _mismatch(self, came: str) -> ChecksumMismatch:
        wanted = "the bytes" if self.n_bytes is None else f"the {self.n_bytes:,} bytes"
        digest = f" with sha256 {self.sha256[:16]}…" if self.sha256 else ""
        return ChecksumMismatch(
            f"{self.url} gave {came}, not {wanted}{digest} that were expected: nothing was kept; "
            f"try again, or another mirror through LLAMALITE_GITHUB_URL"
        )


def _range_of(answer: HTTPResponse) -> tuple[int, int | None]:
    """Return the first byte and the whole size in `Content-Range`; -1 where it says nothing."""
    said = answer.headers.get("Content-Range") or ""
    match = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)", said.strip(), re.ASCII)
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])
