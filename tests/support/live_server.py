"""The server in processes of its own: `llamalite serve`, or the app under another WSGI server."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_START_LIMIT_S = 120
_DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
_COMMANDS = {
    "gunicorn": [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "wsgi:app"],
    "uwsgi": [str(Path(sys.executable).with_name("pyuwsgi")), "--ini", "uwsgi.ini"],
    "cheroot": [sys.executable, "cheroot_server.py"],
}


@dataclass
class Server:
    """A server of its own process."""

    process: subprocess.Popen[str]
    address: str
    log: list[str] = field(default_factory=list)
    kind: str = "waitress"

    def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def read_log(self, lines: queue.Queue[str | None] | None = None) -> None:
        """Take its lines as they come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if lines is not None:
                lines.put(line)
        if lines is not None:
            lines.put(None)


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Start `llamalite serve` on a free port and wait until it has said where."""
    command = [sys.executable, "-m", "llamalite", "serve", "--port=0", "--threads=1", *arguments]
    server = Server(_started(command, Path.cwd(), {}), "")
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=server.read_log, args=(lines,), daemon=True).start()
    try:
        while (line := lines.get(timeout=_START_LIMIT_S)) is not None:
            if found := re.search(r"listening on (http://\S+);", line):
                server.address = found[1]
                yield server
                return
        raise AssertionError("the server ended: " + "".join(server.log))
    finally:
        server.process.kill()
        server.process.wait()


@contextlib.contextmanager
def deployed(kind: str, **settings: str) -> Iterator[Server]:
    """Start the app under a WSGI server as docs/deploy says, and wait until it is ready.

    Args:
        kind: "gunicorn", "uwsgi" or "cheroot".
        settings: environment variables of docs/deploy/wsgi.py and llamalite.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    process = _started(_COMMANDS[kind], _DEPLOY, {**settings, "BIND": where})
    server = Server(process, f"http://{where}", kind=kind)
    threading.Thread(target=server.read_log, daemon=True).start()
    deadline = time.monotonic() + _START_LIMIT_S
    try:
        while not _is_ready(server.address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server isn't there: " + "".join(server.log))
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def _started(command: list[str], folder: Path, settings: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **settings},
    )
