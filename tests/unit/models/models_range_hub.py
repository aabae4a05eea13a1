"""A Hugging Face Hub on loopback whose storage serves parts of files, as the real one does."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from models_loopback_hub import COMMIT, LoopbackHub, _Handler, _HubHandler

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class RangeHub(LoopbackHub):
    """Serves `repos`; the other fields make it misbehave, besides LoopbackHub's.

    Attributes:
        answers: statuses that the Hub gives first; storage_answers: that the storage gives.
        code: `X-Error-Code` of those of the Hub.
        retry_after: `Retry-After` of all of them.
        ranges: False: the storage knows whole files only.
        content_range: what the storage says instead of the truth; `{}` takes the size.
        lengthless: the storage doesn't say how long its answers are, and closes after each.
        most: bytes the storage sends per answer at most, saying so.
        replaced: contents by path that the storage serves after its first answer.
        n_sent: bytes that the storage wrote, headers too.
    """

    storage_answers: list[int] = field(default_factory=list)
    code: str = ""
    retry_after: str = ""
    ranges: bool = True
    content_range: str = ""
    lengthless: bool = False
    most: int = 1 << 40
    replaced: dict[str, bytes] = field(default_factory=dict)
    n_sent: int = 0

    def __post_init__(self) -> None:
        self._servers = [self._serve(_Hub), self._serve(_Storage)]
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def refusal(self) -> dict[str, str]:
        headers = {"X-Error-Code": self.code, "Retry-After": self.retry_after}
        return {name: value for name, value in headers.items() if value}


class _Hub(_HubHandler):
    hub: RangeHub

    def respond(self) -> None:
        owner, repo, what, *rest = [*urlsplit(self.path).path.strip("/").split("/"), "", ""][:64]
        if what != "resolve":
            super().respond()
        elif self.hub.answers:
            self.reply(self.hub.answers.pop(0), self.hub.refusal())
        else:
            self._resolve(f"{owner}/{repo}", unquote("/".join(filter(None, rest[1:]))))

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        if "Location" in headers:
            storage = self.hub.storage or self.hub.storage_url
            path = headers["Location"].removeprefix(storage)
            headers["Location"] = storage + quote(path)
        super().reply(status, headers, body)


class _Storage(_Handler):
    hub: RangeHub
    host = "storage"

    def respond(self) -> None:
        owner, _, rest = unquote(urlsplit(self.path).path).strip("/").partition("/")
        repo, _, path = rest.partition("/")
        content = self.hub.repos.get(f"{owner}/{repo}", {}).get(path)
        if self.path == "/" or content is None:
            self.reply(200 if self.path == "/" else 404, {})
        elif self.hub.storage_answers and (status := self.hub.storage_answers.pop(0)):
            self.reply(status, self.hub.refusal())
        elif not self.hub.ranges:
            self._send(200, {}, content)
        else:
            self._part(content)
            self.hub.repos[f"{owner}/{repo}"].update(self.hub.replaced)

    def _part(self, content: bytes) -> None:
        match = _RANGE.fullmatch(self.headers["Range"])
        assert match, "a whole file was asked for"
        start, stop = int(match[1]), int(match[2] or len(content) - 1) + 1
        if start >= len(content):
            self.reply(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[start : min(stop, start + self.hub.most)]
        true = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        said = self.hub.content_range.format(len(content)) if self.hub.content_range else true
        headers = {
            "Content-Range": said,
            "ETag": f'"{hashlib.md5(content[:1000]).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
        }
        self._send(206, headers, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        length = {"Content-Length": str(len(body))}
        if self.hub.lengthless:
            length = {"Connection": "close"}
        for name, value in {**length, **headers}.items():
            self.send_header(name, value)
        self.hub.n_sent += sum(map(len, self._headers_buffer))
        self.end_headers()
        if self.hub.cuts:
            body = body[: self.hub.cuts.pop(0)]
            self.close_connection = True
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            self.hub.n_sent += len(body[start : start + (1 << 16)])
