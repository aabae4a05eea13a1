"""Which processor is here, and those of its features that decide how fast a model runs.

Owns the three systems' ways of saying it. For people to read: which CPU backend is taken is
ggml's own choice. Imports the standard library alone, numpy inside a function.
"""

from __future__ import annotations

import importlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vbmi", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""In the order they are said; Linux's names on x86, arm's own on AArch64."""

_OTHER_NAMES = {
    # Linux on AArch64
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    # macOS: machdep.cpu.features and hw.optional.arm
    "avx1.0": "avx",
    "sse4.2": "sse4_2",
    "advsimd": "neon",
    "feat_fp16": "fp16",
    "feat_dotprod": "dotprod",
    "feat_i8mm": "i8mm",
    "feat_bf16": "bf16",
    "feat_sme": "sme",
    # numpy
    "sse42": "sse4_2",
    "fma3": "fma",
    "avx512vbmi": "avx512_vbmi",
    "avx512vnni": "avx512_vnni",
}
_ARM_MAKERS = {0x41: "ARM", 0x51: "Qualcomm", 0x61: "Apple", 0xC0: "Ampere", 0x46: "Fujitsu"}


@dataclass(frozen=True)
class Processor:
    """A processor: its maker's name for it, and its features in a fixed order."""

    model: str
    features: tuple[str, ...]


def this_processor() -> Processor:
    """Describe the processor here; what can't be told is left empty."""
    if sys.platform == "linux":
        try:
            return read_cpuinfo(Path("/proc/cpuinfo").read_text(errors="replace"))
        except OSError:
            return Processor(platform.machine(), ())
    if sys.platform == "darwin":
        return read_sysctl(_sysctl())
    return Processor(platform.processor() or platform.machine(), _known(_numpy_features()))


def read_cpuinfo(text: str) -> Processor:
    """Read Linux's /proc/cpuinfo, of the first processor in it."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    model = fields.get("model name") or _arm_model(fields) or platform.machine()
    return Processor(model, _known((fields.get("flags") or fields.get("features", "")).split()))


def read_sysctl(text: str) -> Processor:
    """Read what macOS's `sysctl machdep.cpu hw.optional` prints."""
    fields = dict(re.findall(r"^([\w.]+): *(.*)$", text, re.M))
    words: list[str] = []
    for name in ("features", "leaf7_features"):
        words += fields.get(f"machdep.cpu.{name}", "").split()
    words += [name.rpartition(".")[2] for name, value in fields.items() if value == "1"]
    return Processor(fields.get("machdep.cpu.brand_string", platform.machine()), _known(words))


def _arm_model(fields: dict[str, str]) -> str:
    try:
        maker, part = (int(fields[name], 0) for name in ("cpu implementer", "cpu part"))
    except (KeyError, ValueError):
        return fields.get("hardware", "")
    return f"{_ARM_MAKERS.get(maker, f'maker {maker:#x}')} part {part:#x}"


def _known(words: Iterable[str]) -> tuple[str, ...]:
    found = {_OTHER_NAMES.get(word.lower(), word.lower()) for word in words}
    return tuple(name for name in _FEATURES if name in found)


def _sysctl() -> str:
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _numpy_features() -> list[str]:
    """Return what numpy found out for itself: Windows tells programs, not files."""
    try:
        module = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:
        return []
    found: dict[str, bool] = getattr(module, "__cpu_features__", {})
    return [name for name, present in found.items() if present]
