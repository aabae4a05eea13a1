"""Hosts on loopback that can't be reached, in each of the ways there are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def closed_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def refusing() -> Iterator[str]:
    """An address that refuses connections."""
    yield f"http://127.0.0.1:{closed_port()}"


@contextmanager
def swallowing() -> Iterator[str]:
    """An address whose host neither accepts nor refuses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # A full backlog makes Linux drop further connection requests without an answer.
        waiting: list[socket.socket] = []
        try:
            for _ in range(8):
                client = socket.socket()
                client.settimeout(0.05)
                waiting.append(client)
                try:
                    client.connect(server.getsockname())
                except TimeoutError:
                    break
            else:
                pytest.skip("this system accepts connections beyond the backlog")
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            for client in waiting:
                client.close()


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections, reads what comes and never answers."""
    taken: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(32)

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in taken:
                connection.close()


@contextmanager
def answering(status: int = 200, location: str = "") -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that gives one status, and the request lines it was asked with."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.requestline)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        do_HEAD = do_GET = do_CONNECT = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


UNREACHABLE = {"refusing": refusing, "swallowing": swallowing, "silent": silent}
"""Ways in which a host can be out of reach, by name."""
