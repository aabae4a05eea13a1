"""/v1/embeddings."""

from __future__ import annotations

import base64
from typing import Any

import falcon
import msgspec
import numpy as np

from llamalite.engine.request import EmbeddingRequest
from llamalite.server.body import as_schema, note_unknown, read_json, unknown_fields
from llamalite.server.problems import refuse
from llamalite.server.prompts import PromptField, prompts_of
from llamalite.server.served import ServedModel
from llamalite.server.site import Site

_MOST_TEXTS = 2048


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """The body."""

    input: PromptField
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: Any = None


class Embeddings:
    """Embeds texts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Embed one text or several."""
        said = read_json(http, self._site.config.max_body_bytes)
        fields = as_schema(said, EmbeddingsRequest)
        strict = self._site.config.strict
        note_unknown(unknown_fields(said, EmbeddingsRequest), response, strict=strict)
        if fields.encoding_format not in (None, "float", "base64"):
            raise refuse(400, "encoding_format is none of float, base64", param="encoding_format")
        lent = self._site.lend(fields.model)
        try:
            served = lent.model
            _check_dimensions(fields.dimensions, served)
            prompts = prompts_of(fields.input, served, "input", _MOST_TEXTS)
            rows = served.engine.embed(EmbeddingRequest(prompts)).result()
        finally:
            lent.give_back()
        as_text = fields.encoding_format == "base64"
        count = sum(map(len, prompts))
        response.data = msgspec.json.encode(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": i, "embedding": _written(row, as_text)}
                    for i, row in enumerate(rows)
                ],
                "model": fields.model or served.public_name,
                "usage": {"prompt_tokens": count, "total_tokens": count},
            }
        )


def _check_dimensions(wanted: int | None, served: ServedModel) -> None:
    if wanted is not None and wanted != served.facts.n_embd_out:
        raise refuse(
            400, f"dimensions is {wanted}, and this model makes {served.facts.n_embd_out}",
            param="dimensions",
        )  # fmt: skip


def _written(row: Any, as_text: bool) -> Any:
    if as_text:
        return base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode("ascii")
    return row.tolist()
