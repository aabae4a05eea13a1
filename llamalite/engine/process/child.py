"""Main of an engine's process: loads what it is told, listens, computes until it is told to end.

Its stdin brings what the owner says, its stdout takes the answers, its stderr the log. It ends at
once when stdin ends, as that is the owner's death. Imports the standard library, `core.child`,
`llamalite.errors` and its siblings.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from llamalite.core.child import be_a_child
from llamalite.engine.process.connection import ServedEngine
from llamalite.engine.process.crossing import problem_of
from llamalite.engine.process.server import EngineServer
from llamalite.engine.process.sockets import listen
from llamalite.engine.process.wire import (
    Drain,
    Drained,
    Failed,
    Message,
    Messages,
    Ready,
    Say,
    Start,
    ToChild,
    frame,
)
from llamalite.errors import EngineError

MODULE = "llamalite.engine.process.child"
LOG_FORMAT = "\x01%(levelno)d %(name)s %(message)s"
"""The first character marks lines of `logging` among what native code prints."""
CLOSING_LIMIT_S = 3.0
"""Longest it takes to end once it is told to; its owner is more patient."""


class RunEngine(ServedEngine, Protocol):
    """What this process needs of an engine."""

    def run(self, until: threading.Event) -> None:
        """Compute in this thread until then."""
        ...

    def wake(self) -> None:
        """Let `run` look whether it is to end."""
        ...

    def drain(self, timeout_s: float) -> bool:
        """Finish what there is."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class _Owner:
    """The pipes to the process that started this one."""

    def __init__(self) -> None:
        # What native code prints must not get among our messages.
        self._out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._in = Messages(os.fdopen(os.dup(0), "rb"), ToChild)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.engine: RunEngine | None = None

    def start(self) -> Start | None:
        """Return the first message."""
        message = self._in.read()
        return message if isinstance(message, Start) else None

    def tell(self, message: Message) -> None:
        """Send a message; without an owner there is nothing left to do."""
        content = memoryview(frame(message))
        with self._lock:
            try:
                while content:
                    content = content[self._out.write(content) or 0 :]
            except OSError:
                os._exit(0)

    def watch(self) -> None:
        """Do what the owner says, and end with it."""
        try:
            while (message := self._in.read()) is not None:
                if isinstance(message, Drain):
                    threading.Thread(target=self._drain, args=[message], daemon=True).start()
                else:
                    self._stop()
        except ConnectionError:
            pass
        os._exit(0)

    def _stop(self) -> None:
        if self.engine is None:
            os._exit(0)  # it is still loading
        self.stop.set()
        self.engine.wake()
        timer = threading.Timer(CLOSING_LIMIT_S, os._exit, [0])
        timer.daemon = True
        timer.start()

    def _drain(self, message: Drain) -> None:
        engine = self.engine
        self.tell(Drained(engine is None or engine.drain(message.timeout_s)))


def main() -> int:
    """Run an engine as stdin says."""
    owner = _Owner()
    start = owner.start()
    if start is None:
        return 0
    be_a_child()
    threading.Thread(target=owner.watch, name="llamalite-owner", daemon=True).start()
    _log_to_stderr(start.log_level)
    try:
        engine = _factory(start.factory)(start.arguments, lambda line: owner.tell(Say(line)))
    except OSError as error:
        owner.tell(Failed(problem_of(EngineError(f"the engine can't be loaded: {error}"))))
        return 0
    except Exception as error:
        owner.tell(Failed(problem_of(error)))
        return 0
    try:
        listener, address = listen(Path(start.folder), start.name)
    except OSError as error:
        reason = error.strerror or str(error)
        owner.tell(Failed(problem_of(EngineError(f"the engine can't be reached: {reason}"))))
        return 0
    owner.engine = engine
    server = EngineServer(engine, listener, start.secret)
    server.start()
    owner.tell(Ready(address, server.facts))
    engine.run(owner.stop)
    engine.close()
    server.close()
    return 0


def _factory(name: str) -> Callable[[dict[str, Any], Callable[[str], None]], RunEngine]:
    module, _, function = name.partition(":")
    return cast(
        "Callable[[dict[str, Any], Callable[[str], None]], RunEngine]",
        getattr(importlib.import_module(module), function),
    )


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(super().format(record).split("\n"))


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(LOG_FORMAT))
    logger = logging.getLogger("llamalite")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Threads may still be within native code, which must not outlive what it uses.
    os._exit(code)
