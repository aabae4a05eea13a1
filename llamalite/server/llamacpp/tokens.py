"""/tokenize, /detokenize and /apply-template.

Source: llama.cpp tools/server/README.md.
"""

from __future__ import annotations

from typing import Any

import falcon
import msgspec

from llamalite.server.body import as_schema, note_unknown, read_json, unknown_fields
from llamalite.server.openai.chat import ChatRequest, plain_messages, variables
from llamalite.server.openai.fields import refuse_tools
from llamalite.server.site import Site


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of /tokenize."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of /detokenize."""

    tokens: list[int]
    model: str | None = None


class Tokenize:
    """Turns text into tokens."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Answer with token ids, or with their pieces, too."""
        said = read_json(http, self._site.config.max_body_bytes)
        fields = as_schema(said, TokenizeRequest)
        _note(said, TokenizeRequest, response, self._site)
        with self._site.lending(fields.model) as served:
            tokens: list[Any] = served.vocab.tokenize(
                fields.content, add_special=fields.add_special, parse_special=fields.parse_special
            )
            if fields.with_pieces:
                tokens = [{"id": t, "piece": _piece(served.vocab.piece(t))} for t in tokens]
        response.data = msgspec.json.encode({"tokens": tokens})


def _piece(piece: bytes) -> str | list[int]:
    """Return a piece as text, or its bytes where that isn't whole characters."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)


class Detokenize:
    """Turns tokens into text."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Answer with the text."""
        said = read_json(http, self._site.config.max_body_bytes)
        fields = as_schema(said, DetokenizeRequest)
        _note(said, DetokenizeRequest, response, self._site)
        with self._site.lending(fields.model) as served:
            text = served.vocab.detokenize(fields.tokens)
        response.data = msgspec.json.encode({"content": text})


class ApplyTemplate:
    """Renders a conversation without answering it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Answer with the prompt's text."""
        said = read_json(http, self._site.config.max_body_bytes)
        refuse_tools(said)
        fields = as_schema(said, ChatRequest)
        _note(said, ChatRequest, response, self._site)
        with self._site.lending(fields.model) as served:
            messages = served.prompting.opened(plain_messages(fields.messages))
            prompt = served.prompting.render(messages, **variables(fields.chat_template_kwargs))
        response.data = msgspec.json.encode({"prompt": prompt})


def _note(said: dict[str, Any], schema: type, response: falcon.Response, site: Site) -> None:
    note_unknown(unknown_fields(said, schema), response, strict=site.config.strict)
