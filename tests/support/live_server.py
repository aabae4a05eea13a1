"""`llamalite serve` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_START_LIMIT_S = 120


@dataclass
class Server:
    """A server of its own process."""

    process: subprocess.Popen[str]
    address: str
    log: list[str]

    def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Start `llamalite serve` on a free port and wait until it has said where."""
    command = [sys.executable, "-m", "llamalite", "serve", "--port=0", "--threads=1", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    log: list[str] = []
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (line := lines.get(timeout=_START_LIMIT_S)) is not None:
            if found := re.search(r"listening on (http://\S+);", line):
                yield Server(process, found[1], log)
                return
        raise AssertionError("the server ended: " + "".join(log))
    finally:
        process.kill()
        process.wait()
