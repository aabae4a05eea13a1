"""Bodies of requests: bounded, JSON, and nothing in them overlooked.

Owns what is refused before a schema sees it, and which fields nobody knows. Imports falcon, msgspec
and its siblings.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, TypeVar

import falcon
import msgspec

from llamalite.server.problems import refuse

_log = logging.getLogger("llamalite.server")
_T = TypeVar("_T")
_MOST_DEPTH = 100
_MOST_NAMED = 20
_CHUNK = 1 << 16
IGNORED_HEADER = "x-llamalite-ignored"


def read_json(request: falcon.Request, most: int) -> dict[str, Any]:
    """Return the JSON object that is the body of a request.

    Args:
        request: its content type isn't looked at, as with llama-server.
        most: bytes it may have.

    Raises:
        HTTPProblem: it is too large (413), no JSON, too deep or no object (400).
    """
    data = _read(request, most)
    if not data:
        raise refuse(400, "the request has no body: send a JSON object")
    try:
        said = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refuse(400, f"the body is no JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise refuse(400, "the body is nested too deep", code="invalid_json") from None
    if not isinstance(said, dict):
        raise refuse(400, "the body must be a JSON object", code="invalid_json")
    _check_depth(said)
    return said


def _read(request: falcon.Request, most: int) -> bytes:
    length = request.content_length
    if length is not None and length > most:
        raise _too_large(most)
    parts, size = [], 0
    while part := request.bounded_stream.read(_CHUNK):
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    if length is not None and size < length:
        raise refuse(400, f"the body ends after {size} of {length} bytes")
    return b"".join(parts)


def _too_large(most: int) -> Exception:
    return refuse(413, f"the body is larger than {most} bytes", code="request_too_large")


def _check_depth(said: Any) -> None:
    level = [said]
    for _ in range(_MOST_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise refuse(400, f"the body is nested more than {_MOST_DEPTH} deep", code="invalid_json")


def as_schema(said: dict[str, Any], schema: type[_T]) -> _T:
    """Return what was said as a schema's instance; raises HTTPProblem 400 naming the field."""
    try:
        return msgspec.convert(said, schema, strict=True)
    except msgspec.ValidationError as error:
        message = str(error)
        text, _, path = message.partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or None
        where = f"{param}: " if param else ""
        raise refuse(400, f"{where}{text}", param=param, code="invalid_type") from None


def unknown_fields(said: dict[str, Any], schema: type) -> list[str]:
    """Return the fields of a request that its schema doesn't know."""
    known = _fields(schema)
    return [name for name in said if name not in known]


@cache
def _fields(schema: type) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(schema))


def note_unknown(names: list[str], response: falcon.Response, *, strict: bool) -> None:
    """Tell of fields that are ignored, in a header and the log; `strict` refuses them.

    Raises:
        HTTPProblem: a field is unknown and `strict` set.
    """
    if not names:
        return
    shown = ", ".join(_plain(name) for name in names[:_MOST_NAMED])
    if strict:
        raise refuse(
            400, f"unknown fields: {shown}", param=_plain(names[0]), code="unknown_parameter"
        )
    response.set_header(IGNORED_HEADER, shown)
    _log.warning("fields of a request are ignored: %s", shown)


def _plain(name: str) -> str:
    """Return a name as it may stand in a header or a log."""
    return "".join(c if c.isascii() and c.isprintable() and c not in ',"' else "?" for c in name)[
        :64
    ]
