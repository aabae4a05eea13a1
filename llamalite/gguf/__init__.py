"""GGUF files in pure Python: reader, typed view, writer.

Knows nothing of libllama. Imports the standard library and `llamalite.errors`; importing it loads
no numpy.
"""

from __future__ import annotations

from llamalite.gguf.arrays import Array
from llamalite.gguf.constants import GGMLType, ValueType, tensor_n_bytes
from llamalite.gguf.encode import Typed
from llamalite.gguf.reader import GGUFReader, Metadata, TensorInfo
from llamalite.gguf.split import Split
from llamalite.gguf.view import ModelSummary, Rope, Tokenizer, TypeShare, describe
from llamalite.gguf.writer import GGUFWriter, edit_metadata

__all__ = [
    "Array",
    "GGMLType",
    "GGUFReader",
    "GGUFWriter",
    "Metadata",
    "ModelSummary",
    "Rope",
    "Split",
    "TensorInfo",
    "Tokenizer",
    "TypeShare",
    "Typed",
    "ValueType",
    "describe",
    "edit_metadata",
    "tensor_n_bytes",
]
