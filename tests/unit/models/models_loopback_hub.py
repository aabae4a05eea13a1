"""A Hugging Face Hub on loopback: two hosts, the Hub itself and the storage it redirects to."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LoopbackHub:
    """Serves `repos` as the Hub does; the other fields make it misbehave.

    Attributes:
        repos: contents by path, by repository.
        gated: repositories whose terms weren't accepted.
        answers: statuses to give first to requests for the Hub's files.
        cuts: bytes after which the storage cuts each of its next connections.
        flipped: the storage sends one wrong byte.
        storage: address the Hub redirects to; None = its own storage host.
        seen: (host, method, path, headers) of each request.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    answers: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    flipped: bool = False
    storage: str | None = None
    seen: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._servers = [self._serve(_HubHandler), self._serve(_StorageHandler)]
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def _serve(self, handler: type[_Handler]) -> ThreadingHTTPServer:
        bound = type(handler.__name__, (handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def requests(self, host: str, method: str) -> list[dict[str, str]]:
        return [headers for h, m, _, headers in self.seen if (h, m) == (host, method)]


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    host = ""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._note()

    def do_GET(self) -> None:
        self._note()

    def _note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.seen.append((self.host, self.command, self.path, headers))
        self.respond()

    def respond(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _HubHandler(_Handler):
    host = "hub"

    def respond(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._list("/".join(parts[2:4]))
        elif len(parts) > 4 and parts[2] == "resolve":
            if self.hub.answers:
                self.reply(self.hub.answers.pop(0), {})
            else:
                self._resolve("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self.reply(200, {})

    def _list(self, repo: str) -> None:
        files = self.hub.repos.get(repo)
        if files is None:
            self.reply(401, {"X-Error-Code": "RepoNotFound"})
            return
        tree = [
            {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
                "lfs": {
                    "oid": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 135,
                },
            }
            for path, content in files.items()
        ]
        body = json.dumps(tree).encode()
        self.reply(200, {"Content-Type": "application/json"}, body)

    def _resolve(self, repo: str, path: str) -> None:
        if repo not in self.hub.repos:
            self.reply(401, {"X-Error-Code": "RepoNotFound"})
        elif repo in self.hub.gated:
            self.reply(403, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": COMMIT})
        elif path not in self.hub.repos[repo]:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = self.hub.repos[repo][path]
            digest = hashlib.sha256(content).hexdigest()
            headers = {
                "Location": f"{self.hub.storage or self.hub.storage_url}/{repo}/{path}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{digest}"',
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            }
            self.reply(302, headers)


class _StorageHandler(_Handler):
    host = "storage"

    def respond(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if len(parts) < 3:  # somebody asks whether this host is there
            self.reply(200, {})
            return
        content = self.hub.repos["/".join(parts[:2])]["/".join(parts[2:])]
        if self.hub.flipped:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].split("-")[0])
        body = content[start:]
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(len(body))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and self.hub.cuts:
            body = body[: self.hub.cuts.pop(0)]
            self.close_connection = True
        self.reply(206 if start else 200, headers, body)
