"""What GitHub's releases API says of a release, with every field checked.

Owns the API's address, its token, its limits and the meaning of its answers. Doesn't know what is
done with a release. Imports the standard library, `llamalite.errors` and `assets`; network
libraries inside functions.

Source: GitHub's REST API, version 2022-11-28, "Releases".
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from base64 import b64encode
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from llamalite.errors import DownloadError
from llamalite.libs.sources.assets import Asset, parse_asset_name, read_assets

if TYPE_CHECKING:
    from llamalite.libs.transfer.progress import Say
    from llamalite.libs.transfer.web import Refused

GITHUB = "https://github.com"
REPOSITORY = "ggml-org/llama.cpp"
NOTE_FILE = "nightly-tag.txt"
"""All that a `vX.Y.Z` release holds: the name of its build."""

BUILD_TAG = re.compile(r"b\d{1,7}", re.ASCII)
VERSION_TAG = re.compile(r"v\d{1,5}(\.\d{1,5}){1,3}", re.ASCII)
LATEST = "latest"

CALL_LIMIT_S = 5.0
"""Longest time one answer may take."""

RESOLVE_LIMIT_S = 10.0
"""Longest time all questions about one release may take."""

_MAX_BYTES = 4 << 20
_MAX_ASSETS = 1000
_MAX_ASSET_BYTES = 8 << 30
_WITH_PASSWORD = re.compile(r"(\w+://)([^/?#]*)@(.*)")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


class ApiSilent(DownloadError):
    """The API doesn't say what a release holds: out of reach, down, limited or no such API.

    Attributes:
        reason: what it did, to follow "the releases API".
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the releases API at {api_url()} {reason}: try again later")


@dataclass(frozen=True)
class Release:
    """A release as the API has it.

    Attributes:
        tag: `bNNNN` or `vX.Y.Z`.
        assets: its builds; those without a digest have None there.
        has_note: True if it holds the file that names its build.
    """

    tag: str
    assets: tuple[Asset, ...]
    has_note: bool


class Deadline:
    """A limit for several calls together."""

    def __init__(self, limit_s: float) -> None:
        self.end = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Return the time the next call may take; little, but never none."""
        return max(0.5, min(CALL_LIMIT_S, self.end - time.monotonic()))


def github_url() -> str:
    """Return GitHub's address, or the mirror's that `LLAMALITE_GITHUB_URL` names.

    Without a name and password, which `secrets_for` has.
    """
    return _address("LLAMALITE_GITHUB_URL")[0] or GITHUB


def api_url() -> str:
    """Return the releases API's address: GitHub's or the mirror's own.

    A mirror's is where a company's own GitHub has it, unless `LLAMALITE_GITHUB_API_URL` says other.
    """
    own, mirror = _address("LLAMALITE_GITHUB_API_URL")[0], github_url()
    return own or ("https://api.github.com" if mirror == GITHUB else f"{mirror}/api/v3")


def secrets_for(url: str) -> dict[str, str]:
    """Return headers with the name and password that a mirror's address has, for its URLs alone."""
    for name in ("LLAMALITE_GITHUB_API_URL", "LLAMALITE_GITHUB_URL"):
        address, secrets = _address(name)
        if secrets and url.startswith(f"{address}/"):
            return secrets
    return {}


def _address(name: str) -> tuple[str, dict[str, str]]:
    """Read a variable: the address, and headers with the name and password that stood in it."""
    address = (os.environ.get(name) or "").strip().rstrip("/")
    match = _WITH_PASSWORD.fullmatch(address)
    if match is None:
        return address, {}
    user, _, password = match[2].partition(":")
    plain = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "surrogateescape")
    return match[1] + match[3], {"Authorization": f"Basic {b64encode(plain).decode()}"}


def release_url(tag: str, file: str) -> str:
    """Return where a release's file lies; `latest` leads to the latest release's."""
    place = "latest/download" if tag == LATEST else f"download/{tag}"
    return f"{github_url()}/{REPOSITORY}/releases/{place}/{file}"


def ask_release(name: str, deadline: Deadline, say: Say) -> Release | None:
    """Ask the API for a release.

    Args:
        name: a tag, or `latest`.
        deadline: for this call and others.
        say: takes a line when the token is refused.

    Returns:
        The release, or None if there is none of that name.

    Raises:
        ApiSilent: the API doesn't say.
    """
    from llamalite.libs.transfer.web import Refused, Unanswered, read_small

    url = f"{api_url()}/repos/{REPOSITORY}/releases/"
    url += LATEST if name == LATEST else f"tags/{name}"
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    for secrets in _secrets():
        try:
            body = read_small(url, _MAX_BYTES, headers, secrets, deadline.left_s())
        except Refused as refusal:
            if refusal.status == 401 and secrets.get("Authorization", "").startswith("Bearer"):
                say("GITHUB_TOKEN (or GH_TOKEN) is not accepted by the releases API: going without")
                continue
            if refusal.status == 404 and _means_no_release(refusal):
                return None
            raise ApiSilent(_refusal(refusal)) from None
        except Unanswered as silence:
            raise ApiSilent(f"can't be reached ({silence.reason})") from None
        release = _read_release(body)
        if name not in (LATEST, release.tag):
            raise ApiSilent(f"answered with another release than {name}")
        return release
    raise ApiSilent("refuses to answer")


def _secrets() -> list[dict[str, str]]:
    """Headers to try in turn: with the user's token, if there is one, and without."""
    own = secrets_for(f"{api_url()}/")
    token = (os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN") or "").strip()
    if not re.fullmatch(r"[!-~]{1,500}", token) or not _is_private(api_url()):
        return [own]
    return [{"Authorization": f"Bearer {token}"}, own]


def _is_private(url: str) -> bool:
    """Tell whether nobody between here and there can read what is sent."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False


def _means_no_release(refusal: Refused) -> bool:
    """Tell an API's own 404 from that of a mirror that has no API."""
    if api_url() == "https://api.github.com":
        return True
    try:
        answer = json.loads(refusal.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and answer.get("message") == "Not Found"


def _refusal(refusal: Refused) -> str:
    headers = refusal.headers
    if refusal.status in (403, 429) and (
        headers.get("X-RateLimit-Remaining") == "0" or headers.get("Retry-After")
    ):
        return f"has its rate limit used up{_until(headers)}; GITHUB_TOKEN raises it"
    if refusal.status == 404:
        return "answered 404, as a mirror without such an API does"
    return f"answered {refusal.status}"


def _until(headers: Message) -> str:
    """Say when a rate limit ends, where the headers do."""
    reset, after = headers.get("X-RateLimit-Reset") or "", headers.get("Retry-After") or ""
    if re.fullmatch(r"[0-9]{1,6}", after):
        wait_s = float(after)
    elif re.fullmatch(r"[0-9]{1,12}", reset):
        wait_s = float(reset) - time.time()
    else:
        return ""
    if not 0 < wait_s < 86400:
        return ""
    clock = time.strftime("%H:%M", time.localtime(time.time() + wait_s))
    return f" until {clock} (in {math.ceil(wait_s / 60)} minutes)"


def _read_release(body: bytes) -> Release:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiSilent("answered something that is no JSON") from None
    try:
        return _checked_release(answer)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        wrong = error.args[0] if isinstance(error, ValueError) else "its fields"
        raise ApiSilent(f"answered something that is no release ({wrong})") from None


def _checked_release(answer: Any) -> Release:
    tag, records = answer["tag_name"], answer["assets"]
    if not (BUILD_TAG.fullmatch(tag) or VERSION_TAG.fullmatch(tag)):
        raise ValueError("its tag")
    if not isinstance(records, list) or len(records) > _MAX_ASSETS:
        raise ValueError("its list of files")
    rows: dict[str, tuple[str, int | None, str | None]] = {}
    has_note = False
    for record in records:
        file = record["name"]
        has_note = has_note or file == NOTE_FILE
        name = parse_asset_name(file)
        if name is None or name.tag not in (None, tag):
            continue
        if record.get("state", "uploaded") != "uploaded":
            continue  # its upload goes on, or has failed
        if file in rows:
            raise ValueError(f"{file} twice")
        rows[file] = (file, _size(file, record["size"]), _digest(file, record.get("digest")))
    return Release(tag, read_assets(rows.values()), has_note)


def _size(file: str, size: Any) -> int:
    if type(size) is not int or not 0 < size <= _MAX_ASSET_BYTES:
        raise ValueError(f"the size of {file}")
    return size


def _digest(file: str, digest: Any) -> str | None:
    """Return a sha256; None where there is no digest, or one of another kind."""
    if digest is None or (isinstance(digest, str) and not digest.startswith("sha256:")):
        return None
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(f"the digest of {file}")
    return match[1].lower()
