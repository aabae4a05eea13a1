"""How much memory a model takes, and what fits into the memory there is: from its header alone.

Owns where the bytes lie (RAM or a device) and the search for the largest context and number of
layers. Knows nothing of this machine: free memory is given in. Imports the standard library,
`llamalite.errors`, `llamalite.gguf` and its siblings `model_keys`, `model_shape`
and `cache_size`.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llamalite.errors import InvalidParameter
from llamalite.gguf.arrays import Array
from llamalite.models.fit.cache_size import ContextSettings, cache_bytes, compute_size
from llamalite.models.fit.model_keys import Header
from llamalite.models.fit.model_shape import ModelShape, shape_of

_LAYER = re.compile(r"(?:.*\.)?blk\.(\d{1,5})\.", re.DOTALL | re.ASCII)
_STEP = 256  # contexts grow by this many tokens
_MOST_TOKENS = 1 << 24  # where a file doesn't say for how many it was trained

# Measured on b11146: graphs, tables, stacks and pages of code; a vocabulary's hash tables.
_FIXED_BYTES = 4 << 20
_TOKEN_BYTES = 160
_MERGE_BYTES = 160


@dataclass(frozen=True)
class LayerBytes:
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
        weights_bytes: all tensors; an output that is shared with the embeddings counts twice where
            the output is on a device.
        cache_bytes: KV cache and recurrent state.
        compute_bytes: buffers of the computation: in RAM what is written to, on devices all.
        overhead_bytes: vocabulary, graphs, code.
        reserved_bytes: libllama's own "compute buffer size", were everything on one backend.
        host_bytes: the part that lies in RAM.
        device_bytes: the part on each device.
        input_bytes: weights of the embeddings, which always stay in RAM.
        output_bytes: weights of the output.
        layers: weights and cache of each block.
        is_approximate: this architecture's cache has a form that isn't modelled.
    """

    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    reserved_bytes: int
    host_bytes: int
    device_bytes: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    layers: tuple[LayerBytes, ...]
    is_approximate: bool

    @property
    def total_bytes(self) -> int:
        """All of it, wherever it lies."""
        return self.weights_bytes + self.cache_bytes + self.compute_bytes + self.overhead_bytes


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
    return _Model(header).estimate(_settings(n_ctx, settings), n_gpu_layers, split)


def largest_context(
    header: Header,
    free_bytes: int,
    *,
    device_free_bytes: Sequence[int] = (),
    n_gpu_layers: int = 0,
    **settings: Any,
) -> int:
    """Return the largest context that fits, in tokens, 0 if none does.

    It goes no further than the model was trained for, once for each sequence.

    Args:
        header: as in `estimate`.
        free_bytes: free RAM.
        device_free_bytes: free memory of each device, needed where layers go there.
        n_gpu_layers: as in `estimate`; without devices it does nothing.
        settings: as in `estimate`.

    Raises:
        BadField: the header doesn't tell a model's sizes.
        InvalidParameter: a setting is unknown or out of range.
    """
    model = _Model(header)
    n_gpu_layers = n_gpu_layers if device_free_bytes else 0
    if n_gpu_layers and max(device_free_bytes) <= 0:
        return 0
    n_seq_max = _settings(_STEP, settings).n_seq_max
    split = tuple(max(n_bytes, 0) for n_bytes in device_free_bytes) or (1,)

    def fits(steps: int) -> bool:
        wanted = _settings(steps * _STEP, settings)
        found = model.estimate(wanted, n_gpu_layers, split)
        return _fits(found, free_bytes, device_free_bytes)

    trained = model.shape.n_ctx_train * n_seq_max or _MOST_TOKENS
    return min(_largest(-(-trained // _STEP), fits) * _STEP, trained)


def largest_gpu_layers(
    header: Header,
    device_free_bytes: int | Sequence[int],
    n_ctx: int,
    *,
    free_bytes: int | None = None,
    **settings: Any,
) -> int:
    """Return the largest `n_gpu_layers` that fits; one more than the blocks is everything.

    Args:
        header: as in `estimate`.
        device_free_bytes: free memory of the device, or of each.
        n_ctx: tokens of all sequences together.
        free_bytes: free RAM, which the rest must fit; None = not looked at.
        settings: as in `estimate`.

    Raises:
        BadField: the header doesn't tell a model's sizes.
        InvalidParameter: a setting is unknown or out of range.
    """
    given = (device_free_bytes,) if isinstance(device_free_bytes, int) else device_free_bytes
    free = tuple(max(n_bytes, 0) for n_bytes in given)
    model, wanted = _Model(header), _settings(n_ctx, settings)
    if not any(free):
        return 0
    for n_gpu_layers in range(model.shape.n_blocks + 1, 0, -1):
        found = model.estimate(wanted, n_gpu_layers, free)
        if _fits(found, free_bytes, free):
            return n_gpu_layers
    return 0


def _settings(n_ctx: int, settings: dict[str, Any]) -> ContextSettings:
    for name in settings:
        if name not in ContextSettings.names() or name == "n_ctx":
            raise InvalidParameter(f"there is no context setting {name!r}", param=name)
    return ContextSettings(n_ctx, **settings)


def _fits(found: Estimate, free_bytes: int | None, device_free_bytes: Sequence[int]) -> bool:
    pairs = zip(found.device_bytes, device_free_bytes, strict=False)
    in_ram = free_bytes is None or found.host_bytes <= free_bytes
    return in_ram and all(needed <= free for needed, free in pairs)


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits, where smaller ones fit too; 0 if none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


class _Model:
    """What doesn't depend on the context: shape, weights by group, overhead."""

    def __init__(self, header: Header) -> None:
        self.shape: ModelShape = shape_of(header)
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

    def estimate(
        self, settings: ContextSettings, n_gpu_layers: int, split: Sequence[float]
    ) -> Estimate:
        shape = self.shape
        places = _places(shape.n_blocks, n_gpu_layers, split)
        caches = cache_bytes(shape, settings)
        caches += (0,) * (shape.n_blocks - len(caches))  # a draft head's blocks
        layers = tuple(map(LayerBytes, self.blocks, caches, places))
        output = self.output_bytes + (self.shared_bytes if places[-1] is not None else 0)
        parts = [*map(sum, zip(self.blocks, caches, strict=True)), output]
        host, devices = self.input_bytes, [0] * len(split)
        for place, n_bytes in zip(places, parts, strict=True):
            if place is None:
                host += n_bytes
            else:
                devices[place] += n_bytes
        compute = compute_size(shape, settings)
        used = sorted({place for place in places if place is not None})
        for place in used:
            devices[place] += compute.reserved_bytes
        in_ram = compute.used_bytes
        if None not in places:
            in_ram = compute.input_bytes + compute.logits_bytes
        return Estimate(
            weights_bytes=self.input_bytes + sum(self.blocks) + output,
            cache_bytes=sum(caches),
            compute_bytes=in_ram + compute.reserved_bytes * len(used),
            overhead_bytes=self.overhead_bytes,
            reserved_bytes=compute.reserved_bytes,
            host_bytes=host + in_ram + self.overhead_bytes,
            device_bytes=tuple(devices) if used else (),
            input_bytes=self.input_bytes,
            output_bytes=output,
            layers=layers,
            is_approximate=shape.is_approximate,
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
