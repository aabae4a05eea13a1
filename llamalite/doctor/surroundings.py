"""The machine around libllama: Python, system, processor, memory, network, settings.

Owns how each is found out. Each function may raise; `diagnose` guards them all. Imports
`llamalite.libs`, `models`, `config`, `errors` and `report`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import struct
import sys
import time
from collections.abc import Mapping
from threading import Thread

from llamalite import config
from llamalite.doctor.report import (
    CpuFacts,
    MemoryFacts,
    PlatformFacts,
    PythonFacts,
    SourceFacts,
)
from llamalite.errors import LibraryError, LlamaliteError
from llamalite.libs.files.machine import glibc_version
from llamalite.libs.files.processor import this_processor
from llamalite.libs.platforms import Platform, current_platform
from llamalite.libs.sources.plan import VARIABLE, configured_sources, plan
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.transfer.wording import without_login

_SOURCE_LIMIT_S = 15.0
_SETTINGS = re.compile(
    r"LLAMALITE_\w+|HF_\w+|HUGGING_FACE_\w+|GGML_\w+|VK_\w+|CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH"
    r"|\w+_PROXY",
    re.I,
)
_SECRET = re.compile(r"TOKEN|SECRET|PASS|PW|CRED|KEY|AUTH", re.I)
_ADDRESS = re.compile(r"\w*(PROXY|ENDPOINT|UR[LI])", re.I)


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
    physical = logical = None
    with contextlib.suppress(Exception):  # psutil's own, and what it lets through
        physical, logical = psutil.cpu_count(logical=False), psutil.cpu_count()
    return CpuFacts(processor.model, physical, logical, processor.features)


def memory_facts() -> MemoryFacts | None:
    """Measure the machine's memory; None where psutil can't.

    Raises:
        OSError: what it reads isn't there.
    """
    import psutil

    try:
        memory = psutil.virtual_memory()
    except (psutil.Error, NotImplementedError, RuntimeError, ArithmeticError, LookupError):
        return None
    return MemoryFacts(memory.total, memory.available)


def source_facts(limit_s: float = _SOURCE_LIMIT_S) -> tuple[SourceFacts, ...]:
    """Ask every configured source at once whether it could give a build for this machine.

    Args:
        limit_s: for all together.
    """
    try:
        names = configured_sources()
    except LlamaliteError as error:
        return (SourceFacts(VARIABLE, False, str(error)),)
    if config.is_offline():
        return tuple(SourceFacts(name, None, "network use is off") for name in names)
    here = current_platform()
    answers = {name: SourceFacts(name, False, f"no answer in {limit_s:g} s") for name in names}

    def ask(name: str) -> None:
        answers[name] = _ask_source(name, here)

    threads = []
    for name in names:
        thread = Thread(target=ask, args=(name,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there is no room for one
            ask(name)
        else:
            threads.append(thread)
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
        name: _shown(name, value)
        for name, value in sorted(found.items())
        if _SETTINGS.fullmatch(name) and value
    }


def _shown(name: str, value: str) -> str:
    if _SECRET.search(name):
        return "(set, not shown)"
    is_address = "://" in value or _ADDRESS.fullmatch(name)
    return without_login(value) if is_address else value
