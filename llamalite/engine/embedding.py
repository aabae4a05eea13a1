"""Embeddings: a context of its own that computes each text in one piece and pools it.

Imports numpy, `core` and `llamalite.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llamalite.core.adapter import LoraAdapter
from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.errors import ContextLengthExceeded, InvalidParameter
from llamalite.ffi.structs import PoolingType

_POOLINGS = ("none", "mean", "cls", "last")


def check_pooling(name: str | None) -> None:
    """Raise InvalidParameter unless it is None or the name of a pooling."""
    if name is not None and name not in _POOLINGS:
        known = ", ".join(_POOLINGS)
        raise InvalidParameter(f"pooling {name!r} is none of {known}", param="pooling")


class Embedder:
    """Makes embeddings with a model; one thread at a time.

    Args:
        model: any model, made for embeddings or not.
        params: fields of llama_context_params.
        pooling: "none" takes the last token's row; None = as the model says, else mean.
        loras: adapters to apply, each with its scale.

    Raises:
        InvalidParameter: no such pooling.
    """

    def __init__(
        self,
        model: Model,
        params: dict[str, Any],
        pooling: str | None,
        loras: Sequence[tuple[LoraAdapter, float]] = (),
    ) -> None:
        # A pooled sequence must be computed in one ubatch.
        size = min(params["n_batch"], params["n_ctx"] or model.n_ctx_train)
        changes: dict[str, Any] = {"embeddings": True, "n_batch": size, "n_ubatch": size}
        wanted = self._pooling(model, pooling)
        if wanted is not None:
            changes["pooling_type"] = int(wanted)
        self._model = model
        self._context = Context(model, **{**params, **changes})
        if loras:
            self._context.set_loras(loras)
        self._batch = Batch(size, model.vocab.n_tokens, self._context.n_seq_max)

    @staticmethod
    def _pooling(model: Model, name: str | None) -> PoolingType | None:
        if name is not None:
            check_pooling(name)
            return PoolingType[name.upper()]
        architecture = model.metadata.get("general.architecture", "")
        own = model.metadata.get(f"{architecture}.pooling_type")
        return None if own not in {None, "0"} else PoolingType.MEAN

    def embed(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the normalised embedding of one text, float32[n_embd_out].

        Raises:
            InvalidParameter: there are no tokens.
            ContextLengthExceeded: more tokens than one batch holds.
        """
        ids = self._model.vocab.as_array(tokens)
        if not len(ids):
            raise InvalidParameter("an empty text has no embedding", param="texts")
        if len(ids) > self._batch.capacity:
            limit = self._batch.capacity
            raise ContextLengthExceeded(
                len(ids),
                limit,
                param="texts",
                message=f"a text to embed has {len(ids)} tokens and must fit one batch of "
                f"{limit}: split it, or raise n_batch and n_ctx",
            )
        context = self._context
        self._batch.clear()
        self._batch.extend(ids, 0, outputs="all")
        if context.memory.exists:
            context.memory.clear()
            context.decode(self._batch, interruptible=True)
        else:
            context.encode(self._batch)
        pooled = context.pooling != PoolingType.NONE
        row = context.pooled_embedding(0) if pooled else context.embedding(-1)
        norm = float(np.linalg.norm(row))
        return row / norm if norm > 0 else row.copy()
