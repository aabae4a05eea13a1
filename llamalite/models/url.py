"""Models from any web server, fetched into the folder for models.

Owns where the file of an address lies, what is kept beside a partial one so that the next process
can continue it, and the proof that what came is a whole GGUF file. Doesn't know the Hub's ways. May
import `libs`, `gguf`, `names`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
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
from llamalite.libs.transfer.partial import PartialFile, own_partial
from llamalite.libs.transfer.progress import Progress
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.space import check_space
from llamalite.libs.transfer.wording import without_login
from llamalite.models.hub.cache import file_lock
from llamalite.models.names.safety import check_file_name

PARTIAL_FOLDER = ".partial"
"""Below the folder for models: what is being fetched, out of sight of whoever looks for models."""

_REMEDY = "free some, or set LLAMALITE_MODELS_DIR to a folder with more"
_UNSAFE = re.compile(r"[^\w.+@=,~-]", re.ASCII)


def url_path(url: str) -> str:
    """Return where the file of an address lies below the folder for models: HOST/FOLDERS/FILE.

    Queries and logins make no difference.

    Raises:
        ModelNotFound: it is no http or https address of a GGUF file.
        InvalidParameter: its path would lead out of the folder.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    path = unquote(parts.path).strip("/")
    if parts.scheme not in ("http", "https") or not host or not path.lower().endswith(".gguf"):
        raise ModelNotFound(
            f"{without_login(url)} is no address of a GGUF file: it must begin with https:// (or "
            f"http://) and its path end with .gguf"
        )
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
        _bring(url, folder / PARTIAL_FOLDER / name.replace("/", "%2F"), path, progress, force)
    except OSError as err:
        raise DownloadError(
            f"{err.filename or path} can't be written ({err.strerror or err}): {_REMEDY}, and try "
            f"again; what arrived is kept"
        ) from err
    return path


def _bring(url: str, beside: Path, path: Path, progress: Progress, force: bool) -> None:
    """Put the file into its place, unless another process does so first."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    part, note = (beside.with_name(beside.name + end) for end in (".part", ".json"))
    waits = 0

    def waiting() -> None:
        nonlocal waits
        if not waits:
            progress.say(f"another program is fetching {path.name}: waiting for it")
        waits += 1
        with contextlib.suppress(OSError):
            progress.at(part.stat().st_size)

    lock = beside.with_name(beside.name + ".lock")
    with file_lock(lock, waiting):
        if force or not path.is_file():
            with own_partial(part, Expected()) as file, _said(url):
                _fetch(url, file, note, progress)
                file.finish()
            _check(part, without_login(url))
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, path)
            note.unlink(missing_ok=True)


def _fetch(url: str, file: PartialFile, note: Path, progress: Progress) -> None:
    """Fetch what is missing, noting which version it is a part of before the first byte."""
    shown = without_login(url)
    transfer = Transfer(url, shown.rpartition("/")[2], Expected(), where=shown)
    transfer.version = known = _noted_version(note)

    def on_answer(total: int | None) -> None:
        nonlocal known
        check_space(note.parent, (total or 0) - file.n_bytes, shown, _REMEDY)
        if transfer.version != known:
            known = transfer.version
            new = note.with_name(note.name + ".new")
            new.write_text(json.dumps({"url": shown, "version": known}), encoding="utf-8")
            os.replace(new, note)

    transfer.on_answer = on_answer
    transfer.fetch(file, progress)


def _noted_version(note: Path) -> str:
    """Return the version that a partial file is of; "" where nobody knows."""
    try:
        version = json.loads(note.read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return version if isinstance(version, str) else ""


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
