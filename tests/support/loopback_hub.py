"""A Hugging Face Hub on loopback: two hosts, the Hub itself and the storage it redirects to.

Speaks the real protocol: `api/models/REPO[/revision/REV]` and the paged `…/tree/REV` answer JSON,
`REPO/resolve/REV/PATH` redirects large files (LFS) to the storage and small ones to a path of the
Hub itself, where the token must follow; the storage knows ETags and ranges, and serves any file
under `storage_url/REPO/PATH` as a plain web server would.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_LARGE = (".gguf", ".bin", ".safetensors")
_BLOCK_BYTES = 1 << 16

Files = dict[str, bytes]


@dataclass
class LoopbackHub:
    """Serves `repos` as the Hub does; the other fields are for what differs from that.

    Attributes:
        repos: contents by path, by repository: what is on `main`.
        revisions: contents by path, by revision (a branch, a tag), by repository.
        gated: repositories whose terms weren't accepted; listed all the same.
        private: repositories that are only there for who has the token.
        token: lets into gated and private repositories; None = nothing does.
        small: paths that are no LFS files though they end like one.
        page: files in one answer of a listing.
        answers: statuses that the Hub gives first to requests for files; 0 = the right one.
        api_answers: the same for listings.
        storage_answers: the same for the storage.
        code: `X-Error-Code` of those of the Hub.
        retry_after: `Retry-After` of all of them.
        storage: address the Hub redirects to; None = its own storage host.
        cuts: bytes after which the storage cuts each of its next connections.
        stops: bytes after which the storage falls silent, for each of its next answers.
        slow: bytes a second that the storage sends, or None.
        flipped: the storage sends one wrong byte, the first.
        ranges: False: the storage knows whole files only.
        etags: False: the storage says no ETag.
        last_modified: `Last-Modified` that the storage says, or "".
        content_range: what the storage says instead of the truth; `{}` takes the size.
        lengthless: the storage doesn't say how long its answers are, and closes after each.
        most: bytes the storage sends per answer at most, saying so.
        replaced: contents by path that the storage serves after its first answer.
        seen: (host, method, path, headers) of each request.
        n_sent: bytes that the storage wrote, headers too.
        sent: bytes of each file's content that were written, by "REPO/PATH".
    """

    repos: dict[str, Files] = field(default_factory=dict)
    revisions: dict[str, dict[str, Files]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    token: str | None = None
    small: set[str] = field(default_factory=set)
    page: int = 1000
    answers: list[int] = field(default_factory=list)
    api_answers: list[int] = field(default_factory=list)
    storage_answers: list[int] = field(default_factory=list)
    code: str = ""
    retry_after: str = ""
    storage: str | None = None
    cuts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    slow: int | None = None
    flipped: bool = False
    ranges: bool = True
    etags: bool = True
    last_modified: str = ""
    content_range: str = ""
    lengthless: bool = False
    most: int = 1 << 40
    replaced: Files = field(default_factory=dict)
    seen: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)
    n_sent: int = 0
    sent: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        self._digests: dict[int, tuple[bytes, str]] = {}
        self._servers = [self._serve(_Hub), self._serve(_Storage)]
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def __enter__(self) -> LoopbackHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, handler: type[_Handler]) -> ThreadingHTTPServer:
        bound = type(handler.__name__, (handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        """Stop both hosts; answers that are being sent break off."""
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def requests(self, host: str, method: str) -> list[dict[str, str]]:
        """Return the headers of the requests that a host ("hub" or "storage") got."""
        return [headers for h, m, _, headers in self.seen if (h, m) == (host, method)]

    def ranges_asked(self) -> list[str | None]:
        """Return `Range` of each GET that the storage got."""
        return [headers.get("range") for headers in self.requests("storage", "GET")]

    def commit(self, repo: str, revision: str = "main") -> str:
        """Return the commit that a revision stands for; it differs when any content does."""
        files = self._files_of(repo, revision)
        assert files is not None, f"{repo} has no revision {revision}"
        tree = "".join(f"{path}\0{self.sha256(files[path])}\n" for path in sorted(files))
        return hashlib.sha1(f"{repo}\n{tree}".encode()).hexdigest()

    def files(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """Return the commit and the contents of a branch, a tag or a commit; None if unknown."""
        for name in ("main", *self.revisions.get(repo, {})):
            files = self._files_of(repo, name)
            if files is not None and revision in (name, self.commit(repo, name)):
                return self.commit(repo, name), files
        return None

    def _files_of(self, repo: str, name: str) -> Files | None:
        return self.repos.get(repo) if name == "main" else self.revisions.get(repo, {}).get(name)

    def sha256(self, content: bytes) -> str:
        """Return a content's digest, which is computed once."""
        if id(content) not in self._digests:
            self._digests[id(content)] = content, hashlib.sha256(content).hexdigest()
        return self._digests[id(content)][1]

    def is_large(self, path: str) -> bool:
        """Tell whether a file lies in LFS."""
        return path.lower().endswith(_LARGE) and path not in self.small

    def blob_id(self, path: str, content: bytes) -> str:
        """Return what git calls the file: of one in LFS, its pointer."""
        if self.is_large(path):
            spec = "version https://git-lfs.github.com/spec/v1"
            content = f"{spec}\noid sha256:{self.sha256(content)}\nsize {len(content)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, path: str, content: bytes) -> dict[str, object]:
        """Return what a listing says of a file."""
        oid = self.blob_id(path, content)
        said = {"type": "file", "path": path, "size": len(content), "oid": oid}
        if not self.is_large(path):
            return said
        lfs = {"oid": self.sha256(content), "size": len(content), "pointerSize": 135}
        return {**said, "lfs": lfs}

    def refusal(self) -> dict[str, str]:
        """Return the headers of `answers` and their like."""
        headers = {"X-Error-Code": self.code, "Retry-After": self.retry_after}
        return {name: value for name, value in headers.items() if value}


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    host = ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer takes 40 ms

    def log_message(self, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the client went away

    def do_HEAD(self) -> None:
        self._note()

    def do_GET(self) -> None:
        self._note()

    def _note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.seen.append((self.host, self.command, self.path, headers))
        self.respond(unquote(urlsplit(self.path).path).strip("/"))

    def respond(self, path: str) -> None:
        raise NotImplementedError

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self, answers: list[int]) -> bool:
        """Answer with the next of the statuses that come first, if there is one."""
        status = answers.pop(0) if answers else 0
        if status:
            self.reply(status, self.hub.refusal())
        return bool(status)


class _Hub(_Handler):
    host = "hub"

    def respond(self, path: str) -> None:
        parts = path.split("/")
        # A revision may hold slashes, which come quoted.
        quoted = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), quoted[4:])
        elif parts[:3] == ["api", "resolve-cache", "models"]:
            self._small("/".join(parts[3:5]), quoted[5], "/".join(quoted[6:]))
        elif len(parts) > 4 and parts[2] == "resolve":
            if not self.refused(self.hub.answers):
                self._resolve("/".join(parts[:2]), quoted[3], "/".join(quoted[4:]))
        else:
            self.reply(200, {})

    def _has_token(self) -> bool:
        token = self.hub.token
        return token is not None and self.headers.get("Authorization") == f"Bearer {token}"

    def _found(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """Return the commit and the contents of a revision; answer with an error if unknown."""
        known = repo in self.hub.repos or repo in self.hub.revisions
        if not known or (repo in self.hub.private and not self._has_token()):
            said = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self.reply(404 if self._has_token() else 401, said)
            return None
        found = self.hub.files(repo, revision)
        if found is None:
            said = {"X-Error-Message": f"Invalid rev id: {revision}"}
            self.reply(404, {"X-Error-Code": "RevisionNotFound", **said})
        return found

    def _api(self, repo: str, rest: list[str]) -> None:
        if self.refused(self.hub.api_answers):
            return
        revision = rest[1] if len(rest) > 1 else "main"
        found = self._found(repo, revision)
        if found is None:
            return
        commit, files = found
        if rest[:1] == ["tree"]:
            self._tree(files)
            return
        siblings = [{"rfilename": path} for path in files]
        gated = "manual" if repo in self.hub.gated else False
        said = {"id": repo, "modelId": repo, "sha": commit, "gated": gated, "tags": []}
        self._json({**said, "private": repo in self.hub.private, "siblings": siblings})

    def _tree(self, files: Files) -> None:
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("cursor", ["0"])[0])
        stop = start + self.hub.page
        page = [self.hub.entry(path, files[path]) for path in list(files)[start:stop]]
        where = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={stop}"
        self._json(page, {"Link": f'<{where}>; rel="next"'} if stop < len(files) else {})

    def _json(self, said: object, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json", **(headers or {})}
        self.reply(200, kind, json.dumps(said).encode())

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        found = self._found(repo, revision)
        if found is None:
            return
        commit, files = found
        whose = {"X-Repo-Commit": commit}
        if repo in self.hub.gated and not self._has_token():
            status = 403 if "Authorization" in self.headers else 401
            self.reply(status, {"X-Error-Code": "GatedRepo", **whose})
        elif path not in files:
            self.reply(404, {"X-Error-Code": "EntryNotFound", **whose})
        elif self.hub.is_large(path):
            storage = self.hub.storage or self.hub.storage_url
            rev = "" if revision == "main" else f"@{commit}"
            headers = {
                "Location": storage + quote(f"/{repo}{rev}/{path}"),
                "X-Linked-Size": str(len(files[path])),
                "X-Linked-Etag": f'"{self.hub.sha256(files[path])}"',
                "ETag": f'"{self.hub.blob_id(path, files[path])}"',
            }
            self.reply(302, {**headers, **whose})
        else:
            where = quote(f"/api/resolve-cache/models/{repo}/{commit}/{path}")
            etag = f'"{self.hub.blob_id(path, files[path])}"'
            self.reply(307, {"Location": where, "ETag": etag, **whose})

    def _small(self, repo: str, commit: str, path: str) -> None:
        found = self._found(repo, commit)
        if found is None:
            return
        if repo in self.hub.gated and not self._has_token():
            self.reply(401, {"X-Error-Code": "GatedRepo"})
            return
        content = found[1][path]
        etag = {"ETag": f'"{self.hub.blob_id(path, content)}"', "X-Repo-Commit": commit}
        if self.hub.flipped:
            content = bytes([content[0] ^ 1]) + content[1:]
        self.reply(200, etag, content)


class _Storage(_Handler):
    host = "storage"

    def respond(self, path: str) -> None:
        owner, _, rest = path.partition("/")
        repo, _, file = rest.partition("/")
        name, _, commit = f"{owner}/{repo}".partition("@")
        found = self.hub.files(name, commit or "main")
        if not path:  # somebody asks whether this host is there
            self.reply(200, {})
        elif found is None or file not in found[1]:
            self.reply(404, {})
        elif not self.refused(self.hub.storage_answers):
            self._serve(f"{name}/{file}", found[1][file])
            if name in self.hub.repos:
                self.hub.repos[name].update(self.hub.replaced)

    def _serve(self, name: str, content: bytes) -> None:
        hub = self.hub
        headers = {"Last-Modified": hub.last_modified} if hub.last_modified else {}
        if hub.etags:
            headers["ETag"] = f'"{hub.sha256(content)}"'
        version = headers.get("ETag") or headers.get("Last-Modified")
        if hub.flipped:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = _RANGE.fullmatch(self.headers.get("Range") or "")
        if not hub.ranges or asked is None or self.headers.get("If-Range") not in (None, version):
            self._send(name, 200, headers, content)
            return
        start, stop = int(asked[1]), int(asked[2] or len(content) - 1) + 1
        if start >= len(content):
            self.reply(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[start : min(stop, start + hub.most)]
        true = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        headers["Content-Range"] = hub.content_range.format(len(content)) or true
        self._send(name, 206, headers, body)

    def _send(self, name: str, status: int, headers: dict[str, str], body: bytes) -> None:
        length = {"Content-Length": str(len(body)), "Accept-Ranges": "bytes"}
        if not self.hub.ranges:
            del length["Accept-Ranges"]
        if self.hub.lengthless:
            length = {"Connection": "close"}
        self.send_response(status)
        for key, value in {**length, **headers}.items():
            self.send_header(key, value)
        self.hub.n_sent += sum(map(len, self._headers_buffer))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = self.hub.stops.pop(0) if self.hub.stops else None
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        if cut is not None:
            self.close_connection = True
        for block in self._blocks(body[: min(n for n in (stop, cut, len(body)) if n is not None)]):
            self.wfile.write(block)
            self.hub.n_sent += len(block)
            self.hub.sent[name] += len(block)
        if stop is not None:
            self.hub.closing.wait()

    def _blocks(self, body: bytes) -> Iterator[bytes]:
        """Yield the body in pieces, as fast as is set when each is due."""
        at = 0
        while at < len(body) and not self.hub.closing.is_set():
            slow = self.hub.slow
            n_bytes = _BLOCK_BYTES if slow is None else min(max(1, slow // 50), _BLOCK_BYTES)
            yield body[at : at + n_bytes]
            at += n_bytes
            if slow is not None:
                time.sleep(n_bytes / slow)
