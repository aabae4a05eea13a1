"""The machine around libllama: Python, system, processor, memory, folders, network, settings.

Owns how each is found out. Each function may raise; `diagnose` guards them all. Imports
`llamalite.libs`, `models`, `config`, `errors` and `report`.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from threading import Thread

from llamalite import config
from llamalite.doctor.report import (
    CpuFacts,
    HomeFacts,
    MemoryFacts,
    ModelFacts,
    PlatformFacts,
    PythonFacts,
    SourceFacts,
)
from llamalite.errors import LibraryError, LlamaliteError
from llamalite.libs.files.machine import glibc_version
from llamalite.libs.files.processor import this_processor
from llamalite.libs.platforms import Platform, current_platform
from llamalite.libs.sources.plan import configured_sources, plan
from llamalite.libs.sources.releases import PINNED
from llamalite.models.fetch import models_dir

_SOURCE_LIMIT_S = 15.0
_MOST_MODELS = 200
_SETTINGS = re.compile(
    r"LLAMALITE_\w+|HF_\w+|HUGGING_FACE_\w+|GGML_\w+|VK_\w+|CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH"
    r"|\w+_PROXY",
    re.I,
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY|AUTH", re.I)
_LOGIN = re.compile(r"(?<=//)[^/@\s]+(?=@)")


def python_facts() -> PythonFacts:
    """Describe the interpreter."""
    return PythonFacts(
        version=platform.python_version(),
        implementation=platform.python_implementation(),
        executable=sys.executable or "",
        bits=8 * struct.calcsize("P"),
    )


def platform_facts() -> PlatformFacts:
    """Describe the system."""
    try:
        name = str(current_platform())
    except LibraryError:
        name = None
    system = f"{platform.system()} {platform.release()}"
    c_library = None
    if sys.platform == "darwin":
        system = f"macOS {platform.mac_ver()[0]}"
    elif sys.platform == "linux":
        glibc = glibc_version()
        c_library = f"glibc {'.'.join(map(str, glibc))}" if glibc else "not glibc (musl?)"
    return PlatformFacts(name, system, platform.machine(), c_library)


def cpu_facts() -> CpuFacts:
    """Describe the processor."""
    import psutil

    processor = this_processor()
    physical, logical = psutil.cpu_count(logical=False), psutil.cpu_count()
    return CpuFacts(processor.model, physical, logical, processor.features)


def memory_facts() -> MemoryFacts:
    """Measure the machine's memory."""
    import psutil

    memory = psutil.virtual_memory()
    return MemoryFacts(memory.total, memory.available)


def home_facts() -> HomeFacts:
    """Look at `LLAMALITE_HOME`, or at the nearest folder above it that exists; makes nothing."""
    folder = config.home().absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            is_writable = True
    except OSError:
        is_writable = False
    return HomeFacts(str(folder), is_writable, shutil.disk_usage(nearest).free)


def model_facts() -> tuple[ModelFacts, ...]:
    """List the model files in `LLAMALITE_HOME` and in the Hub's cache."""
    return tuple(
        ModelFacts(str(path), path.stat().st_size) for path in islice(_models(), _MOST_MODELS)
    )


def _models() -> Iterator[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    yield from sorted(path for path in models_dir().glob("**/*.gguf") if path.is_file())
    cached = Path(HF_HUB_CACHE).glob("models--*/snapshots/*/**/*.gguf")
    yield from sorted(path for path in cached if path.is_file())


def source_facts(limit_s: float = _SOURCE_LIMIT_S) -> tuple[SourceFacts, ...]:
    """Ask every configured source at once whether it could give a build for this machine.

    Args:
        limit_s: for all together.
    """
    names = configured_sources()
    if config.is_offline():
        return tuple(SourceFacts(name, None, "network use is off") for name in names)
    here = current_platform()
    answers = {name: SourceFacts(name, False, f"no answer in {limit_s:g} s") for name in names}

    def ask(name: str) -> None:
        answers[name] = _ask_source(name, here)

    threads = [Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return tuple(answers[name] for name in names)


def _ask_source(name: str, here: Platform) -> SourceFacts:
    problem: str | None = "it has no build for this platform"
    try:
        for way in plan(PINNED, None, here, PINNED.backends(str(here))[0], [name]):
            problem = way.problem()
            if problem is None:
                break
    except LlamaliteError as error:
        problem = str(error)
    except Exception as error:  # a thread's own end says nothing to anyone
        problem = f"{type(error).__name__}: {error}"
    return SourceFacts(name, problem is None, problem)


def environment_facts(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the settings in force, without secrets.

    Args:
        environment: None for this process's.
    """
    found = os.environ if environment is None else environment
    return {
        name: "(set, not shown)" if _SECRET.search(name) else _LOGIN.sub("…", value)
        for name, value in sorted(found.items())
        if _SETTINGS.fullmatch(name) and value
    }
