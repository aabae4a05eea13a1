"""How much memory a model takes, and where its bytes lie: from its header alone.

Owns what lies in RAM and what on a device. Knows nothing of this machine. Imports the standard
library, `llamalite.errors`, `llamalite.gguf` and its siblings `model_keys`, `model_shape` and
`cache_size`.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llamalite.errors import InvalidParameter
from llamalite.gguf.arrays import Array
from llamalite.models.fit.cache_size import ContextSettings, cache_bytes, compute_size
from llamalite.models.fit.model_keys import Header
from llamalite.models.fit.model_shape import ModelShape, shape_of

_LAYER = re.compile(r"(?:.*\.)?blk\.(\d{1,5})\.", re.DOTALL | re.ASCII)

# Measured on b11146: graphs, tables, stacks and pages of code; a vocabulary's hash tables.
_FIXED_BYTES = 4 << 20
_TOKEN_BYTES = 160
_MERGE_BYTES = 160


class Share(NamedTuple):
    """What lies in one place: RAM, or a device.

    Attributes:
        weights_bytes: tensors.
        cache_bytes: KV cache and recurrent state.
        compute_bytes: buffers of the computation: in RAM what is written to, on devices all.
        overhead_bytes: vocabulary, graphs, code.
        projector_bytes: what reads images for the model.
    """

    weights_bytes: int = 0
    cache_bytes: int = 0
    compute_bytes: int = 0
    overhead_bytes: int = 0
    projector_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(self)


class LayerBytes(NamedTuple):
    """What one block takes; `device` is its index among those given, None = RAM."""

    weights_bytes: int
    cache_bytes: int
    device: int | None


@dataclass(frozen=True)
class Estimate:
    """What a model and one context take.

    The weights count once. A CPU backend that repacks some types (Q4_0, Q4_K, IQ4_NL … depending
    on the processor) copies them, and the file's own pages stay resident until the system wants
    them back: then the process looks larger than this by the size of the copy.

    Attributes:
        host: what lies in RAM.
        devices: what lies on each device; empty where no layer does.
        reserved_bytes: libllama's own "compute buffer size", were everything on one backend.
        input_bytes: weights of the embeddings, which always stay in RAM.
        output_bytes: weights of the output; shared ones count twice where it is on a device.
        layers: weights and cache of each block.
        is_approximate: this architecture's cache has a form that isn't modelled.
    """

    host: Share
    devices: tuple[Share, ...]
    reserved_bytes: int
    input_bytes: int
    output_bytes: int
    layers: tuple[LayerBytes, ...]
    is_approximate: bool

    @property
    def total(self) -> Share:
        """All of it, wherever it lies."""
        shares = (self.host, *self.devices)
        return Share(*map(sum, zip(*shares, strict=True)))


def estimate(
    header: Header,
    n_ctx: int,
    *,
    n_gpu_layers: int = 0,
    split: Sequence[float] = (1,),
    **settings: Any,
) -> Estimate:
    """Return what a model takes with a context of that many tokens.

    Args:
        header: a GGUFReader, or whatever has its `path`, `metadata` and `tensors`.
        n_ctx: tokens of all sequences together.
        n_gpu_layers: layers on devices, counted from the end, the output among them; -1 = all.
        split: shares of those layers for each device, such as their free memory.
        settings: the other fields of ContextSettings: type_k, type_v, n_seq_max, n_ubatch, …

    Raises:
        BadField: the header doesn't tell a model's sizes.
        InvalidParameter: a setting is unknown or out of range.
    """
    for name in settings:
        if name not in ContextSettings.names():
            raise InvalidParameter(f"there is no context setting {name!r}", param=name)
    wanted = ContextSettings(n_ctx, **settings)
    return ModelBytes(header).with_context(wanted).placed(n_gpu_layers, split)


class ModelBytes:
    """A model's weights by group, which don't depend on the context.

    Args:
        header: as in `estimate`.
        projector_bytes: of the file that reads images for it; 0 = there is none.

    Attributes:
        shape: its sizes.
        blocks: bytes of each block's weights.
        shared_bytes: of the embeddings where they are the output too, else 0.

    Raises:
        BadField: the header doesn't tell a model's sizes.
    """

    def __init__(self, header: Header, projector_bytes: int = 0) -> None:
        self.shape: ModelShape = shape_of(header)
        self.projector_bytes = projector_bytes
        self.blocks = [0] * self.shape.n_blocks
        self.input_bytes = self.output_bytes = self.shared_bytes = 0
        names = set()
        for tensor in header.tensors:
            names.add(tensor.name)
            match = _LAYER.match(tensor.name)
            if match:
                self.blocks[min(int(match[1]), len(self.blocks) - 1)] += tensor.n_bytes
            elif tensor.name.startswith(("output", "cls", "dense_", "dec.output")):
                self.output_bytes += tensor.n_bytes
            else:
                self.input_bytes += tensor.n_bytes
            if tensor.name == "token_embd.weight":
                self.shared_bytes = tensor.n_bytes
        if "output.weight" in names:
            self.shared_bytes = 0
        self.overhead_bytes = _overhead_bytes(header)

    @property
    def n_layers(self) -> int:
        """Most layers that can lie on devices: the blocks and the output."""
        return len(self.blocks) + 1

    def with_context(self, settings: ContextSettings) -> ContextBytes:
        """Return what the model takes with a context, before it is said what lies where."""
        return ContextBytes(self, settings)


class ContextBytes:
    """A model's weights with a context's cache and buffers."""

    def __init__(self, model: ModelBytes, settings: ContextSettings) -> None:
        self._model = model
        caches = cache_bytes(model.shape, settings)
        self._caches = caches + (0,) * (len(model.blocks) - len(caches))  # a draft head's blocks
        self._compute = compute_size(model.shape, settings)

    def placed(self, n_gpu_layers: int, split: Sequence[float] = (1,)) -> Estimate:
        """Return the estimate with that many layers on devices, as in `estimate`."""
        model, compute = self._model, self._compute
        places = _places(len(model.blocks), n_gpu_layers, split)
        is_out = places[-1] is not None
        output = model.output_bytes + (model.shared_bytes if is_out else 0)
        weights: dict[int | None, int] = {None: model.input_bytes}
        caches: dict[int | None, int] = {}
        for place, n_bytes in zip(places, [*model.blocks, output], strict=True):
            weights[place] = weights.get(place, 0) + n_bytes
        for place, n_bytes in zip(places[:-1], self._caches, strict=True):
            caches[place] = caches.get(place, 0) + n_bytes
        in_ram = compute.used_bytes
        if None not in places:
            in_ram = compute.input_bytes + compute.logits_bytes
        devices = [
            Share(weights[i], caches.get(i, 0), compute.reserved_bytes) if i in weights else Share()
            for i in range(len(split))
        ]
        host = Share(weights[None], caches.get(None, 0), in_ram, model.overhead_bytes)
        if is_out:  # with the first layers that are on a device, or with all of them in RAM
            first = min(place for place in places if place is not None)
            devices[first] = devices[first]._replace(projector_bytes=model.projector_bytes)
        else:
            host = host._replace(projector_bytes=model.projector_bytes)
        return Estimate(
            host=host,
            devices=tuple(devices) if is_out else (),
            reserved_bytes=compute.reserved_bytes,
            input_bytes=model.input_bytes,
            output_bytes=output,
            layers=tuple(map(LayerBytes, model.blocks, self._caches, places)),
            is_approximate=model.shape.is_approximate,
        )


def _places(n_blocks: int, n_gpu_layers: int, split: Sequence[float]) -> list[int | None]:
    """Return where each block lies, and last the output: a device's index, or None for RAM.

    Source: llama.cpp `llama_model::load_tensors` (get_layer_buft_list).
    """
    n_all = n_blocks + 1
    n_there = n_all if n_gpu_layers < 0 else min(n_gpu_layers, n_all)
    if not n_there:
        return [None] * n_all
    total = sum(split)
    if not split or total <= 0 or min(split) < 0:
        raise InvalidParameter(f"split is {tuple(split)!r}, no shares above 0", param="split")
    bounds: list[float] = []
    for share in split:
        bounds.append((bounds[-1] if bounds else 0) + share / total)
    last = len(split) - 1
    there = [min(bisect.bisect_right(bounds, i / n_there), last) for i in range(n_there)]
    return [None] * (n_all - n_there) + there


def _overhead_bytes(header: Header) -> int:
    counts = []
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
        value = header.metadata.get(key)
        counts.append(len(value) if isinstance(value, Array) else 0)
    return _FIXED_BYTES + _TOKEN_BYTES * counts[0] + _MERGE_BYTES * counts[1]
