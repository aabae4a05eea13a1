"""What a GGUF file says about its model, typed: architecture, sizes, rope, tokenizer, templates.

Owns the meaning of the keys. A key that is missing, of the wrong type or out of range reads as
None (or is left out), never as an error: files that llama.cpp would refuse can still be looked at.
Imports the standard library and its own package.
Source: GGUF specification, "Standardized key-value pairs"; llama.cpp `llama_model_loader`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llamalite.errors import BadField
from llamalite.gguf.arrays import Array
from llamalite.gguf.constants import FILE_TYPES, GGMLType
from llamalite.gguf.split import Split, split_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llamalite.gguf.reader import GGUFReader, TensorInfo

PerLayer = int | tuple[int, ...]

_MAX_LAYERS = 65536
_MAX_TEMPLATES = 4096
_LAYER_NAME = re.compile(r"(?:.*\.)?blk\.(\d{1,5})\.", re.DOTALL | re.ASCII)
_NO_TOKEN = 2**31  # converters write -1 into an unsigned key
_TEMPLATE = "tokenizer.chat_template"


class TypeShare(NamedTuple):
    """What the tensors of one type amount to."""

    n_tensors: int
    n_bytes: int


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding; None where the file doesn't say."""

    dimension_count: int | None
    freq_base: float | None
    scaling_type: str | None
    scaling_factor: float | None
    n_ctx_original: int | None


@dataclass(frozen=True)
class Tokenizer:
    """The vocabulary's kind and special tokens; None where the file doesn't say.

    Attributes:
        model: "llama" (SentencePiece), "gpt2" (BPE), "bert", …
        pre: name of the text splitter in front of BPE.
        special_ids: name (bos, eos, eot, unknown, padding, …) → token id.
    """

    model: str | None
    pre: str | None
    n_vocab: int | None
    add_bos: bool | None
    add_eos: bool | None
    special_ids: Mapping[str, int]

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a text."""
        return self.special_ids.get("bos")

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text."""
        return self.special_ids.get("eos")


@dataclass(frozen=True)
class ModelSummary:
    """A model at a glance. None means that the file doesn't say, or says it in the wrong type.

    Attributes:
        type: `general.type`: "model", "adapter", "mmproj", "imatrix" …
        file_type: number of the quantization scheme; `file_type_name` is its usual name.
        n_params: elements of all tensors together.
        n_ctx_train: context length the model was trained for, in tokens.
        n_layer: number of blocks.
        n_head: attention heads, or a tuple with one number per layer; likewise `n_head_kv` and
            `n_ff` (width of the feed-forward layer).
        quantization: tensor type → how many tensors and bytes, the largest share first.
        layer_bytes: layer number → bytes of its tensors.
        other_bytes: bytes of the tensors outside the layers (embeddings, output, …).
        n_bytes: bytes of the file, all parts of a split model together.
        chat_templates: name → Jinja source; the unnamed one is "default".
        split: which part of a split model the file is, or None.
    """

    architecture: str | None
    name: str | None
    type: str | None
    size_label: str | None
    license: str | None
    file_type: int | None
    quantization_version: int | None
    n_params: int
    n_ctx_train: int | None
    n_vocab: int | None
    n_embd: int | None
    n_layer: int | None
    n_head: PerLayer | None
    n_head_kv: PerLayer | None
    n_ff: PerLayer | None
    n_expert: int | None
    n_expert_used: int | None
    sliding_window: int | None
    rope: Rope
    tokenizer: Tokenizer
    quantization: Mapping[GGMLType, TypeShare]
    layer_bytes: Mapping[int, int]
    other_bytes: int
    n_bytes: int
    n_tensors: int
    chat_templates: Mapping[str, str]
    split: Split | None
    version: int
    byteorder: str

    @property
    def file_type_name(self) -> str | None:
        """Usual name of the quantization scheme, such as "Q4_K_M"."""
        return None if self.file_type is None else FILE_TYPES.get(self.file_type)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return self.other_bytes + sum(self.layer_bytes.values())


def describe(reader: GGUFReader) -> ModelSummary:
    """Return what a file says about its model.

    The summary holds no reference to the file and outlives its reader.

    Raises:
        GGUFError: the reader was closed.
    """
    keys = _Keys(reader.metadata)
    arch = keys.text("general.architecture") or ""
    layer_bytes, other_bytes = _bytes_per_layer(reader.tensors)
    tokenizer = _tokenizer(keys)
    n_head = keys.per_layer(f"{arch}.attention.head_count")
    n_head_kv = keys.per_layer(f"{arch}.attention.head_count_kv")
    return ModelSummary(
        architecture=arch or None,
        name=keys.text("general.name"),
        type=keys.text("general.type"),
        size_label=keys.text("general.size_label"),
        license=keys.text("general.license"),
        file_type=keys.count("general.file_type"),
        quantization_version=keys.count("general.quantization_version"),
        n_params=sum(tensor.n_elements for tensor in reader.tensors),
        n_ctx_train=keys.count(f"{arch}.context_length"),
        n_vocab=tokenizer.n_vocab or keys.count(f"{arch}.vocab_size"),
        n_embd=keys.count(f"{arch}.embedding_length"),
        n_layer=keys.count(f"{arch}.block_count"),
        n_head=n_head,
        n_head_kv=n_head if n_head_kv is None else n_head_kv,
        n_ff=keys.per_layer(f"{arch}.feed_forward_length"),
        n_expert=keys.count(f"{arch}.expert_count"),
        n_expert_used=keys.count(f"{arch}.expert_used_count"),
        sliding_window=keys.count(f"{arch}.attention.sliding_window"),
        rope=_rope(keys, arch),
        tokenizer=tokenizer,
        quantization=_quantization(reader.tensors),
        layer_bytes=layer_bytes,
        other_bytes=other_bytes,
        n_bytes=reader.n_bytes,
        n_tensors=len(reader.tensors),
        chat_templates=_chat_templates(keys),
        split=_split(reader),
        version=reader.version,
        byteorder=reader.byteorder,
    )


class _Keys:
    """Metadata values of the wanted type, or None."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def count(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if _is_count(value) else None

    def number(self, key: str) -> float | None:
        value = self.metadata.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return None

    def flag(self, key: str) -> bool | None:
        value = self.metadata.get(key)
        return value if isinstance(value, bool) else None

    def per_layer(self, key: str) -> PerLayer | None:
        value = self.metadata.get(key)
        if isinstance(value, Array):
            counts = tuple(value) if len(value) <= _MAX_LAYERS else ()
            return counts if counts and all(map(_is_count, counts)) else None
        return value if _is_count(value) else None

    def length(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return len(value) if isinstance(value, Array) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _rope(keys: _Keys, arch: str) -> Rope:
    factor = keys.number(f"{arch}.rope.scaling.factor")
    if factor is None:
        factor = keys.number(f"{arch}.rope.scale_linear")  # the key's name before 2023-11
    return Rope(
        dimension_count=keys.count(f"{arch}.rope.dimension_count"),
        freq_base=keys.number(f"{arch}.rope.freq_base"),
        scaling_type=keys.text(f"{arch}.rope.scaling.type"),
        scaling_factor=factor,
        n_ctx_original=keys.count(f"{arch}.rope.scaling.original_context_length"),
    )


def _tokenizer(keys: _Keys) -> Tokenizer:
    prefix, suffix = "tokenizer.ggml.", "_token_id"
    special_ids = {}
    for key in keys.metadata:
        if key.startswith(prefix) and key.endswith(suffix):
            value = keys.count(key)
            if value is not None and value < _NO_TOKEN:
                special_ids[key[len(prefix) : -len(suffix)]] = value
    return Tokenizer(
        model=keys.text("tokenizer.ggml.model"),
        pre=keys.text("tokenizer.ggml.pre"),
        n_vocab=keys.length("tokenizer.ggml.tokens"),
        add_bos=keys.flag("tokenizer.ggml.add_bos_token"),
        add_eos=keys.flag("tokenizer.ggml.add_eos_token"),
        special_ids=special_ids,
    )


def _chat_templates(keys: _Keys) -> dict[str, str]:
    """Return the templates: the unnamed one, those listed, then those with a key of their own."""
    listed = keys.metadata.get("tokenizer.chat_templates")
    names: list[str] = []
    if isinstance(listed, Array) and len(listed) <= _MAX_TEMPLATES:
        names = [name for name in listed if isinstance(name, str)]
    prefix = _TEMPLATE + "."
    names += [key[len(prefix) :] for key in keys.metadata if key.startswith(prefix)]
    sources = {"default": keys.text(_TEMPLATE)}
    for name in names:
        if sources.get(name) is None:
            sources[name] = keys.text(prefix + name)
    return {name: source for name, source in sources.items() if source is not None}


def _quantization(tensors: Iterable[TensorInfo]) -> dict[GGMLType, TypeShare]:
    shares: dict[GGMLType, TypeShare] = {}
    for tensor in tensors:
        n_tensors, n_bytes = shares.get(tensor.type, (0, 0))
        shares[tensor.type] = TypeShare(n_tensors + 1, n_bytes + tensor.n_bytes)
    return dict(sorted(shares.items(), key=lambda item: -item[1].n_bytes))


def _bytes_per_layer(tensors: Iterable[TensorInfo]) -> tuple[dict[int, int], int]:
    layers: dict[int, int] = {}
    other = 0
    for tensor in tensors:
        match = _LAYER_NAME.match(tensor.name)
        if match:
            layer = int(match[1])
            layers[layer] = layers.get(layer, 0) + tensor.n_bytes
        else:
            other += tensor.n_bytes
    return dict(sorted(layers.items())), other


def _split(reader: GGUFReader) -> Split | None:
    try:
        return split_of(reader.metadata, reader.path)
    except BadField:
        return None
