"""What a GGUF file says about itself, under opencode's names.

May import `gguf` and `config.fields`.
"""

# ruff: noqa: RUF009 # what makes a field is called to make it
from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

from llamalite.config.fields import MAX_INT32, number, text, whole
from llamalite.gguf import GGUFReader
from llamalite.opencode.view import View, member

_MAX_BYTES = 2**63 - 1


class QuantizationType(str, Enum):
    """Quantization schemes that opencode has names for."""

    Q2_K = "q2_k"
    Q3_K_S = "q3_k_s"
    Q3_K_M = "q3_k_m"
    Q3_K_L = "q3_k_l"
    Q4_0 = "q4_0"
    Q4_1 = "q4_1"
    Q4_K_S = "q4_k_s"
    Q4_K_M = "q4_k_m"
    Q4_K_L = "q4_k_l"
    Q5_0 = "q5_0"
    Q5_1 = "q5_1"
    Q5_K_S = "q5_k_s"
    Q5_K_M = "q5_k_m"
    Q6_K = "q6_k"
    Q8_0 = "q8_0"
    F16 = "f16"
    F32 = "f32"


def _count(doc: str, high: int = MAX_INT32) -> Any:
    return whole(None, 0, high, doc)


@dataclass
class GGUFMetadata(View):
    """A model's header; None = the file doesn't say, or it has no name here.

    Of what differs from layer to layer it is the largest.
    """

    architecture: str | None = text(None, "such as llama", may_be_empty=True)
    model_type: str | None = text(None, "model, adapter, mmproj …", may_be_empty=True)
    quantization_version: int | None = _count("of the block formats")
    tokenizer: str | None = text(None, "such as gpt2", may_be_empty=True)
    tokenizer_probs: str | None = text(None, "no file says this", may_be_empty=True)
    vocab_size: int | None = _count("tokens")
    context_size: int | None = _count("tokens it was trained for", _MAX_BYTES)
    embedding_size: int | None = _count("width of a token's vector", _MAX_BYTES)
    attention_head_count: int | None = _count("heads", _MAX_BYTES)
    attention_head_count_kv: int | None = _count("heads of keys and values", _MAX_BYTES)
    attention_layer_norm_rms_epsilon: float | None = number(None, -1e38, 1e38, "epsilon")
    feed_forward_dim: int | None = _count("width", _MAX_BYTES)
    file_size: int | None = _count("bytes, of all parts", _MAX_BYTES)
    quantization_type: QuantizationType | None = member(QuantizationType, None)

    @classmethod
    def from_gguf_file(cls, path: str | os.PathLike[str]) -> GGUFMetadata:
        """Read a file's header.

        Args:
            path: of a split model, any part.

        Raises:
            GGUFError: it is no GGUF file, or a damaged one.
        """
        with GGUFReader(path) as reader:
            summary = reader.summary
            epsilon = reader.metadata.get(
                f"{summary.architecture}.attention.layer_norm_rms_epsilon"
            )
        scheme = (summary.file_type_name or "").lower()
        return cls(
            architecture=summary.architecture,
            model_type=summary.type,
            quantization_version=summary.quantization_version,
            tokenizer=summary.tokenizer.model,
            vocab_size=summary.n_vocab,
            context_size=summary.n_ctx_train,
            embedding_size=summary.n_embd,
            attention_head_count=_largest(summary.n_head),
            attention_head_count_kv=_largest(summary.n_head_kv),
            attention_layer_norm_rms_epsilon=epsilon if isinstance(epsilon, float) else None,
            feed_forward_dim=_largest(summary.n_ff),
            file_size=summary.n_bytes,
            quantization_type=next((kind for kind in QuantizationType if kind == scheme), None),
        )

    def get_model_info(self) -> dict[str, Any]:
        """Return what is known, as a dict."""
        return self.model_dump(exclude_none=True)


def _largest(per_layer: int | tuple[int, ...] | None) -> int | None:
    return max(per_layer) if isinstance(per_layer, tuple) else per_layer
