"""One run of an engine's process, from its start to its end, and what it wrote meanwhile.

Owns the process, its pipes and the last lines of its log. Doesn't know what follows from its end;
`supervisor` does. Imports the standard library, `core.child`, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import BinaryIO, cast

from llamalite.core.child import ENGINE, command_for, environment, is_a_child, tell_ending
from llamalite.engine.process.child import CLOSING_LIMIT_S, MODULE
from llamalite.engine.process.wire import (
    Drain,
    Drained,
    Failed,
    FromChild,
    Message,
    Messages,
    Ready,
    Say,
    Start,
    Stop,
    frame,
)
from llamalite.errors import EngineError

_LOG_LINE = re.compile("^\x01(\\d+) (\\S+) (.*)$")
_NATIVE = "llamalite.native"
_KEPT_LINES = 40
_TOLD_LINES = 3
_MOST_LINE = 300
_END_LIMIT_S = 3.0
_STOP_LIMIT_S = CLOSING_LIMIT_S + 1.0


class Launch:
    """A process of an engine.

    It has to be started in a thread that outlives it: Linux ends it with that thread.

    Args:
        start: the first thing it is told.

    Raises:
        EngineError: it can't be started.
        InvalidParameter: `start` can't be sent.
    """

    def __init__(self, start: Start) -> None:
        if is_a_child():
            raise EngineError("a process of an engine starts no other: use Engine here")
        first = frame(start)
        self._owner = os.getpid()
        self._write_lock = threading.Lock()
        ours, self._input = os.pipe()
        try:
            self._process = subprocess.Popen(
                command_for(MODULE),
                stdin=ours,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(ENGINE),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                start_new_session=True,  # Ctrl-C at the terminal is for its owner
            )
        except OSError as error:
            self.let_go()
            reason = error.strerror or str(error)
            raise EngineError(f"the engine's process can't be started: {reason}") from None
        finally:
            os.close(ours)
        self._output = cast(BinaryIO, self._process.stdout)
        self._drained: collections.deque[bool] = collections.deque()
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._messages = Messages(self._output, FromChild)
        self._log = threading.Thread(target=self._read_log, name="llamalite-log", daemon=True)
        try:
            self._log.start()
            _launches.add(self)
            self._write(first)
        except BaseException:
            self.kill()
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def tell(self, message: Message) -> None:
        """Send it a message; one that is gone gets nothing."""
        self._write(frame(message))

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        with self._write_lock, contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._input, rest) :]

    def wait_ready(self, say: Callable[[str], None]) -> Ready | Failed | None:
        """Wait until it has loaded or failed to; None if it died."""
        while (message := self._read()) is not None:
            if isinstance(message, Say):
                say(message.line)
            elif isinstance(message, Ready | Failed):
                self._lines.clear()  # what it said of the load is not why it dies later
                return message
        return None

    def wait_end(self) -> None:
        """Wait until it is gone."""
        while (message := self._read()) is not None:
            if isinstance(message, Drained):
                self._drained.append(message.in_time)

    def drain(self, timeout_s: float) -> bool:
        """Let it finish what it has; whether it did in time."""
        self.tell(Drain(timeout_s))
        deadline = time.monotonic() + timeout_s + _END_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._drained:
                return self._drained.popleft()
            time.sleep(0.01)
        return False

    def ending(self) -> str:
        """Say how it ended, with the last lines of its log, once it is gone."""
        try:
            code = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "it hung up without ending"
        self._log.join(1.0)
        said = "; ".join(list(self._lines)[-_TOLD_LINES:])
        ending = tell_ending(code)
        return f"{ending}; its last words: {said}" if said else ending

    def stop(self) -> None:
        """Let it end in order, and kill it if it doesn't."""
        if self._owner != os.getpid():
            return
        self.tell(Stop())  # its pipe stays open: the end of that means to end at once
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_LIMIT_S)
        self.kill()

    def kill(self) -> None:
        """End it and what it started; one that is stuck in a driver is left to the system."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_LIMIT_S)

    def close(self) -> None:
        """Close its pipes, once it is gone."""
        self.let_go()
        with contextlib.suppress(OSError):
            self._output.close()

    def let_go(self) -> None:
        """Close the pipe that it watches; a fork has to, or its end wouldn't end the process."""
        with self._write_lock:
            handle, self._input = self._input, -1
            if handle >= 0:
                os.close(handle)

    def forget(self) -> None:
        """Let go, in a fork, of what is its parent's."""
        self._write_lock = threading.Lock()
        self.let_go()

    def _read(self) -> object:
        try:
            return self._messages.read()
        except ConnectionError:
            return None

    def _read_log(self) -> None:
        with (
            cast(BinaryIO, self._process.stderr) as stream,
            contextlib.suppress(OSError, ValueError),
        ):
            for line in stream:
                self._take_line(line.decode("utf-8", "replace").strip())

    def _take_line(self, line: str) -> None:
        level, name, text = logging.WARNING, _NATIVE, " ".join(line.split())
        if (found := _LOG_LINE.match(line)) is not None:
            level, name, text = int(found[1]), found[2], found[3]
        if text and level >= logging.WARNING and name == _NATIVE:
            self._lines.append(text[:_MOST_LINE])
        if text:
            logging.getLogger(name).log(level, "%s", text)


_launches: weakref.WeakSet[Launch] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for launch in list(_launches):
        launch.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
