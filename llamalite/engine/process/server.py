"""The engine's end of its connections: several clients share one engine.

A thread per connection reads requests (`connection`). Doesn't know who started the engine. Imports
the standard library and its siblings.
"""

from __future__ import annotations

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from llamalite.engine.process.auth import admit
from llamalite.engine.process.connection import Connection, ServedEngine
from llamalite.engine.process.sockets import hang_up, prompt

_log = logging.getLogger("llamalite.engine")
MOST_CONNECTIONS = 256
MOST_BYTES = 32 << 20
"""What may wait for a client that reads slowly."""
_COMPILERS = 4


class EngineServer:
    """Serves an engine on a listening socket.

    Args:
        engine: the engine.
        listener: from `sockets.listen`; closed at the end.
        secret: what clients must know.
        most_bytes: what may wait for a client that reads slowly.
    """

    def __init__(
        self,
        engine: ServedEngine,
        listener: socket.socket,
        secret: bytes,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._engine, self._most_bytes = engine, most_bytes
        self.facts = engine.facts
        self._compilers = ThreadPoolExecutor(_COMPILERS, "llamalite-compiler")
        self._listener, self._secret = listener, secret
        self._connections: set[Connection] = set()
        self._n_guests = 0
        self._lock = threading.Lock()
        self._is_closed = False

    def start(self) -> None:
        """Take connections from now on."""
        threading.Thread(target=self._accept, name="llamalite-accept", daemon=True).start()

    def close(self) -> None:
        """Hang up on all clients."""
        with self._lock:
            self._is_closed = True
            connections = list(self._connections)
        hang_up(self._listener)
        self._listener.close()
        for connection in connections:
            connection.hang_up()
        self._compilers.shutdown(wait=False, cancel_futures=True)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                if self._is_closed:
                    return
                threading.Event().wait(0.05)  # no file handle left, for now
                continue
            with self._lock:
                is_full = self._n_guests >= MOST_CONNECTIONS
                self._n_guests += not is_full
            if is_full:
                guest.close()
                continue
            try:
                threading.Thread(
                    target=self._serve, args=[guest], name="llamalite-connection", daemon=True
                ).start()
            except RuntimeError:  # no more threads, for now
                self._leave(guest)

    def _serve(self, guest: socket.socket) -> None:
        try:
            prompt(guest)
            if admit(guest, self._secret):
                self._converse(guest)
        except OSError:
            pass  # it left
        except Exception:
            _log.exception("a connection failed")
        finally:
            self._leave(guest)

    def _leave(self, guest: socket.socket) -> None:
        guest.close()
        with self._lock:
            self._n_guests -= 1

    def _converse(self, guest: socket.socket) -> None:
        connection = Connection(self._engine, guest, self._compilers, self._most_bytes)
        with self._lock:
            if self._is_closed:
                return
            self._connections.add(connection)
        try:
            connection.run(self.facts)
        finally:
            with self._lock:
                self._connections.discard(connection)
