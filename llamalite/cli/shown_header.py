"""What a GGUF file's header says, in rows for people.

Owns those rows. Imports `gguf`, `libs.transfer.wording` and the sibling `tables`.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamalite.cli.tables import count_text
from llamalite.gguf import GGUFReader, ModelSummary
from llamalite.libs.transfer.wording import size_text

Row = tuple[str, str | None]
"""A name, and a value; None or "" = nothing to show."""


def file_rows(reader: GGUFReader) -> Iterator[Row]:
    """Yield what the model is called, and its file."""
    summary = reader.summary
    yield "model", _model(summary)
    yield "file", _file(summary, reader)


def model_rows(reader: GGUFReader) -> Iterator[Row]:
    """Yield what the model is made of."""
    summary = reader.summary
    yield "parameters", count_text(summary.n_params)
    yield "quantization", _quantization(summary)
    yield "context", f"{summary.n_ctx_train} tokens" if summary.n_ctx_train else None
    yield "layers", _layers(summary)
    yield "experts", _pair(summary.n_expert, "in all", summary.n_expert_used, "used")
    yield "rope", _rope(summary)
    yield "tokenizer", _tokenizer(summary)
    yield "chat templates", _join(*summary.chat_templates, sep=", ") or "none"
    yield "license", summary.license
    yield "metadata", f"{len(reader.metadata)} keys"


def _model(summary: ModelSummary) -> str:
    kind = None if summary.type == "model" else summary.type
    return _join(summary.name, summary.architecture, kind, sep=", ")


def _file(summary: ModelSummary, reader: GGUFReader) -> str:
    parts = f"{len(reader.paths)} files" if len(reader.paths) > 1 else None
    order = "big endian" if summary.byteorder == "big" else None
    size = size_text(summary.n_bytes)
    return _join(reader.path, size, parts, f"GGUF version {summary.version}", order, sep=", ")


def _quantization(summary: ModelSummary) -> str:
    shares = [
        f"{share.n_tensors} {kind.name} ({size_text(share.n_bytes)})"
        for kind, share in summary.quantization.items()
    ]
    return _join(summary.file_type_name, " + ".join(shares), sep=": ")


def _layers(summary: ModelSummary) -> str:
    sizes = list(summary.layer_bytes.values())
    each = None
    if sizes:
        low, high = size_text(min(sizes)), size_text(max(sizes))
        each = f"{low if low == high else f'{low} to {high}'} each"
    return _join(
        None if summary.n_layer is None else str(summary.n_layer),
        each,
        f"{size_text(summary.other_bytes)} outside" if summary.other_bytes else None,
        _named("embedding", summary.n_embd),
        _named("heads", summary.n_head),
        _named("KV heads", summary.n_head_kv),
        _named("feed-forward", summary.n_ff),
        _named("sliding window", summary.sliding_window),
        sep=", ",
    )


def _rope(summary: ModelSummary) -> str:
    rope = summary.rope
    return _join(
        _named("dimensions", rope.dimension_count),
        _named("base", None if rope.freq_base is None else f"{rope.freq_base:g}"),
        _named("scaling", rope.scaling_type),
        _named("factor", None if rope.scaling_factor is None else f"{rope.scaling_factor:g}"),
        _named("original context", rope.n_ctx_original),
        sep=", ",
    )


def _tokenizer(summary: ModelSummary) -> str:
    tokenizer = summary.tokenizer
    n_vocab = summary.n_vocab or 0  # "none" is written as the largest number there is
    special = [f"{name} {i}" for name, i in tokenizer.special_ids.items() if i < n_vocab]
    return _join(
        _join(tokenizer.model, tokenizer.pre, sep="/"),
        None if summary.n_vocab is None else f"{summary.n_vocab} tokens",
        *special[:8],
        {True: "adds BOS", False: "adds no BOS", None: None}[tokenizer.add_bos],
        sep=", ",
    )


def _join(*parts: str | None, sep: str) -> str:
    return sep.join(part for part in parts if part)


def _named(name: str, value: object) -> str | None:
    if isinstance(value, tuple):
        low, high = min(value), max(value)
        value = low if low == high else f"{low} to {high}"
    return None if value is None else f"{name} {value}"


def _pair(first: int | None, name: str, second: int | None, other: str) -> str | None:
    if not first:
        return None
    return _join(f"{first} {name}", f"{second} {other}" if second else None, sep=", ")
