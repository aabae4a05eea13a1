"""A web server on loopback that answers whatever a test wants, sound or not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, dict[str, str], "bytes | Iterable[bytes]"]
"""Status, headers, and a body; of several pieces, one every hundredth of a second."""


@contextmanager
def odd_server(answer: Callable[[str, str], Reply]) -> Iterator[str]:
    """Serve what `answer(path, range)` gives to each GET, and lend the address."""
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            status, headers, body = answer(self.path, self.headers.get("Range") or "")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client went away
                if isinstance(body, bytes):
                    self.wfile.write(body)
                    return
                for piece in body:
                    self.wfile.write(piece)
                    if closing.wait(0.01):
                        return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
