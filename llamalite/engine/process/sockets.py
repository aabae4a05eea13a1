"""Local connections: a Unix socket in a private folder, or TCP on loopback where there are none.

Owns addresses (`unix:PATH`, `tcp:PORT`) and sending without waiting for the reader. Doesn't know
messages. Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import threading
from pathlib import Path

MOST_PATH_BYTES = 100
"""Longest path of a Unix socket; systems take 104 to 108 with the ending zero."""

_GRACE_S = 10.0
_LOOPBACK = "127.0.0.1"
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", None)


def listen(folder: Path, name: str) -> tuple[socket.socket, str]:
    """Listen for local connections; return the socket and its address.

    Args:
        folder: private to the user.
        name: of the Unix socket in it; one that is there is replaced.

    Raises:
        OSError: neither way works.
    """
    path = folder / name
    if hasattr(socket, "AF_UNIX") and len(os.fsencode(path)) <= MOST_PATH_BYTES:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            listener.bind(str(path))
            listener.listen(64)
        except OSError:  # a file system without sockets
            listener.close()
        else:
            return listener, f"unix:{path}"
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((_LOOPBACK, 0))
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener, f"tcp:{listener.getsockname()[1]}"


def dial(address: str, limit_s: float) -> socket.socket:
    """Connect to what `listen` returned.

    Raises:
        OSError: nothing listens there.
    """
    kind, _, place = address.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(limit_s)
        connection.connect(place if kind == "unix" else (_LOOPBACK, int(place)))
        prompt(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def prompt(connection: socket.socket) -> None:
    """Let a TCP connection send at once what it is given."""
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def hang_up(connection: socket.socket) -> None:
    """End a connection, waking whoever reads from it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Outgoing:
    """Sends frames without waiting for the reader, up to a bound.

    What the system takes at once is sent in the calling thread, the rest by a thread of its own.

    Args:
        connection: blocking; read by others, closed by others after `close`.
        most_bytes: frames that may wait, besides the longest of them.
    """

    def __init__(self, connection: socket.socket, most_bytes: int) -> None:
        self._connection, self._most_bytes = connection, most_bytes
        self._waiting: collections.deque[memoryview] = collections.deque()
        self._n_bytes = 0
        self._is_sending = self._is_last = self._is_broken = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="llamalite-sender", daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> bool:
        """Send a frame, now or soon; False if too much waits already, and it isn't sent.

        After the connection broke, frames are dropped: who reads from it notices.
        """
        with self._changed:
            if self._is_broken or self._is_last:
                return True
            rest = memoryview(frame)
            if not self._waiting and not self._is_sending:
                rest = rest[self._send_now(rest) :]
            if not rest:
                return True
            if self._is_too_much(rest):
                return False
            self._push(rest)
            return True

    def end_with(self, frame: bytes) -> None:
        """Drop what waits, send this last, and hang up; the reader has some seconds to take it."""
        with self._changed:
            if self._is_last:
                return
            # A frame that has begun must be whole, or the last one couldn't be read.
            begun = [self._waiting[0]] if self._waiting and not self._is_sending else []
            self._waiting.clear()
            self._n_bytes = 0
            self._is_last = True
            for part in (*begun, memoryview(frame)):
                self._push(part)
        timer = threading.Timer(_GRACE_S, hang_up, [self._connection])
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Send nothing more and end the thread."""
        with self._changed:
            self._is_broken = True
            self._changed.notify_all()
        hang_up(self._connection)

    def _send_now(self, content: memoryview) -> int:
        if _DONT_WAIT is None:
            return 0
        try:
            return self._connection.send(content, _DONT_WAIT)
        except BlockingIOError:
            return 0
        except OSError:
            self._is_broken = True
            return len(content)

    def _is_too_much(self, content: memoryview) -> bool:
        n_bytes = self._n_bytes + len(content)
        if n_bytes <= self._most_bytes:
            return False
        # A single frame may be longer than all that may wait, and no sign of a slow reader.
        longest = max(len(content), *map(len, self._waiting), 0)
        return n_bytes - longest > self._most_bytes

    def _push(self, content: memoryview) -> None:
        self._waiting.append(content)
        self._n_bytes += len(content)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_sending = False
                self._changed.wait_for(lambda: self._waiting or self._is_last or self._is_broken)
                if self._is_broken or not self._waiting:
                    break
                content = self._waiting.popleft()
                self._n_bytes -= len(content)
                self._is_sending = True
            try:
                self._connection.sendall(content)
            except (OSError, ValueError):
                break
        with self._changed:
            self._is_broken = True
            self._waiting.clear()
        hang_up(self._connection)
