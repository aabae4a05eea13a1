"""Struct layouts of libllama that changed over time, and the builds each belongs to.

A layout is written as C declares it: one type letter and a name per field, in order. The families
and ranges are facts about upstream's builds b5640 to b11739; a build number is the commit count of
upstream's history. Nothing here touches a library: `fingerprint` decides which layout applies.

Imports the standard library alone.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property

LATEST_KNOWN_BUILD = 11739
OLDEST_KNOWN_BUILD = 5640

_TYPES: dict[str, type[ctypes._SimpleCData]] = {  # type: ignore[type-arg]
    "p": ctypes.c_void_p,
    "i": ctypes.c_int32,
    "u": ctypes.c_uint32,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
    "z": ctypes.c_size_t,
    "b": ctypes.c_bool,
}

SLACK_BYTES = 128
"""Zeros passed after a struct's known fields, so that nothing beyond them is ever garbage."""


@dataclass(frozen=True)
class Layout:
    """One struct's field order in a range of builds.

    Attributes:
        name: short name such as "M8"; the letter is the struct, the number its generation.
        first_build: first upstream build that has it.
        last_build: last build known to have it.
        fields: (type letter, field name) in C's order.
    """

    name: str
    first_build: int
    last_build: int
    fields: tuple[tuple[str, str], ...]

    @cached_property
    def struct(self) -> type[ctypes.Structure]:
        """The ctypes Structure, exactly as large as C's."""
        members = [(name, _TYPES[letter]) for letter, name in self.fields]
        return type(f"{self.name}_exact", (ctypes.Structure,), {"_fields_": members})

    @cached_property
    def padded(self) -> type[ctypes.Structure]:
        """The same Structure with SLACK_BYTES behind it, for passing by value.

        ABI: a struct this large is passed in memory on every supported platform, and it is always
        the last argument, so the extra bytes are never read by a build that doesn't know them.
        """
        members = [(name, _TYPES[letter]) for letter, name in self.fields]
        slack = [("_slack", ctypes.c_uint8 * SLACK_BYTES)]
        return type(f"{self.name}_padded", (ctypes.Structure,), {"_fields_": members + slack})

    @cached_property
    def size(self) -> int:
        """Sizeof in C, in bytes."""
        return ctypes.sizeof(self.struct)

    def offset(self, field: str) -> int:
        """Return the byte offset of a field."""
        return int(getattr(self.struct, field).offset)

    def has(self, field: str) -> bool:
        """Say whether this generation of the struct has the field."""
        return any(name == field for _, name in self.fields)

    def kind_of(self, field: str) -> str:
        """Return a field's type letter."""
        return next(letter for letter, name in self.fields if name == field)

    @cached_property
    def field_bytes(self) -> frozenset[int]:
        """Offsets of all bytes that belong to a field; the rest are holes."""
        used: set[int] = set()
        for letter, name in self.fields:
            start = self.offset(name)
            used.update(range(start, start + ctypes.sizeof(_TYPES[letter])))
        return frozenset(used)


def _layout(name: str, first: int, last: int, *parts: str) -> Layout:
    words = " ".join(parts).split()
    return Layout(name, first, last, tuple(zip(words[::2], words[1::2], strict=True)))


_M_HEAD = "p devices p tensor_buft_overrides i n_gpu_layers i split_mode"
_M_TAIL = (
    "p tensor_split p progress_callback p progress_callback_user_data p kv_overrides b vocab_only"
)
_M1 = "b use_mmap b use_mlock b check_tensors"
_M5 = (
    "b use_mmap b use_direct_io b use_mlock b check_tensors b use_extra_bufts b no_host b no_alloc"
)
_M6 = "b check_tensors b use_extra_bufts b no_host b no_alloc"

MODEL_PARAMS = (
    _layout("M1", 5640, 6048, _M_HEAD, "i main_gpu", _M_TAIL, _M1),
    _layout("M2", 6049, 6699, _M_HEAD, "i main_gpu", _M_TAIL, _M1, "b use_extra_bufts"),
    _layout("M3", 6700, 7406, _M_HEAD, "i main_gpu", _M_TAIL, _M1, "b use_extra_bufts b no_host"),
    _layout(
        "M4", 7407, 7667,
        _M_HEAD, "i main_gpu", _M_TAIL, _M1, "b use_extra_bufts b no_host b no_alloc",
    ),
    _layout("M5", 7668, 10104, _M_HEAD, "i main_gpu", _M_TAIL, _M5),
    _layout("M6", 10105, 10211, _M_HEAD, "i load_mode i main_gpu", _M_TAIL, _M6),
    _layout("M7", 10212, 10661, _M_HEAD, "i load_mode i main_gpu", _M_TAIL, _M6, "b load_mtp"),
    _layout(
        "M8", 10645, LATEST_KNOWN_BUILD,
        _M_HEAD, "i load_mode i lazy_mode i main_gpu", _M_TAIL, _M6, "b load_mtp",
    ),
)  # fmt: skip
"""llama_model_params. M7 and M8 overlap: the change lies somewhere in b10645 to b10662."""

_C_HEAD = "u n_ctx u n_batch u n_ubatch u n_seq_max"
_C_THREADS = "i n_threads i n_threads_batch"
_C_ENUMS = "i rope_scaling_type i pooling_type i attention_type"
_C_FLASH = "i flash_attn_type"
_C_ROPE = (
    "f rope_freq_base f rope_freq_scale f yarn_ext_factor f yarn_attn_factor f yarn_beta_fast "
    "f yarn_beta_slow u yarn_orig_ctx f defrag_thold p cb_eval p cb_eval_user_data "
    "i type_k i type_v"
)
_C_ABORT = "p abort_callback p abort_callback_data b embeddings b offload_kqv"
_C_BOOLS = "b no_perf b op_offload b swa_full b kv_unified"
_C_SAMPLERS = "p samplers z n_samplers"
_C_BODY = f"{_C_ENUMS} {_C_FLASH} {_C_ROPE} {_C_ABORT} {_C_BOOLS} {_C_SAMPLERS}"

CONTEXT_PARAMS = (
    _layout(
        "C1", 5429, 5912,
        _C_HEAD, _C_THREADS, _C_ENUMS, _C_ROPE, _C_ABORT,
        "b flash_attn b no_perf b op_offload b swa_full",
    ),
    _layout(
        "C2", 5913, 6324,
        _C_HEAD, _C_THREADS, _C_ENUMS, _C_ROPE, _C_ABORT,
        "b flash_attn b no_perf b op_offload b swa_full b kv_unified",
    ),
    _layout(
        "C3", 6325, 7626, _C_HEAD, _C_THREADS, _C_ENUMS, _C_FLASH, _C_ROPE, _C_ABORT, _C_BOOLS
    ),
    _layout("C4", 7627, 9179, _C_HEAD, _C_THREADS, _C_BODY),
    _layout("C5", 9180, 9459, _C_HEAD, "u n_rs_seq", _C_THREADS, "i ctx_type", _C_BODY),
    _layout(
        "C6", 9460, 9548, _C_HEAD, "u n_rs_seq u n_outputs_max", _C_THREADS, "i ctx_type", _C_BODY
    ),
    _layout(
        "C7", 9549, 10354,
        _C_HEAD, "u n_rs_seq u n_outputs_max", _C_THREADS, "i ctx_type", _C_BODY, "p ctx_other",
    ),
    _layout(
        "C8", 10355, 11547,
        _C_HEAD, "u n_rs_seq u n_outputs_max u n_outputs_max_per_seq", _C_THREADS, "i ctx_type",
        _C_BODY, "p ctx_other",
    ),
    _layout(
        "C9", 11435, LATEST_KNOWN_BUILD,
        _C_HEAD, "u n_rs_seq u n_outputs_max u n_outputs_max_per_seq", _C_THREADS, "i ctx_type",
        _C_ENUMS, _C_FLASH, _C_ROPE, "z moe_cache_size", _C_ABORT, _C_BOOLS, _C_SAMPLERS,
        "p ctx_other",
    ),
)  # fmt: skip
"""llama_context_params. C8 and C9 overlap: the change lies somewhere in b11435 to b11548."""

_Q_HEAD = (
    "i nthread i ftype i output_tensor_type i token_embedding_type "
    "b allow_requantize b quantize_output_tensor b only_copy b pure b keep_split"
)
_Q_POINTERS = "p imatrix p kv_overrides p tensor_types"

QUANTIZE_PARAMS = (
    _layout("Q1", 5640, 5739, _Q_HEAD, _Q_POINTERS),
    _layout("Q2", 5740, 8115, _Q_HEAD, _Q_POINTERS, "p prune_layers"),
    _layout("Q3", 8116, 8607, _Q_HEAD, "b dry_run", _Q_POINTERS, "p prune_layers"),
    _layout(
        "Q4", 8608, 10661,
        _Q_HEAD, "b dry_run p imatrix p kv_overrides p tt_overrides p prune_layers",
    ),
    _layout(
        "Q5", 10645, LATEST_KNOWN_BUILD,
        _Q_HEAD, "b dry_run p imatrix p kv_overrides p tt_overrides p prune_layers z max_buf_size",
    ),
)  # fmt: skip
"""llama_model_quantize_params. Until Q3 its pointers mean C++ containers and must stay NULL."""

_S_HEAD = "p name p accept p apply p reset p clone p free"

SAMPLER_INTERFACE = (
    _layout("S1", 5640, 7626, _S_HEAD),
    _layout(
        "S2", 7627, 10354,
        _S_HEAD, "p backend_init p backend_accept p backend_apply p backend_set_input",
    ),
    _layout(
        "S3", 10355, LATEST_KNOWN_BUILD,
        _S_HEAD, "p backend_init p backend_accept p backend_apply p backend_set_input",
        "p backend_reset p copy_state",
    ),
)  # fmt: skip
"""llama_sampler_i: function pointers a custom sampler fills in; NULL where it has none."""

_P_HEAD = "d t_start_ms d t_load_ms d t_p_eval_ms d t_eval_ms i n_p_eval i n_eval"

PERF_CONTEXT = (
    _layout("P1", 5640, 5921, _P_HEAD),
    _layout("P2", 5922, 11738, _P_HEAD, "i n_reused"),
    _layout(
        "P3", 11549, LATEST_KNOWN_BUILD,
        _P_HEAD, "i n_reused i n_reallocs_same i n_reallocs_diff",
    ),
)  # fmt: skip
"""llama_perf_context_data, returned by value."""

_T_MARKERS = "p image_marker p media_marker"

MTMD_PARAMS = (
    _layout(
        "T1", 5458, 6925, "b use_gpu b print_timings i n_threads i verbosity", _T_MARKERS
    ),
    _layout(
        "T2", 6926, 6934, "b use_gpu b print_timings i n_threads i verbosity", _T_MARKERS,
        "i flash_attn_type",
    ),
    _layout(
        "T3", 6935, 7061, "b use_gpu b print_timings i n_threads i verbosity", _T_MARKERS,
        "i flash_attn_type i image_min_tokens i image_max_tokens",
    ),
    _layout(
        "T4", 7062, 7219, "b use_gpu b print_timings i n_threads", _T_MARKERS,
        "i flash_attn_type i image_min_tokens i image_max_tokens",
    ),
    _layout(
        "T5", 7220, 7737, "b use_gpu b print_timings i n_threads", _T_MARKERS,
        "i flash_attn_type b warmup i image_min_tokens i image_max_tokens",
    ),
    _layout(
        "T6", 7738, 9616, "b use_gpu b print_timings i n_threads", _T_MARKERS,
        "i flash_attn_type b warmup i image_min_tokens i image_max_tokens",
        "p cb_eval p cb_eval_user_data",
    ),
    _layout(
        "T7", 9617, 9748, "b use_gpu b print_timings i n_threads", _T_MARKERS,
        "i flash_attn_type b warmup i image_min_tokens i image_max_tokens",
        "p cb_eval p cb_eval_user_data i batch_max_tokens",
    ),
    _layout(
        "T8", 9749, 10540, "b use_gpu b print_timings i n_threads", _T_MARKERS,
        "i flash_attn_type b warmup i image_min_tokens i image_max_tokens",
        "p cb_eval p cb_eval_user_data i batch_max_tokens",
        "p progress_callback p progress_callback_user_data",
    ),
    _layout(
        "T9", 10541, LATEST_KNOWN_BUILD,
        "b use_gpu p device b print_timings i n_threads", _T_MARKERS,
        "i flash_attn_type b warmup i image_min_tokens i image_max_tokens",
        "p cb_eval p cb_eval_user_data i batch_max_tokens",
        "p progress_callback p progress_callback_user_data",
    ),
)  # fmt: skip
"""mtmd_context_params."""

MILESTONES: dict[str, int] = {
    "llama_vocab_get_add_sep": 5718,
    "llama_vocab_mask": 5912,
    "llama_model_is_diffusion": 6042,
    "llama_state_seq_get_size_ext": 6160,
    "llama_adapter_meta_count": 6309,
    "llama_flash_attn_type_name": 6325,
    "llama_adapter_get_alora_n_invocation_tokens": 6396,
    "llama_model_is_hybrid": 6685,
    "llama_n_ctx_seq": 6925,
    "llama_model_n_embd_inp": 6976,
    "llama_log_get": 7407,
    "llama_set_sampler": 7627,
    "llama_model_n_embd_out": 7639,
    "llama_sampler_init_adaptive_p": 7748,
    "llama_set_adapters_lora": 8049,
    "llama_model_init_from_user": 8238,
    "llama_model_load_from_file_ptr": 8517,
    "llama_n_rs_seq": 9180,
    "llama_model_n_layer_nextn": 9745,
    "llama_model_ftype": 9860,
    "llama_load_mode_name": 10105,
    "llama_vocab_get_suppress_tokens": 10182,
    "llama_sampler_copy": 10355,
    "llama_version": 10394,
    "llama_adapter_lora_init_from_file_ptr": 11011,
    "llama_batch_ext_init": 11161,
    "llama_get_causal_attn": 11219,
}
"""Exported symbol → first build that has it (the lower end where only a bracket is known)."""

_BRACKETS = {
    "llama_adapter_lora_init_from_file_ptr": 11026,
    "llama_batch_ext_init": 11173,
    "llama_get_causal_attn": 11223,
}
"""Last build that may still lack the symbol, where it is not exact."""


def build_range(exported: frozenset[str]) -> tuple[int, int]:
    """Bound the build number of a library from the milestone symbols it exports.

    Returns:
        (first, last) possible build; last is far in the future where every symbol is present.
        first > last means no upstream build has this set of symbols.
    """
    first, last = 0, 10**9
    for symbol, build in MILESTONES.items():
        if symbol in exported:
            first = max(first, build)
        else:
            last = min(last, _BRACKETS.get(symbol, build) - 1)
    return first, last
