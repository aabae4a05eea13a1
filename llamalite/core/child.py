"""Child processes of this package: which Python runs them, and how their end is told.

Owns how a module of llamalite is started where native code may die. Doesn't know what it does.
Imports the standard library and `llamalite.libs`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from llamalite.libs.sources.pip import interpreter

_SIGNALS = {
    "SIGILL": "illegal instruction",
    "SIGSEGV": "bad memory access",
    "SIGBUS": "bad memory access",
    "SIGABRT": "it aborted",
    "SIGFPE": "arithmetic error",
    "SIGKILL": "killed, perhaps for its memory",
}
_WINDOWS_CODES = {
    0xC000001D: "illegal instruction",
    0xC0000005: "bad memory access",
    0xC0000409: "it aborted",
    0xC00000FD: "stack overflow",
}
_WINDOWS_EXCEPTION = 0xC0000000
_LAST_WAIT_S = 3.0


def python() -> str | None:
    """Return the interpreter for child processes: `LLAMALITE_PYTHON`, else this environment's."""
    return os.environ.get("LLAMALITE_PYTHON") or interpreter()


class Child:
    """A running `python -m MODULE`, given one text and read line by line.

    Args:
        module: full name of the module.
        request: written to its stdin.

    Raises:
        OSError: it can't be started, or there is no interpreter.
    """

    def __init__(self, module: str, request: str) -> None:
        program = python()
        if program is None:
            raise FileNotFoundError("there is no Python program to start: set LLAMALITE_PYTHON")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            self._process = subprocess.Popen(
                [program, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment(),
                creationflags=flags,
            )
        except BaseException:
            self._errors.close()
            raise
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, name="llamalite-child", daemon=True).start()
        with contextlib.suppress(OSError):  # it may be gone already
            assert self._process.stdin is not None
            self._process.stdin.write(request.encode())
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream, contextlib.suppress(OSError, ValueError):
            for line in stream:
                self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put(None)

    def lines(self, silence_s: float) -> Iterator[str]:
        """Give its lines until it ends.

        Raises:
            TimeoutError: it neither wrote a line nor ended for that many seconds.
        """
        deadline = time.monotonic() + silence_s
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                raise TimeoutError(f"no word in {silence_s:g} s") from None
            if line is None:
                return
            deadline = time.monotonic() + silence_s
            yield line

    def ending(self) -> str:
        """Say what killed it, once its lines have ended; "" where it ended by itself."""
        code = self._process.wait()
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                return f"signal {-code}"
            return f"{name}: {_SIGNALS[name]}" if name in _SIGNALS else name
        code &= 0xFFFFFFFF
        if code < _WINDOWS_EXCEPTION:
            return ""
        return f"{code:#x}: {_WINDOWS_CODES[code]}" if code in _WINDOWS_CODES else f"{code:#x}"

    def complaint(self) -> str:
        """Return the last line it wrote to stderr, shortened; may be empty."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 8192, 0))
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        said = [" ".join(line.split()) for line in lines if line.strip()]
        return said[-1][:200] if said else ""

    def close(self) -> None:
        """End it if it still runs; one that is stuck in a driver is left to the system."""
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WAIT_S)
        self._errors.close()


def _environment() -> dict[str, str]:
    """This process's environment, in which the child finds the same llamalite."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    dropped = {"LLAMALITE_LOG", "PYTHONSTARTUP"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONIOENCODING": "utf-8",
        "GGML_NO_BACKTRACE": "1",  # a debugger attached to a dying child would take seconds
    }


def leave_no_dump() -> None:
    """Keep this process's death quick and quiet: no core file, no dialog."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetErrorMode(0x0001 | 0x0002)  # no dialogs for crashes
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
