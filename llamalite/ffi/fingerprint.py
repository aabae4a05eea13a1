"""Picks a struct layout from what the library itself does, before anything is passed by value.

Two kinds of evidence, both taken from the `*_default_params` functions:

- values: a layout that is off by one field reads a default that can't be one (a pointer where a
  count belongs, 1 where −1 belongs);
- written bytes: on x86-64 the function fills a buffer of ours, once poisoned with 0xAA and once
  with 0x55, so size and holes show which bytes are fields.

The set of exported symbols bounds the build number and so rules out layouts of other times. What
remains must be one layout, or several that agree on every offset they share.

Imports the standard library, `llamalite.errors` and `layouts`.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from llamalite.errors import AbiMismatch
from llamalite.ffi.layouts import (
    LATEST_KNOWN_BUILD,
    OLDEST_KNOWN_BUILD,
    SLACK_BYTES,
    Layout,
)

_BUFFER_BYTES = 512

# Defaults a field can have in any known build. A field not named here may hold anything.
# load_mode is left out: its default moved from 1 to -1 within one layout.
_NULL = {0}
_DEFAULTS: dict[str, Collection[float]] = {
    "devices": _NULL,
    "tensor_buft_overrides": _NULL,
    "n_gpu_layers": {0, 999, -1},
    "split_mode": {1},
    "main_gpu": {0},
    "tensor_split": _NULL,
    "progress_callback": _NULL,
    "progress_callback_user_data": _NULL,
    "kv_overrides": _NULL,
    "vocab_only": {0},
    "use_mmap": {1},
    "use_direct_io": {0, 1},
    "use_mlock": {0},
    "check_tensors": {0},
    "use_extra_bufts": {1},
    "no_host": {0},
    "no_alloc": {0},
    "load_mode": {-1, 0, 1, 2, 3, 4},
    "lazy_mode": {1},
    "load_mtp": {0, 1},
    "n_ctx": {512},
    "n_batch": {2048},
    "n_ubatch": {512},
    "n_seq_max": {1},
    "n_rs_seq": {0},
    "n_outputs_max": {0},
    "n_outputs_max_per_seq": {1},
    "n_threads": {4},
    "n_threads_batch": {4},
    "ctx_type": {0},
    "rope_scaling_type": {-1},
    "pooling_type": {-1},
    "attention_type": {-1},
    "flash_attn_type": {-1},
    "flash_attn": {0},
    "rope_freq_base": {0.0},
    "rope_freq_scale": {0.0},
    "yarn_ext_factor": {-1.0},
    "yarn_attn_factor": {1.0, -1.0},
    "yarn_beta_fast": {32.0, -1.0},
    "yarn_beta_slow": {1.0, -1.0},
    "yarn_orig_ctx": {0},
    "defrag_thold": {-1.0, 0.0},
    "cb_eval": _NULL,
    "cb_eval_user_data": _NULL,
    "type_k": {1},
    "type_v": {1},
    "abort_callback": _NULL,
    "abort_callback_data": _NULL,
    "embeddings": {0},
    "offload_kqv": {1},
    "no_perf": {1},
    "op_offload": {1},
    "swa_full": {1},
    "kv_unified": {0},
    "samplers": _NULL,
    "n_samplers": {0},
    "ctx_other": _NULL,
    "moe_cache_size": {0},
    "nthread": {0},
    "output_tensor_type": set(range(39, 64)),
    "token_embedding_type": set(range(39, 64)),
    "allow_requantize": {0},
    "quantize_output_tensor": {1},
    "only_copy": {0},
    "pure": {0},
    "keep_split": {0},
    "dry_run": {0},
    "imatrix": _NULL,
    "tensor_types": _NULL,
    "tt_overrides": _NULL,
    "prune_layers": _NULL,
    "max_buf_size": {8 << 30},
}


@dataclass(frozen=True)
class Capture:
    """What a `*_default_params` function returned.

    Attributes:
        content: the returned bytes, at least as many as the struct has.
        written: offsets of bytes the function wrote, or None where that can't be seen.
    """

    content: bytes
    written: frozenset[int] | None


def can_see_writes() -> bool:
    """Say whether a returned struct's address is an ordinary first argument here.

    ABI: true on x86-64 (System V and Windows). On AArch64 it travels in x8, out of ctypes' reach.
    """
    return platform.machine().lower() in {"x86_64", "amd64"} and ctypes.sizeof(ctypes.c_void_p) == 8


def capture(function: Callable[..., object]) -> Capture:
    """Call a `*_default_params` function and record its bytes.

    Args:
        function: a ctypes function object of its own (its prototype is set here).
    """
    if not can_see_writes():
        return Capture(_call_by_value(function), None)
    first, second = (_call_into(function, poison) for poison in (0xAA, 0x55))
    written = frozenset(i for i in range(_BUFFER_BYTES) if first[i] == second[i])
    return Capture(bytes(first), written)


def _call_into(function: Callable[..., object], poison: int) -> bytes:
    buffer = (ctypes.c_uint8 * _BUFFER_BYTES)(*([poison] * _BUFFER_BYTES))
    function.restype = ctypes.c_void_p  # type: ignore[attr-defined]
    function.argtypes = [ctypes.c_void_p]  # type: ignore[attr-defined]
    function(ctypes.addressof(buffer))
    return bytes(buffer)


def _call_by_value(function: Callable[..., object]) -> bytes:
    class Opaque(ctypes.Structure):
        _fields_ = [("content", ctypes.c_uint8 * _BUFFER_BYTES)]

    function.restype = Opaque  # type: ignore[attr-defined]
    function.argtypes = []  # type: ignore[attr-defined]
    returned = function()
    assert isinstance(returned, Opaque)
    return bytes(returned.content)


def values_fit(layout: Layout, content: bytes) -> bool:
    """Say whether every field, read through this layout, holds a default it can have."""
    struct = layout.struct.from_buffer_copy(content)
    for letter, name in layout.fields:
        value = getattr(struct, name)
        if letter == "b":
            value = content[layout.offset(name)]  # a bool that is neither 0 nor 1 must not pass
        allowed = _DEFAULTS.get(name)
        if allowed is not None and (value or 0) not in allowed:
            return False
    return True


def unexplained_bytes(layout: Layout, seen: Capture) -> int | None:
    """Count written bytes that are no field of the layout; None when they rule it out.

    Some compilers clear holes, so zeros there are possible and fewer are better. A field that was
    not written, a hole that holds something, or a byte past the end is a contradiction.
    """
    if seen.written is None:
        return 0
    extra = seen.written - layout.field_bytes
    if not layout.field_bytes <= seen.written or max(seen.written) >= layout.size:
        return None
    return None if any(seen.content[i] for i in extra) else len(extra)


def choose(
    what: str,
    registry: Sequence[Layout],
    seen: Capture,
    builds: tuple[int, int],
    *,
    forced: str | None = None,
) -> Layout:
    """Return the one layout that all the evidence allows.

    Args:
        what: C name of the struct, for messages.
        registry: known layouts, oldest first.
        seen: what the defaults function did.
        builds: first and last possible build number (`layouts.build_range`).
        forced: name of the layout to take; it must still pass.

    Raises:
        AbiMismatch: none fits, those that fit contradict each other, or the forced one doesn't.
    """
    ranked = _candidates(registry, seen, builds)
    if forced is not None:
        if not ranked or ranked[0].name != forced:
            found = ranked[0].name if ranked else "no known layout"
            raise AbiMismatch(
                f"layout {forced} of {what} was asked for, but this library has {found}: "
                "nothing was called with it"
            )
        return ranked[0]
    if not ranked or not _agree(ranked):
        raise AbiMismatch(_mismatch_message(what, registry, builds))
    return ranked[0]


def _candidates(registry: Sequence[Layout], seen: Capture, builds: tuple[int, int]) -> list[Layout]:
    first, last = builds if builds[0] <= builds[1] else (0, 10**9)
    fitting: list[tuple[int, Layout]] = []
    for layout in registry:
        newest = 10**9 if layout.last_build >= LATEST_KNOWN_BUILD else layout.last_build
        if layout.first_build > last or newest < first or not values_fit(layout, seen.content):
            continue
        extra = unexplained_bytes(layout, seen)
        if extra is not None:
            fitting.append((extra, layout))
    best = min((extra for extra, _ in fitting), default=0)
    return [layout for extra, layout in fitting if extra == best]


def _agree(candidates: Sequence[Layout]) -> bool:
    # The oldest of several is the safe one if every field of it lies where the others have one.
    def places(layout: Layout) -> set[tuple[str, int]]:
        return {(letter, layout.offset(name)) for letter, name in layout.fields}

    oldest = places(candidates[0])
    return all(oldest <= places(other) for other in candidates[1:])


def _mismatch_message(what: str, registry: Sequence[Layout], builds: tuple[int, int]) -> str:
    first, last = builds
    if first > last:
        build = "its symbols are those of no upstream build"
    elif last > LATEST_KNOWN_BUILD:
        build = f"by its symbols it is build b{first} or newer"
    else:
        build = f"by its symbols it is between b{first} and b{last}"
    known = f"known are b{OLDEST_KNOWN_BUILD} to b{LATEST_KNOWN_BUILD}"
    names = ", ".join(layout.name for layout in registry)
    return (
        f"this libllama lays out {what} in a way llamalite doesn't know ({build}; {known}; tried "
        f"{names}): nothing was called with it; fetch a tested build with 'llamalite lib install'"
    )


def read_defaults(layout: Layout, seen: Capture) -> ctypes.Structure:
    """Return the library's own defaults as a padded struct, ready to change and pass by value.

    Bytes after the known fields are kept as the library wrote them, so that fields appended by
    newer builds keep their defaults; bytes it did not write are zero.
    """
    size = layout.size + SLACK_BYTES
    if seen.written is None:
        content = seen.content[:size]
    else:
        content = bytes(b if i in seen.written else 0 for i, b in enumerate(seen.content[:size]))
    return layout.padded.from_buffer_copy(content.ljust(size, b"\0"))
