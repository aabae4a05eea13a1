"""The pinned release: which files and packages hold it, and how each is verified.

Owns names, sizes and digests, and nothing about fetching. Imports the standard library,
`llamalite.errors` and `assets`.

Source: sizes and sha256 of b11146's files as GitHub's releases API reports them
(`assets[].digest`); package names and versions as the npm registry lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llamalite.errors import LibraryNotFound
from llamalite.libs.sources.assets import FAMILIES, Asset, family, find_asset, read_assets


@dataclass(frozen=True)
class NpmPin:
    """One npm package at one version.

    Attributes:
        release: upstream's tag of what is in it.
    """

    package: str
    version: str
    release: str

    def __str__(self) -> str:
        return f"{self.package}@{self.version}"


@dataclass(frozen=True)
class ReleaseTable:
    """A release and everything known about where it lies.

    Attributes:
        tag: upstream's build tag.
        aliases: other names of builds, mapped to build tags (`v0.5.0` to `b11146`).
        npm: by (platform, backend).
    """

    tag: str
    aliases: Mapping[str, str]
    assets: tuple[Asset, ...]
    npm: Mapping[tuple[str, str], NpmPin]

    def build_tag(self, release: str) -> str:
        """Return the build's tag for one of its names; unknown names are returned as they are."""
        return self.aliases.get(release, release)

    def asset(self, platform: str, backend: str) -> Asset | None:
        """Return the file with a pinned digest for a platform and backend, or None."""
        return find_asset(self.assets, platform, backend)

    def backends(self, platform: str) -> tuple[str, ...]:
        """Return every backend known for a platform in any source, `cpu` first."""
        names = {
            name for asset in self.assets if asset.platform == platform for name in asset.backends
        }
        names |= {backend for system, backend in self.npm if system == platform}
        return tuple(sorted(names, key=lambda name: (name != "cpu", name)))

    def check_published(self, platform: str, backend: str) -> None:
        """Refuse a backend that nobody publishes for a platform, in this release or another.

        Raises:
            LibraryNotFound: none is; the message lists those that are.
        """
        known = dict.fromkeys((*self.backends(platform), *FAMILIES.get(platform, ())))
        if backend not in known and family(backend) not in FAMILIES.get(platform, ()):
            raise LibraryNotFound(
                f"there is no {backend} build of libllama for {platform}: choose one of "
                f"{', '.join(known) or '(none)'}"
            )


_TAG = "b11146"

# File, size in bytes, sha256.
_FILES = """
llama-b11146-bin-macos-arm64.tar.gz 11189714
    1ad3f9eff80edb9dbef4259ad564d1720612ef7eea48fa4afed0e54f5f3d5711
llama-b11146-bin-macos-x64.tar.gz 11237237
    305f0e3a17d2c01eb205cd0a62128357f1ec3b55329cb084d94e5ec0115d7a3b
llama-b11146-bin-ubuntu-x64.tar.gz 16998357
    c150306eb16b5ab696f76a8bdf810c35fd98a24e82158742e6fa28f420ff8410
llama-b11146-bin-ubuntu-arm64.tar.gz 13598346
    4aeda6fe68831547e49b7fa87607383ca5352b3d72ca5f70d52ed265f58c131f
llama-b11146-bin-ubuntu-vulkan-x64.tar.gz 30598492
    d3ce40fce7403cc93bcf5718fc46c6efb61ed9709f8e5d9f10c86bf0e30e8fb3
llama-b11146-bin-ubuntu-vulkan-arm64.tar.gz 24410274
    5dcebe3ecbcb43a1ed85e3284453f9edf54dcca833e1cb1f54b4022b753c1da5
llama-b11146-bin-ubuntu-cuda-12.8-x64.tar.gz 168920581
    c2ab9e19838513ff69d1af8d999ad717dd3c7ee4714ac04c7ed5ab9077c50e4e
llama-b11146-bin-ubuntu-cuda-13.4-x64.tar.gz 149265156
    1603d9c00a4b6eac8298c5c7868cdb080a3ac31948ab1e457441d71ce274dd7e
llama-b11146-bin-ubuntu-rocm-10.0-x64.tar.gz 234721151
    50e79dc559a11af3ea59391d416e9a704a715ac6be94352dbba710782c5dd7d1
llama-b11146-bin-win-cpu-x64.zip 18560055
    14cf1303ca9ac3abd94816850532f9f9a69ac66fbaca3776fc6f9061c2fac1d1
llama-b11146-bin-win-cpu-arm64.zip 12034624
    1727d241f3bf6d27360e984e851cf013928fd655bf89f8628e70da027f377b7d
llama-b11146-bin-win-vulkan-x64.zip 32127004
    55a378aa095b466979d85075234f66d7655c7a7483222af0c006c0e55b4d7bd6
llama-b11146-bin-win-cuda-12.4-x64.zip 253869799
    3c806a6ceccc3dae1c743ceb1a1fb2cce5b76f40bfbd4c6b7b8afb6ef45a5807
llama-b11146-bin-win-cuda-13.4-x64.zip 149758833
    b1866c0ce76bc7bfb0c24b33e9a37e9669f1be18539b12c74ce361f81c41f047
cudart-llama-b11146-bin-ubuntu-cuda-12.8-x64.tar.gz 594373356
    1466daea60aad1144819e151b2bae19d54556cf1da6c129c4f55a5ded2637c25
cudart-llama-b11146-bin-ubuntu-cuda-13.4-x64.tar.gz 440231388
    7c2af505f8b26ecd3707ab7723fa985fee1df233b7c1d60e5e17724b536d15bb
cudart-llama-bin-win-cuda-12.4-x64.zip 391443627
    8c79a9b226de4b3cacfd1f83d24f962d0773be79f1e7b75c6af4ded7e32ae1d6
cudart-llama-bin-win-cuda-13.4-x64.zip 423535356
    738f8c251ac22b70c3ae6f83a10cf222725df0395246a2cf58f32bdb85fbe668
"""

_NPM_SCOPE = "@node-llama-cpp"
_NPM_LINUX = ("3.22.1", "b11146")
_NPM_OTHERS = ("3.21.1", "b10809")  # the last version published for macOS and Windows

# NOTE: linux-x64-cuda is built for CUDA 13 and takes its runtime from the system. Its companion
# linux-x64-cuda-ext (and win-x64-cuda-ext) holds one more libggml-cuda, built for CUDA 12.
_NPM = {
    ("linux-x64", "cpu"): ("linux-x64", _NPM_LINUX),
    ("linux-x64", "vulkan"): ("linux-x64-vulkan", _NPM_LINUX),
    ("linux-x64", "cuda"): ("linux-x64-cuda", _NPM_LINUX),
    ("linux-arm64", "cpu"): ("linux-arm64", _NPM_LINUX),
    ("macos-arm64", "metal"): ("mac-arm64-metal", _NPM_OTHERS),
    ("macos-arm64", "cpu"): ("mac-arm64-metal", _NPM_OTHERS),
    ("macos-x64", "cpu"): ("mac-x64", _NPM_OTHERS),
    ("windows-x64", "cpu"): ("win-x64", _NPM_OTHERS),
    ("windows-x64", "vulkan"): ("win-x64-vulkan", _NPM_OTHERS),
    ("windows-x64", "cuda"): ("win-x64-cuda", _NPM_OTHERS),
    ("windows-arm64", "cpu"): ("win-arm64", _NPM_OTHERS),
}


def _pinned_assets() -> tuple[Asset, ...]:
    words = _FILES.split()
    return read_assets(zip(words[::3], map(int, words[1::3]), words[2::3], strict=True))


PINNED = ReleaseTable(
    tag=_TAG,
    aliases=MappingProxyType(
        {
            "v0.3.0": "b10621",
            "v0.4.0": "b10809",
            "v0.4.1": "b10964",
            "v0.5.0": "b11146",
            "v0.6.0": "b11429",
        }
    ),
    assets=_pinned_assets(),
    npm=MappingProxyType(
        {
            key: NpmPin(f"{_NPM_SCOPE}/{name}", version, release)
            for key, (name, (version, release)) in _NPM.items()
        }
    ),
)
"""The release llamalite is tested with, and the default everywhere."""
