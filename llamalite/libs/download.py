"""Fetches one file over HTTP and verifies it.

Owns the transfer, its progress and the proof that what arrived is what was asked for. Doesn't know
what the file is for. Imports `llamalite.errors`; network and terminal libraries inside functions.

The standard library's client is used, so that `scripts/fetch_libllama.py` runs from a bare
checkout: it follows redirects, honours the system's proxies and needs no other package.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llamalite.errors import ChecksumMismatch, DownloadError

if TYPE_CHECKING:
    from http.client import HTTPResponse

Say = Callable[[str], None]
Advance = Callable[[int], None]

STALL_LIMIT_S = 30.0
"""Longest silence of a server before the transfer is given up."""

_CHUNK_BYTES = 1 << 18


def say_on_stderr(line: str) -> None:
    """Print a line for a person, where it can't get into a program's output."""
    print(line, file=sys.stderr, flush=True)


def download(url: str, into: Path, n_bytes: int, sha256: str, say: Say | None = None) -> None:
    """Fetch a file whose size and digest are known.

    Args:
        url: http or https; redirects are followed.
        into: path written to; removed again on any failure.
        n_bytes: its size.
        sha256: its digest, in hexadecimal.
        say: takes a progress line per 10 %; None for stderr, with a bar on a terminal.

    Raises:
        ChecksumMismatch: what arrived has another size or digest.
        DownloadError: the server refused, or the transfer broke off.
    """
    try:
        with _progress(into.name, n_bytes, say) as advance, open(into, "wb") as target:
            digest, received = _transfer(url, target, n_bytes, advance)
        if received != n_bytes or digest != sha256.lower():
            raise ChecksumMismatch(
                f"{url} gave {received:,} bytes with sha256 {digest[:16]}…, not the {n_bytes:,} "
                f"bytes with {sha256[:16]}… that were pinned: nothing was kept; try again, or "
                f"another mirror through LLAMALITE_GITHUB_URL"
            )
    except BaseException:
        into.unlink(missing_ok=True)
        raise


def _transfer(url: str, target: IO[bytes], n_bytes: int, advance: Advance) -> tuple[str, int]:
    digest, received = hashlib.sha256(), 0
    with _opened(url) as response:
        while True:
            try:
                block = response.read(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise DownloadError(
                    f"{url} broke off after {received:,} of {n_bytes:,} bytes "
                    f"({_short(error)}): try again"
                ) from None
            if not block:
                return digest.hexdigest(), received
            received += len(block)
            if received > n_bytes:
                return digest.hexdigest(), received  # too long already: no need to see the rest
            digest.update(block)
            target.write(block)
            advance(received)


@contextmanager
def _opened(url: str) -> Iterator[HTTPResponse]:
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPSHandler, Request, build_opener

    opener = build_opener(HTTPSHandler(context=_tls()))
    try:
        response = opener.open(
            Request(url, headers={"User-Agent": "llamalite"}), timeout=STALL_LIMIT_S
        )
    except HTTPError as error:
        error.close()
        raise DownloadError(
            f"{url} answered {error.code} {error.reason}: see that the address is right and that "
            f"a mirror has this file"
        ) from None
    except URLError as error:
        raise DownloadError(f"{url} can't be fetched ({_short(error.reason)})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{url} can't be fetched ({_short(error)})") from None
    with response:
        yield response


def _tls() -> ssl.SSLContext:
    """The system's trusted certificates, and certifi's where it is installed.

    NOTE: Pythons from python.org on macOS come without any certificates of their own.
    """
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def _short(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def _progress(name: str, n_bytes: int, say: Say | None) -> Iterator[Advance]:
    if say is None and sys.stderr.isatty():
        try:
            import rich.progress  # noqa: F401
        except ImportError:
            pass  # a bare checkout has lines instead
        else:
            with _bar(name, n_bytes) as advance:
                yield advance
            return
    yield _Lines(name, n_bytes, say or say_on_stderr)


@contextmanager
def _bar(name: str, n_bytes: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=n_bytes)
        yield lambda received: progress.update(task, completed=received)


class _Lines:
    """A line at each tenth, but none for a transfer that takes no time."""

    def __init__(self, name: str, n_bytes: int, say: Say) -> None:
        self.name, self.n_bytes, self.say = name, n_bytes, say
        self.tenths = 0
        self.started = time.monotonic()

    def __call__(self, received: int) -> None:
        tenths = 10 * received // max(self.n_bytes, 1)
        if tenths > self.tenths:
            self.tenths = tenths
            if time.monotonic() - self.started > 0.5:
                self.say(f"{self.name}: {10 * tenths} % of {self.n_bytes:,} bytes")
