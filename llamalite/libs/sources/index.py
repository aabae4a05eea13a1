"""Which package indexes pip or uv would ask, and whether they answer.

Owns reading the installer's own settings, so that no index's address is written here. Doesn't know
what is fetched. Imports the standard library and the modules beside it.

Source: pip's "Configuration" page (order: environment, `[download]`, `[global]`); uv's list of
environment variables.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from llamalite.libs.transfer.reach import unreachable_reason

SETTINGS_LIMIT_S = 6.0
"""Longest time pip may take to say what it is set to."""

_SECTIONS = (":env:", "download", "global")
_SET = re.compile(r"(:env:|global|download)\.([a-z-]+)=(.+)")
_DEFAULT = re.compile(r"--index-url <url>.*?\(default\s+(\S+)\)", re.DOTALL)
_TRUE = {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True)
class IndexState:
    """What is to be expected of the installer here.

    Attributes:
        problem: why it can't fetch anything, or None.
        options: for pip's command line, so that it doesn't wait long for what doesn't answer.
        environment: for uv, to the same end.
        silent: hosts that don't answer, and why; "" if all do or nothing is known.
    """

    problem: str | None = None
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    silent: str = ""


def index_state(argv: Sequence[str], *, is_uv: bool) -> IndexState:
    """Probe the indexes an installer is set to, within seconds.

    Folders of wheels (`--find-links`) and `file://` indexes count as answering; where every index
    is silent and there are such places, the installer is asked all the same, with little patience.

    Args:
        argv: how pip or uv is started.
        is_uv: which of the two it is.
    """
    watched = ("PIP_", "UV_", "HTTP_", "HTTPS_", "ALL_PROXY", "NO_PROXY", "XDG_", "HOME", "VIRTUAL")
    relevant = {
        name: value for name, value in os.environ.items() if name.upper().startswith(watched)
    }
    places = _uv_places() if is_uv else _pip_places(tuple(argv), tuple(sorted(relevant.items())))
    if places is None:
        return _impatient("uv" if is_uv else "pip")
    remote = [url for url in places.urls if url.startswith(("http://", "https://"))]
    reasons = {url: unreachable_reason(url, proxy=places.proxy) for url in remote}
    silent = "; ".join(dict.fromkeys(reason for reason in reasons.values() if reason))
    if not silent:
        return IndexState()
    if all(reasons.values()) and len(remote) == len(places.urls):
        name = "uv" if is_uv else "pip"
        return IndexState(f"{name}'s package index can't be reached: {silent}", silent=silent)
    return _impatient("uv" if is_uv else "pip", silent)


@dataclass(frozen=True)
class _Places:
    """Where an installer looks: indexes and folders of wheels; None in `proxy`: environment's."""

    urls: tuple[str, ...]
    proxy: str | None = None


def _impatient(name: str, silent: str = "") -> IndexState:
    if name == "pip":
        return IndexState(options=("--retries", "0", "--timeout", "4"), silent=silent)
    hurry = {"UV_HTTP_TIMEOUT": "4", "UV_HTTP_RETRIES": "0"}
    kept = {name: value for name, value in hurry.items() if name not in os.environ}
    return IndexState(environment=kept, silent=silent)


def _uv_places() -> _Places | None:
    """Read uv's environment; None where its default index, or a file's, is used."""

    def words(*names: str) -> list[str]:
        text = " ".join(os.environ.get(name, "") for name in names)
        return [re.sub(r"^[\w-]+=", "", word) for word in re.split(r"[\s,]+", text) if word]

    links = words("UV_FIND_LINKS")
    if any(os.environ.get(name, "").lower() in _TRUE for name in ("UV_NO_INDEX", "UV_OFFLINE")):
        return _Places(tuple(links))
    default = words("UV_DEFAULT_INDEX") or words("UV_INDEX_URL")
    if not default:
        return None
    return _Places((*default, *words("UV_INDEX", "UV_EXTRA_INDEX_URL"), *links))


@lru_cache(maxsize=4)
def _pip_places(argv: tuple[str, ...], _environment: tuple[object, ...]) -> _Places | None:
    """Ask pip what it is set to; None if it doesn't say."""
    if os.environ.get("PIP_NO_INDEX", "").lower() in _TRUE:
        return _Places(tuple(os.environ.get("PIP_FIND_LINKS", "").split()))
    listed = _say([*argv, "config", "list"])
    if listed is None:
        return None
    settings: dict[str, str] = {}
    for section in reversed(_SECTIONS):
        for line in listed.splitlines():
            found = _SET.fullmatch(line.strip())
            if found and found[1] == section:
                settings[found[2]] = _text(found[3])
    links = settings.get("find-links", "").split()
    proxy = settings.get("proxy")
    if settings.get("no-index", "").lower() in _TRUE:
        return _Places(tuple(links), proxy)
    index = settings.get("index-url") or _default_index(argv)
    if index is None:
        return None
    return _Places((index, *settings.get("extra-index-url", "").split(), *links), proxy)


def _default_index(argv: tuple[str, ...]) -> str | None:
    found = _DEFAULT.search(_say([*argv, "download", "--help"]) or "")
    return found[1] if found else None


def _text(quoted: str) -> str:
    try:
        return str(ast.literal_eval(quoted))
    except (ValueError, SyntaxError):
        return quoted


def _say(argv: list[str]) -> str | None:
    """Return what a short command prints, or None if it fails or takes too long."""
    # A wide terminal, so that no address is broken across lines.
    env = {**os.environ, "COLUMNS": "10000", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SETTINGS_LIMIT_S,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
