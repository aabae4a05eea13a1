"""Embeddings: a context of its own that computes many texts in one batch and pools each.

Imports numpy, `core`, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.errors import ContextLengthExceeded, InvalidParameter, LlamaliteError
from llamalite.ffi.structs import PoolingType

if TYPE_CHECKING:
    from llamalite.core.model import Model
    from llamalite.engine.handle import Sink
    from llamalite.engine.loading import Loaded
    from llamalite.engine.request import EmbeddingRequest, Tokens

_POOLINGS = ("none", "mean", "cls", "last")
_MOST_TEXTS = 64  # in one batch


def check_pooling(name: str | None) -> None:
    """Raise InvalidParameter unless it is None or the name of a pooling."""
    if name is not None and name not in _POOLINGS:
        known = ", ".join(_POOLINGS)
        raise InvalidParameter(f"pooling {name!r} is none of {known}", param="pooling")


class EmbeddingJob:
    """A request for embeddings on its way.

    Args:
        id: number of the request.
        request: what to embed.
        sink: takes the result.
        loaded: the model.

    Attributes:
        is_told: whether its end has been delivered.

    Raises:
        InvalidParameter: a text is empty, a token isn't in the vocabulary, or there is no such
            pooling.
        ContextLengthExceeded: a text is longer than one batch.
    """

    def __init__(self, id: int, request: EmbeddingRequest, sink: Sink, loaded: Loaded) -> None:
        check_pooling(request.pooling)
        self.id, self.request, self.sink = id, request, sink
        capacity = batch_size(loaded)
        self.texts = [_checked(loaded.model, tokens, capacity) for tokens in request.prompts]
        self.rows: list[npt.NDArray[np.float32]] = []
        self.is_told = False
        self._n_embd_out = loaded.model.n_embd_out
        self._error: LlamaliteError | None = None

    def fail(self, error: LlamaliteError) -> None:
        """End it with an error."""
        self._error = error

    @property
    def done(self) -> bool:
        """Say whether it has ended."""
        return self._error is not None or len(self.rows) == len(self.texts)

    def outcome(self) -> npt.NDArray[np.float32] | LlamaliteError:
        """Return float32[n_texts, n_embd_out], or the error that ended it."""
        if self._error is not None:
            return self._error
        return np.stack(self.rows) if self.rows else np.empty((0, self._n_embd_out), np.float32)


def batch_size(loaded: Loaded) -> int:
    """Return the most tokens that a text to embed may have."""
    return min(loaded.params["n_batch"], loaded.n_ctx)


def _checked(model: Model, tokens: Tokens, capacity: int) -> npt.NDArray[np.int32]:
    ids = model.vocab.as_array(tokens)
    if not len(ids):
        raise InvalidParameter("an empty text has no embedding", param="texts")
    if len(ids) > capacity:
        raise ContextLengthExceeded(
            len(ids),
            capacity,
            param="texts",
            message=f"a text to embed has {len(ids)} tokens and must fit one batch of "
            f"{capacity}: split it, or raise n_batch and n_ctx",
        )
    return ids


class Embedder:
    """Makes embeddings with a model; one thread at a time.

    Args:
        loaded: any model, made for embeddings or not.
        pooling: "none" takes the last token's row; None = as the model says, else mean.
    """

    def __init__(self, loaded: Loaded, pooling: str | None) -> None:
        # A pooled sequence must be computed in one ubatch.
        size = batch_size(loaded)
        params: dict[str, Any] = {
            **loaded.params, "n_ctx": size, "n_batch": size, "n_ubatch": size, "embeddings": True,
            "n_seq_max": min(_MOST_TEXTS, size),
        }  # fmt: skip
        if loaded.library.context_layout.has("kv_unified"):
            params["kv_unified"] = True
        model = loaded.model
        wanted = _pooling(model, pooling)
        if wanted is not None:
            params["pooling_type"] = int(wanted)
        self._context = Context(model, **params)
        self._context.set_loras(loaded.adapters)
        self._batch = Batch(size, model.vocab.n_tokens, self._context.n_seq_max)

    def advance(
        self, jobs: Sequence[EmbeddingJob], is_in_time: Callable[[int], bool] | None = None
    ) -> int:
        """Compute as many of the jobs' next texts as one batch holds; return their tokens.

        Args:
            jobs: whose texts, first ones first.
            is_in_time: says whether so many tokens take no longer than they may; the first text is
                computed anyway. None = they always do.
        """
        batch, context = self._batch, self._context
        batch.clear()
        taken: list[tuple[EmbeddingJob, int]] = []  # and the row of its last token
        for job in jobs:
            for ids in job.texts[len(job.rows) :]:
                n_tokens = batch.n_tokens + len(ids)
                fits = n_tokens <= batch.capacity
                if taken and is_in_time is not None:
                    fits = fits and is_in_time(n_tokens)
                if not fits or len(taken) == context.n_seq_max:
                    break
                batch.extend(ids, 0, len(taken), outputs="all")
                taken.append((job, batch.n_tokens - 1))
            else:
                continue
            break
        if not taken:
            return 0
        if context.memory.exists:
            context.memory.clear()
            context.decode(batch)
        else:
            context.encode(batch)
        pooled = context.pooling != PoolingType.NONE
        for seq_id, (job, last) in enumerate(taken):
            row = context.pooled_embedding(seq_id) if pooled else context.embedding(last)
            norm = float(np.linalg.norm(row))
            job.rows.append(row / norm if norm > 0 else row.copy())
        return batch.n_tokens


def _pooling(model: Model, name: str | None) -> PoolingType | None:
    if name is not None:
        return PoolingType[name.upper()]
    architecture = model.metadata.get("general.architecture", "")
    own = model.metadata.get(f"{architecture}.pooling_type")
    return None if own not in {None, "0"} else PoolingType.MEAN
