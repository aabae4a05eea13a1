"""A web server that answers with bytes as they are given, however wrong they are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Canned:
    """What a server answers, and what it was asked.

    Attributes:
        answers: one for each connection; the last one stays.
        asked: the requests' heads.
        hangs: True: connections stay open after the answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[bytes] = []
        self.asked: list[str] = []
        self.hangs = False


def reply(status: str, body: bytes = b"", *headers: str, length: int | None = -1) -> bytes:
    """Return an answer; its length is the body's, or None for not saying it."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@contextmanager
def canned() -> Iterator[Canned]:
    """Serve `answers` on loopback; connections that ask nothing get none."""
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=32) as server:
        served = Canned(f"http://127.0.0.1:{server.getsockname()[1]}")

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    fresh = connection.recv(65536)
                    if not fresh:
                        return
                    head += fresh
                served.asked.append(head.decode())
                answers = served.answers
                connection.sendall(answers.pop(0) if len(answers) > 1 else answers[0])
                if served.hangs:
                    closing.wait()

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            closing.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
