"""Hub references, `[hf:]owner/repo[:QUANT|/path/file.gguf][@revision]`, and split models.

Owns how such names are read, and the Hub's own addresses of pages and files, which mean the same;
which file of a repository one means, `repository` says. Pure: touches neither disk nor network. May
import `safety`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from llamalite.models.names.safety import check_file_name, is_safe

_REFERENCE = re.compile(
    r"(?P<hf>hf:(?://)?)?"
    r"(?P<repo>[a-z0-9][\w.-]{0,95}/[a-z0-9][\w.-]{0,95})"
    r"(?::(?P<quant>[\w.-]{1,64})|/(?P<file>.+?\.gguf))?"
    r"(?:@(?P<revision>[\w./-]{1,255}))?",
    re.I | re.A | re.S,
)
PUBLIC = "https://huggingface.co"
_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.I)
_PAGE = re.compile(
    r"(?P<repo>[^/]+/[^/]+)/(?:tree/(?P<tree>[^/]+)|(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+))",
    re.S,
)
_NO_MODEL = ("datasets/", "spaces/", "api/")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(\.gguf)$", re.I)

_OPEN = "latest"
"""What Ollama writes where no quantization is asked for."""


@dataclass(frozen=True)
class HubReference:
    """A model on the Hub, named by its quantization or by its file.

    Attributes:
        quant: as it was written; None = the default one.
        file: path in the repository, checked to be a plain one.
        explicit: True if it was written with "hf:" or as an address, so that it can't be meant as a
            path.
        revision: branch, tag or commit; None = the main branch.
    """

    repo: str
    quant: str | None = None
    file: str | None = None
    explicit: bool = False
    revision: str | None = None

    def __str__(self) -> str:
        tail = f"/{self.file}" if self.file else f":{self.quant}" if self.quant else ""
        return self.repo + tail + (f"@{self.revision}" if self.revision else "")


def parse_reference(name: str) -> HubReference | None:
    """Return the reference a name spells, or None if it can't be one.

    Raises:
        InvalidParameter: it is one, but its file or revision would lead out of a folder.
    """
    match = _REFERENCE.fullmatch(_without_address(name.strip()))
    if match is None:
        return None
    explicit = match["hf"] is not None
    is_path = not explicit and (match["file"] or match["repo"].lower().endswith(".gguf"))
    if is_path and not (match["file"] and is_safe(match["file"])):
        return None
    for part in (match["file"], match["revision"]):
        if part is not None:
            check_file_name(part, match["repo"])
    quant = None if (match["quant"] or "").lower() == _OPEN else match["quant"]
    return HubReference(match["repo"], quant, match["file"], explicit, match["revision"])


def _without_address(name: str) -> str:
    """Return what an address of the Hub means as a reference; other names as they are."""
    host = _HUB.match(name)
    if host is None or name[host.end() :].lower().startswith(_NO_MODEL):
        return name
    path = re.split("[?#]", name[host.end() :])[0].rstrip("/")
    page = _PAGE.fullmatch(path)
    if page is None:
        return f"hf:{path}"
    tail = f"/{unquote(page['file'])}" if page["file"] else ""
    return f"hf:{page['repo']}{tail}@{unquote(page['revision'] or page['tree'])}"


def shard_names(file: str) -> list[str]:
    """Return the names of all parts of a split model, given any of them; else the name alone."""
    match = _SHARD.search(file)
    if match is None:
        return [file]
    stem, n_shards = file[: match.start()], int(match[2])
    return [f"{stem}-{i:05}-of-{match[2]}{match[3]}" for i in range(1, n_shards + 1)] or [file]
