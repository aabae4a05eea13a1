"""What the headers of an answer say about the file that it brings, or a part of it.

Owns their reading. Doesn't know what was asked for. Imports the standard library alone.
"""

from __future__ import annotations

import re
from email.message import Message
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http.client import HTTPResponse

_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)")
_NO_RANGE = re.compile(r"bytes \*/([0-9]{1,15})")
_LENGTH = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,9}")


def start_of(answer: HTTPResponse) -> int:
    """Return the first byte's place in the file; -1 where the answer says nothing."""
    if answer.status == 200:
        return 0
    match = _RANGE.fullmatch(_said(answer.headers, "Content-Range"))
    return int(match[1]) if match and answer.status == 206 else -1


def total_of(answer: HTTPResponse) -> int | None:
    """Return the whole file's size, or None where the answer doesn't say it."""
    if answer.status == 200:
        match = _LENGTH.fullmatch(_said(answer.headers, "Content-Length"))
        return int(match[0]) if match else None
    match = _RANGE.fullmatch(_said(answer.headers, "Content-Range"))
    return int(match[2]) if match and match[2] != "*" else None


def total_of_refusal(headers: Message) -> int | None:
    """Return the whole file's size as a server says it that has nothing behind what is here."""
    match = _NO_RANGE.fullmatch(_said(headers, "Content-Range"))
    return int(match[1]) if match else None


def version_of(answer: HTTPResponse) -> str:
    """Return what `If-Range` takes: a strong ETag, else the date of the last change, else ""."""
    etag = _said(answer.headers, "ETag")
    return etag if etag.startswith('"') else _said(answer.headers, "Last-Modified")


def is_version(answer: HTTPResponse, version: str) -> bool:
    """Say whether a part is one of a version.

    Source: RFC 9110, 15.3.7: a 206 must repeat the ETag, but may leave the date out.
    """
    said = version_of(answer)
    return said == version or (not said and not version.startswith('"'))


def is_page(answer: HTTPResponse) -> bool:
    """Say whether it is a page for people, as those are who must log in to a network first."""
    return answer.headers.get_content_type() == "text/html"


def wait_of(headers: Message) -> float | None:
    """Return the seconds after which a server wants to be asked again, or None."""
    said = _said(headers, "Retry-After")
    return float(said) if _SECONDS.fullmatch(said) else None


def _said(headers: Message, name: str) -> str:
    return (headers.get(name) or "").strip()
