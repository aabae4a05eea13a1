"""Models from any web server, fetched into the folder for models.

Owns where the file of an address lies, what is kept beside a partial one so that the next process
can continue it, and the proof that what came is a whole GGUF file. Doesn't know the Hub's ways. May
import `libs`, `gguf`, `names`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llamalite import config
from llamalite.errors import DownloadError, GGUFError, ModelNotFound, Offline
from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.download import Transfer
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.partial import PartialFile, own_partial, shown_wait
from llamalite.libs.transfer.progress import Progress
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.source import Source
from llamalite.libs.transfer.space import check_space, more_room, unwritable
from llamalite.libs.transfer.wording import without_login
from llamalite.models.hub.cache import file_lock
from llamalite.models.names.safety import PARTIAL_FOLDER, check_file_name

_VARIABLE = "LLAMALITE_MODELS_DIR"
_EXPECTED = Expected(begins=b"GGUF")
_MOST_BYTES = 1 << 42  # where the server doesn't say; the disk is full before
_UNSAFE = re.compile(r"[^\w.+@=,~-]", re.ASCII)


def url_path(url: str) -> str:
    """Return where the file of an address lies below the folder for models: HOST/FOLDERS/FILE.

    What differs in its query is another file, in a folder named by a digest of that; logins make
    no difference.

    Raises:
        ModelNotFound: it is no http or https address of a GGUF file.
        InvalidParameter: its path would lead out of the folder.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    path = _unquoted(parts.path).strip("/")
    if parts.scheme not in ("http", "https") or not host or not path.lower().endswith(".gguf"):
        raise ModelNotFound(
            f"{without_login(url)} is no address of a GGUF file: it must begin with https:// (or "
            f"http://) and its path end with .gguf"
        )
    if parts.query:
        folder, slash, file = path.rpartition("/")
        path = f"{folder}{slash}{_digest(parts.query)[:8]}/{file}"
    place = f"{host}_{port}" if port is not None else host
    return check_file_name(f"{_UNSAFE.sub('_', place)}/{path}", without_login(url))


def download_url(url: str, folder: Path, progress: Progress, *, force: bool = False) -> Path:
    """Return where the file of an address lies, fetching what is missing of it.

    What an interrupted fetch left is continued if the server still has the same version (its ETag,
    or date of last change); of two at once, one fetches and the other waits.

    Args:
        url: http or https, of a `.gguf` file.
        folder: for models; made on demand.
        progress: shows the transfer; not told anything if the file is here.
        force: fetch it though it is here.

    Raises:
        ModelNotFound, InvalidParameter: as `url_path`.
        Offline: network use is switched off.
        DownloadError: the server can't be reached, refused, fell silent or sent something else, or
            the disk is full.
    """
    name, shown = url_path(url), without_login(url)
    path = folder / name
    if path.is_file() and not force:
        return path
    if config.is_offline():
        raise Offline(
            f"LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids fetching {shown}: unset it, or give the "
            f"path of a GGUF file"
        )
    if reason := unreachable_reason(url):
        raise DownloadError(f"{shown} can't be fetched: its host can't be reached ({reason})")
    try:
        # The whole name may be too long for that of a file.
        _bring(url, folder / PARTIAL_FOLDER / _digest(name)[:32], path, progress, force)
    except OSError as err:
        raise unwritable(err, path, _VARIABLE) from err
    return path


def _bring(url: str, beside: Path, path: Path, progress: Progress, force: bool) -> None:
    """Put the file into its place, unless another process does so first."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    part, note = (beside.with_name(beside.name + end) for end in (".part", ".json"))
    lock = beside.with_name(beside.name + ".lock")
    with file_lock(lock, shown_wait(part, path.name, progress)):
        if force or not path.is_file():
            try:
                with own_partial(part, _EXPECTED) as file, _said(url):
                    _fetch(url, file, note, progress)
                    file.finish()
                _check(part, without_login(url))
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, path)
            finally:
                if not part.exists():
                    note.unlink(missing_ok=True)


def _fetch(url: str, file: PartialFile, note: Path, progress: Progress) -> None:
    """Fetch what is missing, noting which version it is a part of before its first byte."""
    shown = without_login(url)
    known = _noted(note)
    source = Source(url, _EXPECTED, where=shown, version=known[0], total=known[1])

    def on_size(n_bytes: int) -> None:
        check_space(note.parent, n_bytes, shown, more_room(_VARIABLE))

    def on_begin() -> None:
        nonlocal known
        if known != (source.version, source.total):
            known = source.version, source.total
            new = note.with_name(note.name + ".new")
            content = {"url": shown, "version": source.version, "total": source.total}
            new.write_text(json.dumps(content), encoding="utf-8")
            os.replace(new, note)

    Transfer(source, shown.rpartition("/")[2], _MOST_BYTES, on_size, on_begin).fetch(file, progress)


def _noted(note: Path) -> tuple[str, int | None]:
    """Return the version that a partial file is of and its whole size, as far as they are known."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        version, total = said["version"], said.get("total")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "", None
    is_size = isinstance(total, int) and total >= 0
    return (version if isinstance(version, str) else ""), (total if is_size else None)


def _unquoted(path: str) -> str:
    """Return a path without its quotes if that is text, or else as it is."""
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check(part: Path, shown: str) -> None:
    """Refuse, and remove, what is no whole GGUF file."""
    try:
        GGUFReader(part, follow_split=False).close()
    except GGUFError as err:
        part.unlink(missing_ok=True)
        reason = str(err).removeprefix(f"{part}: ")
        raise DownloadError(
            f"what {shown} gave is no whole GGUF file ({reason}): nothing was kept; see that the "
            f"address is right, and try again"
        ) from err


@contextlib.contextmanager
def _said(url: str) -> Iterator[None]:
    """Say what a server's refusal means, without what may be secret in the address."""
    from llamalite.libs.transfer.web import Refused, Unanswered
    from llamalite.models.hub.refusals import refusal

    try:
        yield
    except Refused as err:
        reason = refusal(err.status, err.reason, "", None, err.headers.get("Retry-After"))
    except Unanswered as err:
        reason = err.reason
    else:
        return
    raise DownloadError(f"{without_login(url)} can't be fetched: {reason}")
