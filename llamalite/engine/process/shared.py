"""Engines shared with other programs of the user: finds the host, or starts it.

Owns the connection to the host, which keeps the engine alive as long as it lasts. Imports the
standard library, `core.child`, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llamalite.core.child import command_for, environment
from llamalite.engine.process.auth import introduce
from llamalite.engine.process.client import EngineClient
from llamalite.engine.process.crossing import error_of
from llamalite.engine.process.host import MODULE, host_folder, read_notice
from llamalite.engine.process.loader import Model, arguments_for
from llamalite.engine.process.rendezvous import State, Visitor
from llamalite.engine.process.sockets import dial, hang_up
from llamalite.engine.process.wire import Failed, FromHost, Messages, Open, Opened, Say, frame
from llamalite.engine.request import EngineOptions
from llamalite.errors import EngineClosed, EngineError
from llamalite.libs.transfer.progress import say_on_stderr

_START_LIMIT_S = 20.0
_PAUSE_S = 0.05
_DIAL_LIMIT_S = 5.0
_LOG_BYTES = 2000


def open_shared(
    model: Model = None,
    options: EngineOptions | None = None,
    *,
    say: Callable[[str], None] | None = None,
    force: bool = False,
    **settings: Any,
) -> EngineClient:
    """Return an engine that all programs share which ask for the same; it is loaded if need be.

    It stays as long as any of them has its client open, and some seconds. Arguments and errors are
    as of `Engine.load`.
    """
    arguments = arguments_for(model, options, settings, say=say, force=force)
    client = EngineClient(HostSource(arguments, say))
    try:
        client.start()
    except BaseException:
        client.close()
        raise
    return client


class HostSource:
    """A Source whose engine the host owns; a fork of this process asks the host anew.

    Args:
        arguments: what to load.
        say: takes lines while it is loaded; None = stderr.
        folder: of the host; None = as home and configuration say.
        start: starts the host.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        say: Callable[[str], None] | None = None,
        folder: Path | None = None,
        start: Callable[[Path], None] | None = None,
    ) -> None:
        self._arguments, self._say = dict(arguments), say or say_on_stderr
        self._folder = folder
        self._start = start or start_host
        self._lease: socket.socket | None = None
        self._visitor: Visitor | None = None
        self._is_closed = False
        self._lock = threading.Lock()  # held by who opens it, as long as the engine loads

    def state(self) -> State:
        """Return what the engine's owner last said."""
        return self._opened().state()

    def wait_ready(self, goes_on: Callable[[], bool]) -> State:
        """Wait until the engine is ready, opening it anew if the host that had it is gone."""
        visitor = self._opened()
        if not visitor.has_owner():
            with self._lock:
                self._let_go()
            visitor = self._opened()
        return visitor.wait_ready(goes_on)

    def death_of(self, incarnation: int) -> str | None:
        """Return how one of its processes ended."""
        return self._opened().death_of(incarnation)

    def close(self) -> None:
        """Let the host know that this program uses the engine no more, even if it still loads."""
        self._is_closed = True
        self._let_go()

    def begin_anew(self) -> None:
        """Forget, in a fork, what is its parent's."""
        self._lock = threading.Lock()
        lease, self._lease, self._visitor = self._lease, None, None
        if lease is not None:
            lease.close()  # hanging up would end the parent's, too

    def _let_go(self) -> None:
        lease, self._lease, self._visitor = self._lease, None, None
        if lease is not None:
            hang_up(lease)
            lease.close()

    def _opened(self) -> Visitor:
        with self._lock:
            visitor = self._visitor
            if visitor is None:
                lease = self._lease = self._connect()
                if self._is_closed:  # `close` may have come before the lease
                    self._let_go()
                    raise _closed()
                visitor = self._visitor = Visitor(self._open(lease))
            if self._is_closed:
                raise _closed()
            return visitor

    def _open(self, lease: socket.socket) -> Path:
        with contextlib.suppress(OSError):  # it hung up, or we did
            lease.sendall(frame(Open(self._arguments)))
            messages = Messages(lease.makefile("rb"), FromHost)
            while (message := messages.read()) is not None:
                if isinstance(message, Say):
                    self._say(message.line)
                elif isinstance(message, Failed):
                    self._let_go()
                    raise error_of(message.problem)
                elif isinstance(message, Opened):
                    return Path(message.folder)
        self._let_go()
        if self._is_closed:
            raise _closed()
        raise EngineClosed("the host of shared engines ended while it loaded this one: try again")

    def _connect(self) -> socket.socket:
        folder = self._folder or host_folder()
        deadline = time.monotonic() + _START_LIMIT_S
        is_started = False
        while time.monotonic() < deadline:
            if self._is_closed:
                raise _closed()
            notice = read_notice(folder)
            if notice is not None:
                with contextlib.suppress(OSError, EngineError):  # left over, or about to end
                    lease = dial(notice.address, _DIAL_LIMIT_S)
                    introduce(lease, notice.secret)
                    return lease
            if not is_started:
                self._start(folder)
                is_started = True
            time.sleep(_PAUSE_S)
        raise EngineError(
            f"the host of shared engines doesn't start{_last_words(folder)}: use an engine of this "
            "program's own"
        )


def _closed() -> EngineClosed:
    return EngineClosed("the engine was closed: open it again")


def start_host(folder: Path) -> None:
    """Start the host, which leaves at once if there is one.

    Raises:
        EngineError: it can't be started.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with open(folder / "log", "ab") as log:
            process = subprocess.Popen(
                command_for(MODULE),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
                start_new_session=True,
            )
        if hasattr(os, "fork"):
            process.wait()  # it goes on as a child of nobody
    except OSError as error:
        reason = error.strerror or str(error)
        raise EngineError(f"the host of shared engines can't be started: {reason}") from None


def _last_words(folder: Path) -> str:
    try:
        lines = (folder / "log").read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return f" ({said[-1][:300]})" if said else ""
