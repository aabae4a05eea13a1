"""/embedding, /embeddings: llama-server's own way to embed texts.

Source: llama.cpp tools/server/README.md (b11434).
"""

from __future__ import annotations

from typing import Any

import falcon
import msgspec
import numpy as np
import numpy.typing as npt

from llamalite.engine.request import EmbeddingRequest
from llamalite.server.body import as_schema, note_unknown, read_json, unknown_fields
from llamalite.server.problems import refuse
from llamalite.server.prompts import PromptField, prompts_of
from llamalite.server.site import Site

_MOST_TEXTS = 2048
_LARGEST = 32760.0
"""What the largest element becomes with embd_normalize 0: embeddings as 16-bit numbers."""


class EmbeddingFields(msgspec.Struct, kw_only=True):
    """The body."""

    content: PromptField | None = None
    input: PromptField | None = None
    embd_normalize: int | None = None
    encoding_format: str | None = None
    model: str | None = None
    user: Any = None


class Embedding:
    """Embeds texts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Embed one text or several: a list with a list of rows for each."""
        said = read_json(http, self._site.config.max_body_bytes)
        fields = as_schema(said, EmbeddingFields)
        strict = self._site.config.strict
        note_unknown(unknown_fields(said, EmbeddingFields), response, strict=strict)
        given = fields.content if fields.content is not None else fields.input
        if given is None:
            raise refuse(400, "content is missing", param="content")
        if fields.encoding_format not in (None, "float"):
            raise refuse(400, "encoding_format: numbers alone", param="encoding_format")
        norm = 2 if fields.embd_normalize is None else fields.embd_normalize
        if norm < 0:
            raise refuse(
                400, "embd_normalize: embeddings are always normalised here", param="embd_normalize"
            )
        with self._site.lending(fields.model) as served:
            prompts = prompts_of(given, served, "content", _MOST_TEXTS)
            rows = served.engine.embed(EmbeddingRequest(prompts)).result()
        response.data = msgspec.json.encode(
            [{"index": i, "embedding": [_scaled(row, norm).tolist()]} for i, row in enumerate(rows)]
        )


def _scaled(row: npt.NDArray[np.float32], norm: int) -> npt.NDArray[np.float64]:
    values = row.astype(np.float64)
    if norm == 2:
        return values
    sizes = np.abs(values)
    size = sizes.max() / _LARGEST if norm == 0 else (sizes**norm).sum() ** (1 / norm)
    return values / size if size > 0 else values
