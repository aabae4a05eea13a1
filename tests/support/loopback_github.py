"""A GitHub on loopback: release downloads that redirect to a second path, as the real one does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackGitHub:
    """Serves release files by name.

    Attributes:
        files: content by file name.
        cut_at: bytes after which the connection breaks, or None.
        requests: paths asked for, in order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_at: int | None = None
        self.requests: list[str] = []
        self.url = ""


@contextmanager
def serving() -> Iterator[LoopbackGitHub]:
    """Serve on a free port until the block ends."""
    github = LoopbackGitHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            github.requests.append(self.path)
            name = self.path.rpartition("/")[2]
            if name not in github.files:
                self.answer(404, b"Not Found")
            elif "/releases/download/" in self.path:
                self.send_response(302)
                self.send_header("Location", f"{github.url}/storage/{name}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.answer(200, github.files[name], github.cut_at)

        def answer(self, code: int, content: bytes, cut_at: int | None = None) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut_at])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    github.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
