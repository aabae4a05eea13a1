"""Files of upstream's releases: what their names say, in every era.

Owns the one parser of file names, which file answers to which backend, and the name a file of a
known build must have. Knows no release and fetches nothing. Imports the standard library and
`llamalite.errors`.

Source: names of upstream's release files, b5640 to b11434.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from llamalite.errors import InvalidParameter

_NAME = re.compile(
    r"""(?P<kind>cudart-llama|llama)(?:-(?P<tag>b\d{1,7}))?-bin-(?P<os>macos|ubuntu|win)-
    (?P<rest>[a-z0-9]+(?:[.-][a-z0-9]+){0,8})(?P<suffix>\.tar\.gz|\.zip)""",
    re.VERBOSE | re.ASCII,
)
_SYSTEMS = {"macos": "macos", "ubuntu": "linux", "win": "windows"}
_NAMES_OF_SYSTEMS = {system: name for name, system in _SYSTEMS.items()}
_ARCHES = ("x64", "arm64")
_OWN_NAMES = {"hip-radeon": "rocm", "hip": "rocm"}

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "linux-x64": ("cpu", "cuda", "openvino", "rocm", "sycl", "vulkan"),
    "linux-arm64": ("cpu", "cuda", "vulkan"),
    "macos-x64": ("cpu",),
    "macos-arm64": ("cpu", "metal"),
    "windows-x64": ("cpu", "cuda", "openvino", "rocm", "sycl", "vulkan"),
    "windows-arm64": ("cpu", "cuda", "opencl", "vulkan"),
}
"""Backends upstream has published for each platform in some release, without their versions."""

OTHER_FAMILIES = ("blas", "cann", "hexagon", "kleidiai", "musa", "virtgpu", "webgpu", "zdnn")
"""Backends llama.cpp can be built with that upstream publishes for none of these platforms."""

_BACKEND = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
_LIKELY = {
    ("linux", "cuda"): "cuda-12.8",
    ("windows", "cuda"): "cuda-12.4",
    ("linux", "rocm"): "rocm-10.0",
    ("windows", "rocm"): "rocm-10.0",
    ("linux", "sycl"): "sycl-fp16",
    ("linux", "openvino"): "openvino-2026.4.1",
    ("windows", "openvino"): "openvino-2026.4.1",
    ("windows", "opencl"): "opencl-adreno",
}
_FIRST_TAR_GZ = 7224
_FIRST_WINDOWS_ROCM = 10356


@dataclass(frozen=True)
class Asset:
    """One file of a GitHub release.

    Attributes:
        n_bytes: its size, or None where nobody has said it.
        sha256: its digest in hexadecimal, or None where nobody has said it.
        platform: for which it is, as `linux-x64`.
        backends: names it answers to; the first is its own.
        runtime: file with libraries it needs besides the driver (CUDA's), or None.
    """

    file: str
    n_bytes: int | None
    sha256: str | None
    platform: str = ""
    backends: tuple[str, ...] = ()
    runtime: Asset | None = None


@dataclass(frozen=True)
class AssetName:
    """What a file name says.

    Attributes:
        tag: the build's, or None: CUDA's runtime for Windows has none in its name.
        platform: as `linux-x64`.
        backend: with its version where the name has one: `cpu`, `cuda-12.8`, `sycl-fp16`.
        is_runtime: True for CUDA's runtime, which holds nothing of llama.cpp.
        suffix: `.zip` or `.tar.gz`.
    """

    tag: str | None
    platform: str
    backend: str
    is_runtime: bool
    suffix: str


def parse_asset_name(file: str) -> AssetName | None:
    """Read a file name of any era; None if it is no build for a platform that llamalite knows.

    Eras: `llama-b5640-bin-ubuntu-x64.zip`, `llama-b5640-bin-win-hip-radeon-x64.zip`,
    `llama-b11146-bin-ubuntu-cuda-12.8-x64.tar.gz`, `cudart-llama-bin-win-cuda-12.4-x64.zip`.
    """
    match = _NAME.fullmatch(file)
    if match is None:
        return None
    parts = match["rest"].split("-")
    arches = [part for part in parts if part in _ARCHES]
    if len(arches) != 1:
        return None
    platform = f"{_SYSTEMS[match['os']]}-{arches[0]}"
    named = "-".join(part for part in parts if part not in _ARCHES)
    backend = _OWN_NAMES.get(named, named) or ("metal" if platform == "macos-arm64" else "cpu")
    is_runtime = match["kind"] != "llama"
    return AssetName(match["tag"], platform, backend, is_runtime, match["suffix"])


def family(backend: str) -> str:
    """Return a backend's name without its version: `cuda` for `cuda-12.8`."""
    return backend.partition("-")[0]


def check_backend(backend: str) -> None:
    """Refuse what can't be a backend's name: folders and files are named after it.

    Raises:
        InvalidParameter: it can't be one.
    """
    if not _BACKEND.fullmatch(backend):
        raise InvalidParameter(
            f"{backend[:60]!r} is no name of a backend: give cpu, cuda, vulkan, metal, …",
            param="backend",
        )


def is_known(backend: str) -> bool:
    """Tell whether llama.cpp has such a backend, on any platform."""
    return any(family(backend) in names for names in (*FAMILIES.values(), OTHER_FAMILIES))


def read_assets(files: Iterable[tuple[str, int | None, str | None]]) -> tuple[Asset, ...]:
    """Return one release's builds from the names, sizes and digests of its files.

    Files that are no build are left out, and a zip where the same is there as tar.gz. CUDA's
    runtime is joined to the build it belongs to. A name without version (`cuda`) is answered to
    by the lowest version, which the most drivers can run.
    """
    builds: dict[tuple[str, str], Asset] = {}
    runtimes: dict[tuple[str, str], Asset] = {}
    for file, n_bytes, sha256 in sorted(files, key=lambda row: row[0].endswith(".tar.gz")):
        name = parse_asset_name(file)
        if name is not None:
            asset = Asset(file, n_bytes, sha256, name.platform, (name.backend,))
            (runtimes if name.is_runtime else builds)[name.platform, name.backend] = asset
    best: dict[tuple[str, str], str] = {}
    for platform, backend in sorted(builds, key=lambda key: (key[0], _version(key[1]), key[1])):
        best.setdefault((platform, family(backend)), backend)
    return tuple(
        replace(
            asset,
            backends=_answered(platform, backend, best),
            runtime=runtimes.get((platform, backend)),
        )
        for (platform, backend), asset in builds.items()
    )


def _answered(platform: str, backend: str, best: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    names = [backend]
    if best[platform, family(backend)] == backend:
        names.append(family(backend))
    if backend == "metal":
        names.append("cpu")  # macOS builds for Apple processors hold both
    return tuple(dict.fromkeys(names))


def _version(backend: str) -> tuple[int, ...]:
    match = re.search(r"-(\d+(?:\.\d+)*)$", backend)
    return tuple(map(int, match[1].split("."))) if match else ()


def find_asset(assets: Iterable[Asset], platform: str, backend: str) -> Asset | None:
    """Return the file for a platform and backend, or None."""
    for asset in assets:
        if asset.platform == platform and backend in asset.backends:
            return asset
    return None


def likely_asset(tag: str, platform: str, backend: str) -> Asset:
    """Return the file build `bNNNN` must have had by the naming of its era.

    Nobody has said that it exists, nor its size or digest. A backend without a version is taken
    for the version that upstream publishes for the most drivers.
    """
    system, arch = platform.split("-")
    number = int(tag[1:])
    backend = _LIKELY.get((system, backend), backend)
    suffix = ".zip" if system == "windows" or number < _FIRST_TAR_GZ else ".tar.gz"
    named = f"{backend}-"
    if backend == "metal" or (backend == "cpu" and system != "windows"):
        named = ""
    elif family(backend) == "rocm" and system == "windows" and number < _FIRST_WINDOWS_ROCM:
        backend, named = "rocm", "hip-radeon-"
    rest = f"bin-{_NAMES_OF_SYSTEMS[system]}-{named}{arch}{suffix}"
    runtime = None
    if family(backend) == "cuda":
        build = "" if system == "windows" else f"{tag}-"
        runtime = Asset(f"cudart-llama-{build}{rest}", None, None, platform, (backend,))
    return Asset(f"llama-{tag}-{rest}", None, None, platform, (backend,), runtime)
