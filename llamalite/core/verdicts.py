"""What was found out about libraries on machines, kept in `LLAMALITE_HOME/libs/trials.json`.

Owns the file and what identifies a library and a machine. Doesn't know what a finding means; it
only keeps good ones, so a lost file costs a test and nothing else. Imports the standard library
and `llamalite.libs`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
from pathlib import Path
from typing import Any

from llamalite.libs.files.folder import LibraryFiles, read_json
from llamalite.libs.find import libs_folder

_FORMAT = 1
_FILE = "trials.json"
_MOST_KEPT = 64
_VISIBILITY = (
    "CUDA_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
_CPU_LINES = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")


def recall(files: LibraryFiles) -> dict[str, Any] | None:
    """Return what was remembered for these very files on this machine, or None."""
    found = _read().get(_key(files))
    return found if isinstance(found, dict) else None


def remember(files: LibraryFiles, finding: dict[str, Any]) -> str | None:
    """Keep a finding; return why it can't be kept, or None."""
    findings = _read()
    key = _key(files)
    findings.pop(key, None)
    findings[key] = {**finding, "folder": str(files.folder)}
    return _write(findings)


def forget(files: LibraryFiles) -> None:
    """Drop what was remembered, if anything was."""
    findings = _read()
    if findings.pop(_key(files), None) is not None:
        _write(findings)


def _write(findings: dict[str, Any]) -> str | None:
    """Replace the file; return why it can't be, or None."""
    folder = libs_folder()
    newest = dict(list(findings.items())[-_MOST_KEPT:])
    fresh = folder / f".trials-{os.getpid()}-{threading.get_ident()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps({"format": _FORMAT, "trials": newest}, indent=1))
        os.replace(fresh, folder / _FILE)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        return f"{folder / _FILE}: {error.strerror or error}"
    return None


def _read() -> dict[str, Any]:
    record = read_json(libs_folder() / _FILE)
    trials = record.get("trials")
    return trials if record.get("format") == _FORMAT and isinstance(trials, dict) else {}


def _key(files: LibraryFiles) -> str:
    digest = hashlib.sha256(_machine().encode("utf-8", "replace"))
    for path in (*files.core, *files.backends):
        with contextlib.suppress(OSError):
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _machine() -> str:
    """What decides how native code runs here: processor, system, driver.

    A home folder may be shared by different machines, and a disk may move to another one.
    """
    parts = [f"{name}={os.environ.get(name)}" for name in _VISIBILITY]
    parts += [platform.machine(), platform.system(), platform.release(), platform.processor()]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as stream:
        first = stream.read(1 << 16).split("\n\n", 1)[0]
        parts += [line for line in first.splitlines() if line.startswith(_CPU_LINES)]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/driver/nvidia/version").read_text(encoding="utf-8"))
    return "\n".join(parts)
