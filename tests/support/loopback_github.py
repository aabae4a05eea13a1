"""A GitHub on loopback: releases, their files through redirects, and the releases API.

Speaks the real protocol: `releases/download/TAG/FILE` redirects to a storage path that knows
ranges and ETags, `releases/latest/download/FILE` redirects to the release marked latest, the API
(under `/api/v3`, as at a company's own GitHub, and without it) answers JSON with rate limit
headers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_REPOSITORY = "/ggml-org/llama.cpp"
_BLOCK_BYTES = 1 << 16


class LoopbackGitHub:
    """What is served, and how badly.

    Attributes:
        url: for `LLAMALITE_GITHUB_URL`; empty while nothing is served.
        files: content by file name, downloadable under any tag, unknown to the API.
        releases: files by tag; `publish` fills it. These the API knows.
        latest: tag that `releases/latest` leads to.
        requests: paths asked for, in order.
        headers: each request's headers, by lower-case name, in the same order.
        cut_at: bytes of an answer after which a download's connection breaks, or None.
        cuts: how many downloads are cut so; None for all.
        no_ranges: downloads ignore `Range` and come whole.
        wrong_content: downloads come with their last byte changed.
        slow: bytes a second a download comes at, or None.
        stop_at: bytes after which a download falls silent with its connection open, or None.
        swallow: no request is ever answered.
        swallow_api: the API never answers.
        api_down: the API answers 503.
        no_api: the API answers 404, as a mirror of files alone does.
        rate_limited: the API answers 403 with an exhausted rate limit.
        no_digests: the API gives assets without digests, as for releases before June 2025.
        api_answer: raw body given in place of every API answer, or None.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.releases: dict[str, dict[str, bytes]] = {}
        self.latest = ""
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.cut_at: int | None = None
        self.cuts: int | None = None
        self.stop_at: int | None = None
        self.slow: int | None = None
        self.no_ranges = self.wrong_content = False
        self.swallow = self.swallow_api = False
        self.api_down = self.no_api = self.rate_limited = self.no_digests = False
        self.api_answer: bytes | None = None
        self.closing = threading.Event()

    def publish(self, tag: str, files: Mapping[str, bytes], latest: bool = False) -> None:
        """Add a release, or files to it."""
        self.releases.setdefault(tag, {}).update(files)
        if latest:
            self.latest = tag

    def publish_version(self, version: str, tag: str, latest: bool = True) -> None:
        """Add a `vX.Y.Z` release, which holds nothing but the name of its build."""
        self.publish(version, {"nightly-tag.txt": f"{tag}\n".encode()}, latest)

    def content(self, tag: str, name: str) -> bytes | None:
        """Return a file's bytes as they are stored, or None."""
        return self.releases.get(tag, {}).get(name, self.files.get(name))

    def api_release(self, tag: str) -> dict[str, object] | None:
        """Return what the API says of a release, or None."""
        if tag not in self.releases:
            return None
        assets = []
        for name, content in self.releases[tag].items():
            asset = {
                "name": name,
                "size": len(content),
                "state": "uploaded",
                "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
                "browser_download_url": f"{self.url}{_REPOSITORY}/releases/download/{tag}/{name}",
            }
            if self.no_digests:
                asset["digest"] = None  # type: ignore[assignment]
            assets.append(asset)
        return {"tag_name": tag, "prerelease": tag.startswith("b"), "assets": assets}


@contextmanager
def serving() -> Iterator[LoopbackGitHub]:
    """Serve on a free port until the block ends."""
    github = LoopbackGitHub()

    class Handler(_Handler):
        state = github

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    github.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield github
    finally:
        github.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: LoopbackGitHub

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client went away

    def do_HEAD(self) -> None:
        """Answer a probe for the host, which is no request for anything and isn't noted."""
        if self.state.swallow:
            self.never_answer()
        else:
            self.answer(200, b"")

    def do_GET(self) -> None:
        github = self.state
        github.requests.append(self.path)
        github.headers.append({name.lower(): value for name, value in self.headers.items()})
        if github.swallow:
            self.never_answer()
            return
        path = self.path.removeprefix("/api/v3")
        if api := re.fullmatch(rf"/repos{_REPOSITORY}/releases/(latest|tags/([^/]+))", path):
            self.answer_api(api[2] or github.latest)
        elif latest := re.fullmatch(rf"{_REPOSITORY}/releases/latest/download/([^/]+)", self.path):
            self.redirect(f"{_REPOSITORY}/releases/download/{github.latest}/{latest[1]}")
        elif file := re.fullmatch(rf"{_REPOSITORY}/releases/download/([^/]+)/([^/]+)", self.path):
            if github.content(file[1], file[2]) is None:
                self.answer(404, b"Not Found")
            else:
                tag = f"/{file[1]}" if file[1] in github.releases else ""
                self.redirect(f"/storage{tag}/{file[2]}")
        elif stored := re.fullmatch(r"/storage(?:/([^/]+))?/([^/]+)", self.path):
            self.answer_file(github.content(stored[1] or "", stored[2]))
        else:
            self.answer(404, b"Not Found")

    def never_answer(self) -> None:
        self.state.closing.wait()
        self.close_connection = True

    def redirect(self, path: str) -> None:
        self.answer(302, b"", {"Location": self.state.url + path})

    def answer(self, code: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer_api(self, tag: str) -> None:
        github = self.state
        limit = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59"}
        limit["X-RateLimit-Reset"] = str(int(time.time()) + 1800)
        release = github.api_release(tag)
        if github.swallow_api:
            self.never_answer()
        elif github.no_api:
            self.answer(404, b"Not Found")
        elif github.api_down:
            self.answer(503, b"<html>unicorn</html>")
        elif github.rate_limited:
            self.answer(
                403,
                b'{"message": "API rate limit exceeded"}',
                {**limit, "X-RateLimit-Remaining": "0"},
            )
        elif github.api_answer is not None:
            self.answer(200, github.api_answer, limit)
        elif release is None:
            self.answer(404, b'{"message": "Not Found", "status": "404"}', limit)
        else:
            self.answer(200, json.dumps(release).encode(), limit)

    def answer_file(self, content: bytes | None) -> None:
        github = self.state
        if content is None:
            self.answer(404, b"Not Found")
            return
        if github.wrong_content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start, end = 0, len(content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        partial = asked is not None and not github.no_ranges
        if self.headers.get("If-Range") not in (None, etag):
            partial = False
        if asked is not None and partial:
            start = int(asked[1])
            end = min(end, int(asked[2]) + 1) if asked[2] else end
            if start >= len(content):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", etag)
        if not github.no_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.send_body(content[start:end])

    def send_body(self, content: bytes) -> None:
        github = self.state
        cut = github.cut_at
        if cut is not None and github.cuts is not None:
            if github.cuts > 0:
                github.cuts -= 1
            else:
                cut = None
        stop = github.stop_at
        content = content[: min(n for n in (cut, stop, len(content)) if n is not None)]
        block = _BLOCK_BYTES if github.slow is None else max(1, github.slow // 50)
        for at in range(0, len(content), block):
            self.wfile.write(content[at : at + block])
            if github.slow is not None and github.closing.wait(block / github.slow):
                break
        if stop is not None:
            self.never_answer()
        elif cut is not None:
            self.close_connection = True
