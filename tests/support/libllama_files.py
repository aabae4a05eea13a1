"""Made-up builds of libllama: folders and archives of tiny ELF files in the published layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from support.elf import elf_bytes, write_elf

from llamalite.libs.sources.releases import Asset, NpmPin, ReleaseTable

CORE = {
    "libggml-base.so": (),
    "libggml.so": ("libggml-base.so",),
    "libllama.so": ("libggml.so", "libggml-base.so"),
    "libggml-cpu-x64.so": ("libggml-base.so",),
}
"""File names of a build and what each needs of its siblings."""


def write_build(folder: Path, arch: str = "x64") -> Path:
    """Write a complete build into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, needed in CORE.items():
        write_elf(folder / name, arch=arch, soname=name, needed=needed, runpath="$ORIGIN")
    return folder


def add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def official_archive(top: str = "llama-b11146", arch: str = "x64") -> bytes:
    """Return a .tar.gz laid out as upstream's since b7278: top folder, versioned names, links.

    The same bytes every time, so that a digest taken in one process holds in another.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        add_file(tar, f"{top}/LICENSE", b"MIT License", 0o644)
        add_file(tar, f"{top}/llama-server", b"\x7fELF program")
        for stem, needed in (
            ("ggml-base", ()),
            ("ggml", ("libggml-base.so.0",)),
            ("llama", ("libggml.so.0", "libggml-base.so.0")),
        ):
            name = f"lib{stem}.so"
            content = elf_bytes(arch=arch, soname=f"{name}.0", needed=needed, runpath="$ORIGIN")
            add_link(tar, f"{top}/{name}", f"{name}.0")
            add_link(tar, f"{top}/{name}.0", f"{name}.0.11.146")
            add_file(tar, f"{top}/{name}.0.11.146", content)
        content = elf_bytes(arch=arch, needed=("libggml-base.so.0",), runpath="$ORIGIN")
        add_file(tar, f"{top}/libggml-cpu-haswell.so", content)
        add_file(tar, f"{top}/libllama-server-impl.so", elf_bytes(arch=arch))
    return gzip.compress(stream.getvalue(), mtime=0)


def npm_archive(arch: str = "x64") -> bytes:
    """Return a .tgz laid out as the npm packages: package/bins/PLATFORM."""
    stream, bins = io.BytesIO(), f"package/bins/linux-{arch}"
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        add_file(tar, "package/LICENSE", b"MIT License", 0o644)
        add_file(tar, "package/package.json", b"{}", 0o644)
        add_file(tar, f"{bins}/llama-addon.node", b"\x7fELF addon")
        record = b'{"buildOptions": {"llamaCpp": {"release": "v0.5.0"}}}'
        add_file(tar, f"{bins}/_nlcBuildMetadata.json", record)
        for name, needed in {
            "libggml-base.so": (),
            "libggml.v0.5.0.so": ("libggml-base.so",),
            "libllama.v0.5.0.so": ("libggml.v0.5.0.so", "libggml-base.so"),
            "libggml-cpu-x64.so": ("libggml-base.so",),
        }.items():
            add_file(tar, f"{bins}/{name}", elf_bytes(arch=arch, soname=name, needed=needed))
    return stream.getvalue()


def release_table(archive: bytes, platform: str) -> ReleaseTable:
    """Return a table that pins one archive and one npm package, both CPU builds."""
    digest = hashlib.sha256(archive).hexdigest()
    asset = Asset("llama-b11146-bin-test.tar.gz", len(archive), digest, platform, ("cpu",))
    pin = NpmPin("@node-llama-cpp/linux-x64", "3.22.1", "b11146")
    return ReleaseTable("b11146", {"v0.5.0": "b11146"}, (asset,), {(platform, "cpu"): pin})
