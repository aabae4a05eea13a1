"""What to do about a library that this machine lacks, or that its loader refused.

Owns the names of what libllama's builds need from outside, and where each comes from. Imports the
standard library and `platforms` alone.

Source: needs of b5640 to b11739 as upstream, npm and PyPI publish them; Microsoft's permanent links
to the Visual C++ Redistributable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from llamalite.libs.platforms import Platform

ANOTHER_BUILD = (
    "run `llamalite lib install` for a build that fits, or point LLAMALITE_LIB at another folder"
)
TOGETHER = "put all the libraries of one build into one folder, or run `llamalite lib install`"


def where_from(name: str, platform: Platform) -> str:
    """Say where a library comes from that this machine lacks, as an instruction."""
    for pattern, remedy in _REMEDIES[platform.os]:
        match = re.fullmatch(pattern, name, re.IGNORECASE)
        if match is not None:
            return remedy(match, platform) if callable(remedy) else remedy
    return f"install it, or {ANOTHER_BUILD}"


def refusal_remedy(reason: str, folder: Path) -> str:
    """Say what to do after the system's loader refused a library, by what it said."""
    for pattern, remedy in _REFUSALS:
        if re.search(pattern, reason, re.IGNORECASE):
            return remedy.format(folder=folder)
    return "fetch a build for this machine with `llamalite lib install`"


def _visual_cpp(_match: re.Match[str], platform: Platform) -> str:
    return (
        "install Microsoft's Visual C++ Redistributable "
        f"(https://aka.ms/vc14/vc_redist.{platform.arch}.exe)"
    )


def _cuda(match: re.Match[str], _platform: Platform) -> str:
    version = match["version"]
    # Windows' names have one number for both parts up to CUDA 11: cudart64_110.dll.
    major = version[:2] if version else ""
    return (
        f"install the CUDA{' ' + major if major else ''} runtime (`llamalite lib install --backend "
        "cuda` fetches it from GitHub)"
    )


_Remedy = str | Callable[[re.Match[str], Platform], str]
_NVIDIA = "install NVIDIA's driver"
_VULKAN = "install a graphics driver with Vulkan"
_ROCM = "install AMD's ROCm"
_ONEAPI = "install Intel's oneAPI runtime"
_OPENCL = "install a graphics driver with OpenCL"
_OPENVINO = "install Intel's OpenVINO runtime"
_IN_ARCHIVE = "copy it from the archive the build came in"

_REMEDIES: dict[str, tuple[tuple[str, _Remedy], ...]] = {
    "linux": (
        (r"libgomp\.so\.1", "install GCC's OpenMP runtime (Debian and Ubuntu: libgomp1)"),
        (r"libomp\.so(\.\d+)?", "install LLVM's OpenMP runtime (Debian and Ubuntu: libomp5)"),
        (r"libstdc\+\+\.so\.6", "install the C++ runtime (Debian and Ubuntu: libstdc++6)"),
        (r"libgcc_s\.so\.1", "install GCC's runtime (Debian and Ubuntu: libgcc-s1)"),
        (r"libc\+\+(abi)?\.so\.1", "install LLVM's C++ runtime (Debian and Ubuntu: libc++1)"),
        (r"libcuda\.so\.1", _NVIDIA),
        (r"lib(cudart|cublas|cublasLt|nvrtc|nccl)\.so(\.(?P<version>\d+))?", _cuda),
        (
            r"libvulkan\.so\.1",
            "install the Vulkan loader (Debian and Ubuntu: libvulkan1) and a graphics driver",
        ),
        (r"lib(amdhip64|hip\w*|rocblas|rocsolver|hsa-runtime64|amd_comgr)\.so.*", _ROCM),
        (r"lib(sycl|ur_\w+|pi_\w+|mkl_\w+|dnnl|tbb|svml|imf|irng|intlc|iomp5)\.so.*", _ONEAPI),
        (r"libze_loader\.so.*", "install Intel's Level Zero loader (Debian and Ubuntu: libze1)"),
        (r"libOpenCL\.so.*", _OPENCL),
        (r"libopenvino.*", _OPENVINO),
        (r"libopenblas.*", "install OpenBLAS (Debian and Ubuntu: libopenblas0)"),
        (r"ld-linux-.*|libc\.so\.6|libm\.so\.6", "use a system with glibc"),
        (
            r"ld-musl-.*|libc\.musl-.*",
            "it was built for a system with musl, such as Alpine: use one built for glibc",
        ),
    ),
    "windows": (
        (r"(msvcp140|vcruntime140|concrt140|vcomp140)(_\w+)?\.dll", _visual_cpp),
        (r"nvcuda\.dll|nvml\.dll", _NVIDIA),
        (r"(cudart|cublas|cublasLt|nvrtc)64_(?P<version>\d+).*\.dll", _cuda),
        (r"vulkan-1\.dll", _VULKAN),
        (r"(amdhip64|hip\w+|rocblas|libhip\w+|rocsolver).*\.dll", _ROCM),
        (r"(sycl|ur_|pi_|mkl_|dnnl|tbb|svml_|libmmd|libiomp5md).*\.dll", _ONEAPI),
        (r"opencl\.dll", _OPENCL),
        (r"openvino.*\.dll", _OPENVINO),
        (r"libomp.*\.dll|lib(curl|crypto|ssl).*\.dll", _IN_ARCHIVE),
        (r"lib(gcc_s|stdc\+\+|winpthread|gomp)\w*-\d+\.dll", "copy it from the compiler's folder"),
    ),
    "macos": (
        (r".*libomp\.dylib", "install LLVM's OpenMP runtime (brew install libomp)"),
        (r".*libvulkan.*\.dylib", "install MoltenVK's Vulkan loader (brew install vulkan-loader)"),
        (r".*libopenblas.*\.dylib", "install OpenBLAS (brew install openblas)"),
    ),
}

_REFUSALS = (
    (
        r"code signature|system policy|not allowed|library validation",
        "macOS refuses files that came through a browser: run `xattr -dr com.apple.quarantine "
        "{folder}` if you trust them, or `llamalite lib install`",
    ),
    (
        r"failed to map segment",
        "its file system may be mounted noexec: move {folder} to one that isn't, or set "
        "LLAMALITE_HOME or LLAMALITE_LIB to a folder on one",
    ),
    (
        r"error 4551|application control|winerror 1260",
        "Windows' application control blocks it: let it through in Smart App Control, or ask who "
        "manages this machine",
    ),
)
