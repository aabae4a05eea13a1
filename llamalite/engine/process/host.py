"""The host: one process that owns the engines which several programs of a user share.

There is one for each LLAMALITE_HOME and configuration: whoever gets the lock is it, and others
leave. It loads engines as they are asked for, tells programs where they are, and ends some seconds
after its last program has; engines nobody uses any more end likewise. Tokens don't pass through it.
`python -m llamalite.engine.process.host` is its main; `shared` starts it. Imports the standard
library, `core.child`, `llamalite.config`, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llamalite import __version__
from llamalite.config.places import config_path
from llamalite.engine.process.auth import admit, new_secret
from llamalite.engine.process.crossing import problem_of
from llamalite.engine.process.loader import FACTORY
from llamalite.engine.process.rendezvous import run_folder
from llamalite.engine.process.sockets import hang_up, listen, prompt
from llamalite.engine.process.supervisor import Supervisor
from llamalite.engine.process.wire import Failed, Messages, Open, Opened, Say, frame
from llamalite.errors import EngineClosed, LlamaliteError
from llamalite.locks import open_lock, try_lock

MODULE = "llamalite.engine.process.host"
LINGER_S = 5.0
"""Seconds an engine, and the host, stay after their last program."""

_TICK_S = 0.2
_STARTUP_LIMIT_S = 15.0
_NOT_CONFIGURATION = {
    "LLAMALITE_HOME",
    "LLAMALITE_LOG",
    "LLAMALITE_DEBUG",
    "LLAMALITE_CHILD",
}


class Notice(msgspec.Struct, frozen=True):
    """What a host leaves in its folder: where it listens, and what its clients must know."""

    address: str
    secret: bytes
    pid: int


def host_folder() -> Path:
    """Return the folder of the host for this home and this configuration; it may not be there.

    Raises:
        EngineError: there is no place for it.
    """
    digest = hashlib.sha256(__version__.encode())
    for name, value in sorted(os.environ.items()):
        if name.startswith("LLAMALITE_") and name not in _NOT_CONFIGURATION:
            digest.update(f"\0{name}={value}".encode("utf-8", "surrogateescape"))
    with contextlib.suppress(OSError):
        digest.update(b"\0" + config_path().read_bytes())
    return run_folder() / f"h{digest.hexdigest()[:12]}"


def read_notice(folder: Path) -> Notice | None:
    """Return where the host listens, if there is one."""
    try:
        return msgspec.json.decode((folder / "host.json").read_bytes(), type=Notice)
    except (OSError, msgspec.MsgspecError):
        return None


class _Shared:
    """An engine and who uses it."""

    def __init__(self, arguments: dict[str, Any], factory: str, say: Callable[[str], None]) -> None:
        self.supervisor = Supervisor(arguments, factory, say)
        self.n_users = 0
        self.unused_since = time.monotonic()


class Host:
    """Serves programs until none has been there for some seconds.

    Args:
        folder: of this host; its lock is held.
        factory: makes the engines.
        linger_s: seconds an engine, and the host, stay after their last program.
    """

    def __init__(self, folder: Path, factory: str = FACTORY, linger_s: float = LINGER_S) -> None:
        self._folder, self._factory, self._linger_s = folder, factory, linger_s
        self._secret = new_secret()
        self._listener, self._address = listen(folder, "h")
        self._engines: dict[bytes, _Shared] = {}
        self._n_programs = 0
        self._unused_since = time.monotonic() + _STARTUP_LIMIT_S
        self._lock = threading.Lock()
        self._is_over = False

    def run(self) -> None:
        """Serve, then close all engines."""
        threading.Thread(target=self._accept, name="llamalite-host", daemon=True).start()
        notice = Notice(self._address, self._secret, os.getpid())
        new = self._folder / "host.json.new"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(msgspec.json.encode(notice))
        os.replace(new, self._folder / "host.json")
        try:
            while not self._is_unused():
                time.sleep(_TICK_S)
                self._close_unused()
        finally:
            with contextlib.suppress(OSError):
                (self._folder / "host.json").unlink()
            hang_up(self._listener)
            self._listener.close()
            for shared in self._engines.values():
                shared.supervisor.close()

    def _is_unused(self) -> bool:
        with self._lock:
            idle_s = time.monotonic() - self._unused_since
            self._is_over = not self._n_programs and idle_s > self._linger_s
            return self._is_over

    def _close_unused(self) -> None:
        now = time.monotonic()
        with self._lock:
            unused = [
                key
                for key, shared in self._engines.items()
                if not shared.n_users and now - shared.unused_since > self._linger_s
            ]
            closing = [self._engines.pop(key) for key in unused]
        for shared in closing:
            shared.supervisor.close()

    def _accept(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                if self._is_over:
                    return
                time.sleep(_TICK_S)
                continue
            try:
                threading.Thread(
                    target=self._serve, args=[guest], name="llamalite-program", daemon=True
                ).start()
            except RuntimeError:  # no more threads, for now
                guest.close()

    def _serve(self, guest: socket.socket) -> None:
        with guest, contextlib.suppress(OSError):
            prompt(guest)
            if not admit(guest, self._secret):
                return
            with self._lock:
                if self._is_over:
                    return
                self._n_programs += 1
            try:
                self._converse(guest)
            finally:
                with self._lock:
                    self._n_programs -= 1
                    self._unused_since = time.monotonic()

    def _converse(self, guest: socket.socket) -> None:
        """Open engines for a program, and keep them until it leaves."""
        used: list[_Shared] = []
        sending = threading.Lock()

        def tell(message: Say | Opened | Failed) -> None:
            with sending, contextlib.suppress(OSError):  # it left: `messages` ends
                guest.sendall(frame(message))

        try:
            with guest.makefile("rb") as stream:
                messages = Messages(stream, Open)
                while (message := messages.read()) is not None:
                    tell(self._open(message, used, lambda line: tell(Say(line))))
        finally:
            with self._lock:
                for shared in used:
                    shared.n_users -= 1
                    shared.unused_since = time.monotonic()

    def _open(
        self, message: Open, used: list[_Shared], say: Callable[[str], None]
    ) -> Opened | Failed:
        # The same things asked for are the same engine.
        key = hashlib.sha256(msgspec.json.encode(message.arguments, order="sorted")).digest()
        try:
            with self._lock:
                shared = known = self._engines.get(key)
                if shared is None or shared.supervisor.is_gone:
                    shared = self._engines[key] = _Shared(message.arguments, self._factory, say)
                shared.n_users += 1
                used.append(shared)
            if known is not None and known is not shared:
                known.supervisor.close()  # it was given up, and nobody else would
            shared.supervisor.wait_ready()
        except LlamaliteError as error:
            return Failed(problem_of(error))
        except OSError as error:
            reason = error.strerror or str(error)
            return Failed(problem_of(EngineClosed(f"the engine has no folder: {reason}")))
        return Opened(str(shared.supervisor.folder))


def main() -> int:
    """Become the host, unless there is one."""
    _leave_whoever_started_it()
    folder = host_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = open_lock(folder / "lock", 0o600)
    if not try_lock(lock):
        return 0
    Host(folder).run()
    return 0


def _leave_whoever_started_it() -> None:
    """Become a child of nobody, so that nobody has to collect it, and let go of the terminal."""
    if hasattr(os, "fork") and os.fork():
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
