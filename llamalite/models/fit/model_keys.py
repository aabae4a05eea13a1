"""A model's own keys (`llama.block_count` …), read so that nothing in a file can make it fail.

Owns what counts as a number there. Doesn't know what the keys mean. Imports the standard library,
`llamalite.errors` and `llamalite.gguf`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llamalite.errors import BadField
from llamalite.gguf.arrays import Array
from llamalite.gguf.reader import TensorInfo


class Header(Protocol):
    """The part of a GGUF file that this needs; `GGUFReader` is one."""

    @property
    def path(self) -> str:
        """Its name for error messages."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Keys and values; arrays as GGUFReader gives them."""
        ...

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """Names, shapes, types and sizes of all tensors."""
        ...


class Keys:
    """Numbers of the model's own keys (`llama.…`); what isn't a count reads as missing."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.metadata: Mapping[str, Any] = header.metadata
        name = self.metadata.get("general.architecture")
        if not isinstance(name, str) or not name:
            raise BadField(
                "general.architecture is missing: its memory can't be estimated", path=header.path
            )
        self.architecture = name

    def value(self, key: str) -> Any:
        """Return a value as it is, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def count(self, key: str, default: int) -> int:
        """Return a whole number from 0 on, else the default."""
        value = self.value(key)
        return value if _is_count(value) else default

    def required(self, key: str) -> int:
        """Return a whole number that no estimate can do without.

        Raises:
            BadField: it is missing.
        """
        value = self.value(key)
        if not _is_count(value):
            raise BadField(
                f"{self.architecture}.{key} is missing or no whole number: its memory can't be "
                "estimated",
                path=self.header.path,
            )
        return int(value)

    def per_layer(self, key: str, n_layer: int, default: int) -> list[int]:
        """Return one number a layer, from a list or from one for all."""
        value = self.value(key)
        if isinstance(value, Array):
            counts = [int(item) if _is_count(item) else 0 for item in value[:n_layer]]
            return counts + [0] * (n_layer - len(counts))
        return [value if _is_count(value) else default] * n_layer

    def flags(self, key: str, n_layer: int) -> list[bool] | None:
        """Return one flag a layer where the file lists them."""
        value = self.value(key)
        if not isinstance(value, Array):
            return None
        listed = [bool(item) for item in value[:n_layer]]
        return listed + [False] * (n_layer - len(listed))

    def n_vocab(self) -> int:
        """Return the number of tokens: rows of the embedding, else of the vocabulary."""
        for tensor in self.header.tensors:
            if tensor.name == "token_embd.weight" and len(tensor.shape) == 2:
                return tensor.shape[1]
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, Array) else self.count("vocab_size", 0)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
