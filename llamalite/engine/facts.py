"""What holds for an engine as long as it lives. Imports the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineFacts:
    """What was loaded, and how.

    Attributes:
        model: path of the model's file.
        description: libllama's one-line description of it.
        library: upstream's tag of the libllama in use.
        devices: names of the devices that compute.
        n_layer: layers of the model; n_gpu_layers of them (and the output) lie on devices.
        n_ctx: tokens of context that each sequence may have.
        n_ctx_train: tokens of context the model was trained with.
        n_parallel: sequences computed at once.
        n_slots: sequences whose cache is kept, the running ones among them.
        n_cells: cells of the cache, all slots together.
        kv_unified: whether all sequences share one pool of cells.
        flash_attn: whether flash attention was asked for; None = libllama decides.
        n_vocab: size of the vocabulary.
        n_embd_out: width of an embedding.
        n_batch: most tokens in one batch.
        n_threads: threads for decoding, at most; n_threads_batch for prefill.
        can_generate: False for models that only make embeddings.
        load_s: seconds from the beginning until it was ready.
    """

    model: str
    description: str
    library: str
    devices: tuple[str, ...]
    n_layer: int
    n_gpu_layers: int
    n_ctx: int
    n_ctx_train: int
    n_parallel: int
    n_slots: int
    n_cells: int
    kv_unified: bool
    flash_attn: bool | None
    n_vocab: int
    n_embd_out: int
    n_batch: int
    n_threads: int
    n_threads_batch: int
    can_generate: bool
    load_s: float
