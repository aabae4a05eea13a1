"""Child processes of this package: which Python runs them, and how their end is told.

Owns how a module of llamalite is started where native code may die. Doesn't know what it does.
Imports the standard library and `llamalite.libs`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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

# `-m` would put the current folder first on the path, and a json.py in it would be run.
_BOOT = (
    "import sys; sys.path[:] = sys.path[1:] if sys.path[:1] == [''] else sys.path; "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_MARK = "LLAMALITE_CHILD"
TEST, ENGINE = "1", "engine"
"""Kinds of children: a test starts no process, an engine may test a library first."""

_PAUSE_S = 0.1
_LAST_LOOKS = 10
_LAST_WAIT_S = 3.0
_PR_SET_PDEATHSIG = 1


def python() -> str | None:
    """Return the interpreter for child processes: `LLAMALITE_PYTHON`, else this environment's."""
    # PERF: it lies among the clients that fetch, which no run with a library already there needs.
    from llamalite.libs.sources.pip import interpreter

    return os.environ.get("LLAMALITE_PYTHON", "").strip() or interpreter()


def command_for(module: str) -> list[str]:
    """Return the command line that runs a module of llamalite.

    Raises:
        FileNotFoundError: there is no interpreter.
    """
    program = python()
    if program is None:
        raise FileNotFoundError("there is no Python program to start: set LLAMALITE_PYTHON")
    return [program, "-c", _BOOT, module]


def tell_ending(code: int) -> str:
    """Say what a process's exit code means; negative ones are signals."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
        return f"{name}: {_SIGNALS[name]}" if name in _SIGNALS else name
    code &= 0xFFFFFFFF
    if code in _WINDOWS_CODES:
        return f"{code:#x}: {_WINDOWS_CODES[code]}"
    return f"it ended with exit code {code}"


class Child:
    """A running module, given one text and read line by line.

    Args:
        module: full name of the module.
        request: written to its stdin.

    Raises:
        OSError: it can't be started, or there is no interpreter.
    """

    def __init__(self, module: str, request: str) -> None:
        command = command_for(module)
        if os.environ.get(_MARK) == TEST:
            raise PermissionError("a child process of llamalite starts no other")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment(TEST),
                creationflags=flags,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except BaseException:
            self._errors.close()
            raise
        self._owner = os.getpid()
        _alive.add(self)
        self._lines: queue.Queue[str | None] = queue.Queue()
        try:
            threading.Thread(target=self._read, name="llamalite-child", daemon=True).start()
            self._ask(request)
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):
                raise OSError(str(error)) from None  # no room for a thread
            raise

    def _ask(self, request: str) -> None:
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

    def lines(self, silence_s: float, counts: Callable[[str], bool] = bool) -> Iterator[str]:
        """Give its lines until it ends, whoever else may still hold its pipe.

        Args:
            silence_s: longest wait for a line that counts.
            counts: says of a line whether it is a sign of life.

        Raises:
            TimeoutError: it neither wrote such a line nor ended for that many seconds.
        """
        deadline = time.monotonic() + silence_s
        n_quiet = 0  # looks in a row at an ended process that brought no line
        while n_quiet < _LAST_LOOKS:
            n_quiet = n_quiet + 1 if self._process.poll() is not None else 0
            try:
                line = self._lines.get(timeout=_PAUSE_S)
            except queue.Empty:
                line = ""
            if line is None:
                return
            if line and counts(line):
                deadline = time.monotonic() + silence_s
            if time.monotonic() > deadline:
                raise TimeoutError(f"no word in {silence_s:g} s")
            if line:
                n_quiet = 0
                yield line

    def ending(self) -> str:
        """Say what ended it, once its lines have ended."""
        return tell_ending(self._process.wait())

    def complaint(self) -> str:
        """Return the last line it wrote to stderr, shortened; may be empty."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 8192, 0))
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        said = [" ".join(line.split()) for line in lines if line.strip()]
        return said[-1][:200] if said else ""

    def close(self) -> None:
        """End it and what it started; one that is stuck in a driver is left to the system."""
        _alive.discard(self)
        if self._process.poll() is None:
            self._kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WAIT_S)
        self._errors.close()

    def _kill(self) -> None:
        if sys.platform == "win32":
            self._process.kill()
            return
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)


_alive: set[Child] = set()


@atexit.register
def close_children() -> None:
    """End every child of this process that still runs."""
    for child in list(_alive):
        if child._owner == os.getpid():  # a fork of the owner has it in its list, too
            child.close()


def environment(kind: str = "") -> dict[str, str]:
    """Return this process's environment, in which a child finds the same llamalite.

    Args:
        kind: TEST, ENGINE, or "" for a process that is nobody's child.
    """
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    dropped = {"LLAMALITE_LOG", "PYTHONSTARTUP"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONIOENCODING": "utf-8",
        _MARK: kind,
        "GGML_NO_BACKTRACE": "1",  # a debugger attached to a dying child would take seconds
    }


def is_a_child() -> bool:
    """Say whether this process was started as a child of llamalite."""
    return bool(os.environ.get(_MARK))


def be_a_child(limit_s: float | None = None) -> None:
    """Keep this process's death quick and quiet, and see that it doesn't outlive its parent.

    On Linux the system ends it with the thread that started it; elsewhere it has to watch a pipe.

    Args:
        limit_s: the system ends it after that, whatever it does; None = never.
    """
    if sys.platform == "win32":
        ctypes.windll.kernel32.SetErrorMode(0x0001 | 0x0002)  # no dialogs for crashes
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limit_s is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(round(limit_s))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
