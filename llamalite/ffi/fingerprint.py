"""Picks a struct layout from what the library itself does, before anything is passed by value.

Two kinds of evidence, both taken from the `*_default_params` functions (see `capture`):

- values: a layout that is off by one field reads a default that can't be one (a pointer where a
  count belongs, 1 where −1 belongs);
- written bytes: size and holes show which bytes are fields.

The set of exported symbols bounds the build number and so rules out layouts of other times. What
remains must be one layout, or several whose every field lies in the largest of them.

Where written bytes can't be seen (no libffi on AArch64), values can't show a field at the struct's
end or in a hole: M1 to M4, M6 and M7, C1 and C2, C6 and C7, Q1 to Q4 look alike, and so would a
struct that a newer build has lengthened. So all builds that the symbols allow must have a known
layout, and among those that look alike the largest is taken: a library never reads the fields it
doesn't know. From b11219 on the symbols set no upper bound, and such a library is refused.

Imports the standard library, `llamalite.errors`, `capture` and `layouts`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence

from llamalite.errors import AbiMismatch
from llamalite.ffi.capture import Capture
from llamalite.ffi.layouts import (
    LATEST_KNOWN_BUILD,
    OLDEST_KNOWN_BUILD,
    SLACK_BYTES,
    Layout,
)

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

_RENAMED = {"tt_overrides": "tensor_types"}
_KNOWN = f"known are b{OLDEST_KNOWN_BUILD} to b{LATEST_KNOWN_BUILD}"


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
        forced: name of the layout to take; it must still pass, but builds of unknown layout are
            taken to be ruled out.

    Raises:
        AbiMismatch: none fits, those that fit contradict each other, the forced one doesn't, or
            the library may be of a build whose layout isn't known.
    """
    chosen = _largest_of_all(_candidates(registry, seen, builds))
    if forced is not None and (chosen is None or chosen.name != forced):
        found = chosen.name if chosen is not None else "no known layout"
        raise AbiMismatch(
            f"layout {forced} of {what} was asked for, but this library has {found}: "
            "nothing was called with it"
        )
    if chosen is None:
        raise AbiMismatch(_mismatch_message(what, registry, builds))
    if forced is None and seen.written is None and not _covers(registry, builds):
        raise AbiMismatch(_unseen_message(what, chosen, builds))
    return chosen


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


def _largest_of_all(candidates: Sequence[Layout]) -> Layout | None:
    """Return the layout that has every field of the others in its place, the oldest such one."""
    if not candidates:
        return None
    largest = max(candidates, key=lambda layout: len(layout.field_bytes))
    places = _places(largest)
    return largest if all(_places(other) <= places for other in candidates) else None


def _places(layout: Layout) -> set[tuple[str, str, int]]:
    return {
        (letter, _RENAMED.get(name, name), layout.offset(name)) for letter, name in layout.fields
    }


def _covers(registry: Sequence[Layout], builds: tuple[int, int]) -> bool:
    """Say whether each of the possible builds has its layout in the registry."""
    first, last = builds
    unknown = max(first, OLDEST_KNOWN_BUILD)
    for layout in registry:
        if layout.first_build <= unknown <= layout.last_build:
            unknown = layout.last_build + 1
    return first <= last < unknown


def _mismatch_message(what: str, registry: Sequence[Layout], builds: tuple[int, int]) -> str:
    names = ", ".join(layout.name for layout in registry)
    return (
        f"this libllama lays out {what} in a way llamalite doesn't know ({_possible(builds)}; "
        f"{_KNOWN}; tried {names}): nothing was called with it; fetch a tested build with "
        "'llamalite lib install'"
    )


def _unseen_message(what: str, chosen: Layout, builds: tuple[int, int]) -> str:
    return (
        f"whether this libllama lays out {what} as {chosen.name} can't be told without libffi "
        f"({_possible(builds)}; {_KNOWN}): install libffi, set LLAMALITE_LAYOUT={chosen.name} if "
        "you know that it does, or fetch a tested build with 'llamalite lib install'"
    )


def _possible(builds: tuple[int, int]) -> str:
    first, last = builds
    if first > last:
        return "its symbols are those of no upstream build"
    if last > LATEST_KNOWN_BUILD:
        return f"by its symbols it is build b{first} or newer"
    return f"by its symbols it is between b{first} and b{last}"


def read_defaults(layout: Layout, seen: Capture) -> ctypes.Structure:
    """Return the library's own defaults as a padded struct, ready to change and pass by value.

    Bytes that are no field of the layout are zero: what lies there may be garbage.
    """
    content = bytes(
        byte if i in layout.field_bytes else 0 for i, byte in enumerate(seen.content[: layout.size])
    )
    return layout.padded.from_buffer_copy(content.ljust(layout.size + SLACK_BYTES, b"\0"))
