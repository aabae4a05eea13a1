"""Values that libllama takes on trust and aborts the process for, refused while they are text.

Imports the standard library, `llamalite.errors` and its own package.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamalite.errors import BadField
from llamalite.gguf.constants import GGMLType

if TYPE_CHECKING:
    from llamalite.gguf.reader import GGUFReader

_MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS."""
_EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
_NO_WEIGHTS = frozenset(
    {GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64, GGMLType.F64}
)  # fmt: skip


def check_runnable(reader: GGUFReader) -> None:
    """Check a model before libllama loads it into this process.

    Raises:
        BadField: the number of layers, a norm's epsilon or a weight's type can't be computed with.
    """
    summary, metadata = reader.summary, reader.metadata
    layers = summary.n_layer
    if layers is not None and not 0 < layers <= _MAX_LAYERS:
        raise BadField(
            f"it claims {layers} layers, not 1 to {_MAX_LAYERS}: the file is damaged",
            path=reader.path,
        )
    for name in _EPSILONS:
        key = f"{summary.architecture}.{name}"
        value = metadata.get(key)
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise BadField(f"{key} is {value}: the file is damaged", path=reader.path)
    for tensor in reader.tensors:
        if tensor.type in _NO_WEIGHTS and tensor.name.endswith(".weight"):
            raise BadField(
                f"{tensor.name} has type {GGMLType(tensor.type).name}, which no weight has: the "
                "file is damaged",
                path=reader.path,
            )
