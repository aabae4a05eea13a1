"""Fetches one file over HTTP, continuing what broke off, and verifies it.

Owns the transfer, its retries and the proof that what arrived is what was asked for. Doesn't know
what the file is for. Imports `llamalite.errors`, `expected`, `partial` and `progress`; network
libraries inside functions.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.errors import ChecksumMismatch, DownloadError
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.partial import PartialFile, partial_file
from llamalite.libs.transfer.progress import Progress, Say, show_progress

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from llamalite.libs.transfer.web import Refused, Unanswered

STALL_LIMIT_S = 15.0
"""Longest silence of a server before the transfer is given up."""

MAX_RETRIES = 5
"""How often in a row a transfer is taken up again where its connection broke."""

LONGEST_WAIT_S = 60.0
"""Longest time to wait where the server asks for that."""

_LEAST_BYTES = 1024  # in STALL_LIMIT_S; less is as good as silence
_MUCH_BYTES = 4 << 20  # after which a broken connection counts as the first
_MOST_BYTES = 8 << 30  # where nobody says how much it is
_BLOCK_BYTES = 1 << 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}


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
        DownloadError: the server refused or fell silent, or the transfer broke off.
        OSError: the disk failed; the space is freed.
    """
    transfer = Transfer(url, into.name, Expected(n_bytes, sha256), secrets or {})
    shown = contextlib.nullcontext(progress) if progress else show_progress(into.name, n_bytes, say)
    with partial_file(into, sha256, cache) as part, shown as progress:
        transfer.fetch(part, progress)
        part.move_to(into)


class _Broken(Exception):
    """It broke off and may go on; what arrived before is good.

    Attributes:
        failure: what asking anew came to, or None if a connection broke.
    """

    def __init__(self, reason: str, failure: Refused | Unanswered | None = None) -> None:
        self.failure = failure
        super().__init__(reason)


class _Whole(Exception):
    """The server says that there is no more than what is here."""


@dataclass
class Transfer:
    """One file's way here.

    Attributes:
        url: asked again whenever the transfer is taken up, redirects and all.
        name: what lines for a person call the file.
        secrets: headers for the url's own host.
        where: what errors call the address; "" for the url itself.
        version: strong ETag or Last-Modified of what a part of unknown digest was begun with.
        on_answer: told the whole size, or None, when an answer begins and `version` is up to date.
        takes_ranges: False once the server has shown that it can't continue a file.
        was_answered: True once the server has shown that it is there.
    """

    url: str
    name: str
    expected: Expected
    secrets: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    version: str = ""
    on_answer: Callable[[int | None], None] | None = None
    takes_ranges: bool = True
    was_answered: bool = False

    def __post_init__(self) -> None:
        self.where = self.where or self.url

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
        if found and not self._is_right(part):
            progress.say(f"what was kept of {self.name} is damaged: fetching it anew")
            part.restart()
            self._run(part, progress)
        if not self._is_right(part):
            kind = self.expected.kind
            raise self._mismatch(f"{part.n_bytes:,} bytes with {kind} {part.digest[:16]}…")

    def _run(self, part: PartialFile, progress: Progress) -> None:
        """Fetch all that is missing, taking up again what breaks as long as there is progress."""
        furthest, retries = part.n_bytes, 0
        while self.expected.n_bytes is None or part.n_bytes < self.expected.n_bytes:
            begun = part.n_bytes
            try:
                self._attempt(part, progress)
                return
            except _Whole:
                return
            except _Broken as broken:
                if part.n_bytes - begun > _MUCH_BYTES:
                    retries = 0
                if retries == MAX_RETRIES or (part.n_bytes <= furthest and broken.failure is None):
                    raise broken.failure or self._given_up(part, broken) from None
                furthest, retries = max(part.n_bytes, furthest), retries + 1
                wait_s = _wait_of(broken.failure, retries)
                then = f"going on in {wait_s:g} s" if wait_s > 2 else "going on"
                progress.say(
                    f"{self.name} broke off after {self._of(part.n_bytes)} ({broken}): {then}"
                )
                time.sleep(wait_s)

    def _given_up(self, part: PartialFile, broken: _Broken) -> DownloadError:
        kept = "; what arrived is kept" if part.is_kept and part.n_bytes else ""
        return DownloadError(
            f"{self.where} broke off after {self._of(part.n_bytes)} ({broken}): try again{kept}"
        )

    def _is_right(self, part: PartialFile) -> bool:
        """Tell whether the file is what was asked for, as far as that is known."""
        return self.expected.n_bytes in (None, part.n_bytes) and (
            self.expected.digest in ("", part.digest)
        )

    def _attempt(self, part: PartialFile, progress: Progress) -> None:
        with self._answer(part) as answer:
            total = self._total(answer)
            if total is not None:
                progress.expect(total)
            if self.on_answer is not None:
                self.on_answer(total)
            progress.at(part.n_bytes)
            most = self.expected.n_bytes or total or _MOST_BYTES
            while block := self._read(answer, part):
                part.append(block)
                if part.n_bytes > most:
                    raise self._mismatch(f"more than {most:,} bytes")
                progress.at(part.n_bytes)
        if part.n_bytes < (total or self.expected.n_bytes or 0):
            raise _Broken("the connection was closed")

    def _answer(self, part: PartialFile) -> HTTPResponse:
        """Ask for the rest of the file, or for all of it where the rest can't be had."""
        from llamalite.libs.transfer.web import Refused

        digest = self.expected.digest
        if not (part.n_bytes and self.takes_ranges and (digest or self.version)):
            part.restart()
            answer = self._open({})
            if answer.status != 200:
                answer.close()
                raise DownloadError(f"{self.where} answered {answer.status}, which is no file")
            return answer
        asked = {"Range": f"bytes={part.n_bytes}-"}
        try:
            answer = self._open(asked if digest else {**asked, "If-Range": self.version})
        except Refused as refusal:
            if refusal.status != 416:
                raise
            if (refusal.headers.get("Content-Range") or "").strip() == f"bytes */{part.n_bytes}":
                raise _Whole from None
            self.takes_ranges = False
            return self._answer(part)
        if answer.status == 200:
            part.restart()
            return answer
        continues = answer.status == 206 and _range_of(answer)[0] == part.n_bytes
        if continues and (digest or _version_of(answer) in (self.version, "")):
            return answer
        answer.close()
        self.takes_ranges = False
        return self._answer(part)

    def _open(self, headers: dict[str, str]) -> HTTPResponse:
        """Return the server's answer.

        Raises:
            Refused, Unanswered: there is none, and it is no use to wait.
            _Broken: it refused, or isn't there any more, in a way that may pass.
        """
        from llamalite.libs.transfer.web import Refused, Unanswered, open_url

        try:
            answer = open_url(self.url, headers, self.secrets, silence_s=STALL_LIMIT_S)
            self.was_answered = True
            return answer
        except Unanswered as failure:
            if not self.was_answered:
                raise
            raise _Broken(failure.reason, failure) from None
        except Refused as refusal:
            if refusal.status not in _PASSING or _wait_of(refusal, 1) > LONGEST_WAIT_S:
                raise
            raise _Broken(f"the server answered {refusal.status}", refusal) from None

    def _total(self, answer: HTTPResponse) -> int | None:
        """Return the whole file's size as the answer has it, and note which version it is."""
        self.version = _version_of(answer) or (self.version if answer.status == 206 else "")
        if answer.status == 206:
            total = _range_of(answer)[1]
        else:
            length = answer.headers.get("Content-Length") or ""
            total = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
        if total is not None and self.expected.n_bytes not in (None, total):
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
                f"{self.where} fell silent for {STALL_LIMIT_S:g} s after {self._of(part.n_bytes)}: "
                f"try again{kept}"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            from llamalite.libs.transfer.web import short_reason

            part.append(block)
            raise _Broken(short_reason(error)) from None
        return block

    def _of(self, received: int) -> str:
        whole = f" of {self.expected.n_bytes:,}" if self.expected.n_bytes is not None else ""
        return f"{received:,}{whole} bytes"

    def _mismatch(self, came: str) -> ChecksumMismatch:
        expected = self.expected
        wanted = "the bytes" if expected.n_bytes is None else f"the {expected.n_bytes:,} bytes"
        digest = f" with {expected.kind} {expected.digest[:16]}…" if expected.digest else ""
        return ChecksumMismatch(
            f"{self.where} gave {came}, not {wanted}{digest} that were expected: nothing was kept; "
            f"try again, or another source"
        )


def _range_of(answer: HTTPResponse) -> tuple[int, int | None]:
    """Return the first byte and the whole size in `Content-Range`; -1 where it says nothing."""
    said = answer.headers.get("Content-Range") or ""
    match = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)", said.strip(), re.ASCII)
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _version_of(answer: HTTPResponse) -> str:
    """Return what `If-Range` takes: a strong ETag, else the date of the last change, else ""."""
    etag = answer.headers.get("ETag") or ""
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified") or ""


def _wait_of(failure: Refused | Unanswered | None, retries: int) -> float:
    """Return the seconds to wait before asking again: those the server asks for, if it does."""
    if failure is None:
        return 0.2 * retries
    headers = getattr(failure, "headers", {})
    said = (headers.get("Retry-After") or "").strip()
    return float(said) if re.fullmatch(r"[0-9]{1,9}", said) else min(0.25 * 2**retries, 4.0)
