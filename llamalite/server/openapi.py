"""/openapi.json: what may be asked, generated from the schemas that read the requests.

Source: OpenAPI 3.1.
"""

from __future__ import annotations

from typing import Any

import falcon
import msgspec

from llamalite import __version__
from llamalite.server.llamacpp.completion import CompletionFields
from llamalite.server.llamacpp.embedding import EmbeddingFields
from llamalite.server.llamacpp.tokens import DetokenizeRequest, TokenizeRequest
from llamalite.server.openai.chat import ChatRequest
from llamalite.server.openai.completions import CompletionRequest
from llamalite.server.openai.embeddings import EmbeddingsRequest

_POSTS: dict[str, tuple[type, str]] = {
    "/v1/chat/completions": (ChatRequest, "Answer a conversation"),
    "/v1/completions": (CompletionRequest, "Continue texts"),
    "/v1/embeddings": (EmbeddingsRequest, "Embed texts"),
    "/completion": (CompletionFields, "Continue texts, in llama-server's way"),
    "/embedding": (EmbeddingFields, "Embed texts, in llama-server's way"),
    "/tokenize": (TokenizeRequest, "Turn text into tokens"),
    "/detokenize": (DetokenizeRequest, "Turn tokens into text"),
    "/apply-template": (ChatRequest, "Render a conversation without answering it"),
}
_GETS = {
    "/v1/models": "List the models that may be asked for",
    "/health": "Say whether the models named at the start are loaded",
    "/metrics": "What the engines have done, for Prometheus",
    "/props": "Describe the server and a model",
    "/slots": "Say how many answers are being computed",
}
_LATER = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls")
"""Fields of a later version; asking for them is a 501."""


def document() -> dict[str, Any]:
    """Return the description of the API."""
    schemas = [schema for schema, _ in _POSTS.values()]
    bodies, components = msgspec.json.schema_components(
        schemas, ref_template="#/components/schemas/{name}"
    )
    for name in _LATER:
        components["ChatRequest"]["properties"].pop(name)
    paths: dict[str, Any] = {
        path: {"post": _operation(summary, body)}
        for (path, (_, summary)), body in zip(_POSTS.items(), bodies, strict=True)
    }
    paths |= {path: {"get": _operation(summary)} for path, summary in _GETS.items()}
    security = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "llamalite", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": security}},
        "security": [{"key": []}, {}],
    }


def _operation(summary: str, body: Any = None) -> dict[str, Any]:
    error = {"description": 'what is wrong with the request: {"error": {"message", …}}'}
    said: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "the answer"}, "4XX": error, "503": error},
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        said["requestBody"] = {"required": True, "content": content}
    return said


class OpenAPI:
    """Answers with the description."""

    def __init__(self) -> None:
        self._data = msgspec.json.encode(document())

    def on_get(self, _http: falcon.Request, response: falcon.Response) -> None:
        """Answer with the description."""
        response.data = self._data
