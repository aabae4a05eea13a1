"""Every native function llamalite can call: result and argument types, by name.

A type letter is one C type; `LAYOUTS` are structs whose shape the fingerprint decides. Functions
that changed their arguments over time have their newest form here and their older one under
`OLD_FORMS`. Nothing is looked up until first use (see `library`).

Imports the standard library and `structs`.

Source: llama.h and ggml-backend.h, b5640 to b11739.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llamalite.ffi import structs

MODEL_PARAMS, CONTEXT_PARAMS, PERF_CONTEXT = "@model", "@context", "@perf"
LAYOUTS = (MODEL_PARAMS, CONTEXT_PARAMS, PERF_CONTEXT)

_TYPES: dict[str, Any] = {
    "v": None,
    "p": ctypes.c_void_p,
    "s": ctypes.c_char_p,
    "b": ctypes.c_bool,
    "i": ctypes.c_int32,
    "u": ctypes.c_uint32,
    "l": ctypes.c_int64,
    "L": ctypes.c_uint64,
    "f": ctypes.c_float,
    "z": ctypes.c_size_t,
    "batch": structs.Batch,
    "chain_params": structs.SamplerChainParams,
    "perf_sampler": structs.PerfSamplerData,
}

_LLAMA = """
llama_backend_init v
llama_backend_free v
llama_numa_init v i
llama_time_us l
llama_max_devices z
llama_max_parallel_sequences z
llama_max_tensor_buft_overrides z
llama_supports_mmap b
llama_supports_mlock b
llama_supports_gpu_offload b
llama_supports_rpc b
llama_print_system_info s
llama_version s
llama_log_set v p p
llama_log_get v p p
llama_flash_attn_type_name s i
llama_load_mode_name s i
llama_load_mode_from_str i s
llama_ftype_name s i
llama_attach_threadpool v p p p
llama_detach_threadpool v p

llama_model_load_from_file p s @model
llama_model_load_from_splits p p z @model
llama_model_save_to_file v p s
llama_model_free v p
llama_model_get_vocab p p
llama_model_rope_type i p
llama_model_n_ctx_train i p
llama_model_n_embd i p
llama_model_n_embd_inp i p
llama_model_n_embd_out i p
llama_model_n_layer i p
llama_model_n_layer_nextn i p
llama_model_n_head i p
llama_model_n_head_kv i p
llama_model_n_swa i p
llama_model_rope_freq_scale_train f p
llama_model_n_cls_out u p
llama_model_cls_label s p u
llama_model_meta_val_str i p s p z
llama_model_meta_count i p
llama_model_meta_key_str s i
llama_model_meta_key_by_index i p i p z
llama_model_meta_val_str_by_index i p i p z
llama_model_desc i p p z
llama_model_size L p
llama_model_ftype i p
llama_model_chat_template s p s
llama_model_n_params L p
llama_model_has_encoder b p
llama_model_has_decoder b p
llama_model_decoder_start_token i p
llama_model_is_recurrent b p
llama_model_is_hybrid b p
llama_model_is_diffusion b p
llama_model_quantize u s s p

llama_init_from_model p p @context
llama_free v p
llama_n_ctx u p
llama_n_ctx_seq u p
llama_n_batch u p
llama_n_ubatch u p
llama_n_seq_max u p
llama_n_rs_seq u p
llama_get_model p p
llama_get_memory p p
llama_pooling_type i p
llama_set_n_threads v p i i
llama_n_threads i p
llama_n_threads_batch i p
llama_set_embeddings v p b
llama_set_causal_attn v p b
llama_get_causal_attn b p
llama_set_warmup v p b
llama_set_abort_callback v p p p
llama_synchronize v p
llama_encode i p batch
llama_decode i p batch
llama_get_logits p p
llama_get_logits_ith p p i
llama_get_embeddings p p
llama_get_embeddings_ith p p i
llama_get_embeddings_seq p p i
llama_set_sampler b p i p
llama_get_sampled_token_ith i p i
llama_get_sampled_probs_ith p p i
llama_get_sampled_probs_count_ith u p i
llama_get_sampled_logits_ith p p i
llama_get_sampled_logits_count_ith u p i
llama_get_sampled_candidates_ith p p i
llama_get_sampled_candidates_count_ith u p i

llama_memory_clear v p b
llama_memory_seq_rm b p i i i
llama_memory_seq_cp v p i i i i
llama_memory_seq_keep v p i
llama_memory_seq_add v p i i i i
llama_memory_seq_div v p i i i i
llama_memory_seq_pos_min i p i
llama_memory_seq_pos_max i p i
llama_memory_can_shift b p

llama_state_get_size z p
llama_state_get_data z p p z
llama_state_set_data z p p z
llama_state_load_file b p s p z p
llama_state_save_file b p s p z
llama_state_seq_get_size z p i
llama_state_seq_get_data z p p z i
llama_state_seq_set_data z p p z i
llama_state_seq_save_file z p s i p z
llama_state_seq_load_file z p s i p z p
llama_state_seq_get_size_ext z p i u
llama_state_seq_get_data_ext z p p z i u
llama_state_seq_set_data_ext z p p z i u

llama_vocab_type i p
llama_vocab_n_tokens i p
llama_vocab_get_text s p i
llama_vocab_get_score f p i
llama_vocab_get_attr i p i
llama_vocab_is_eog b p i
llama_vocab_is_control b p i
llama_vocab_bos i p
llama_vocab_eos i p
llama_vocab_eot i p
llama_vocab_sep i p
llama_vocab_nl i p
llama_vocab_pad i p
llama_vocab_mask i p
llama_vocab_get_add_bos b p
llama_vocab_get_add_eos b p
llama_vocab_get_add_sep b p
llama_vocab_fim_pre i p
llama_vocab_fim_suf i p
llama_vocab_fim_mid i p
llama_vocab_fim_pad i p
llama_vocab_fim_rep i p
llama_vocab_fim_sep i p
llama_tokenize i p s i p i b b
llama_token_to_piece i p i p i i b
llama_detokenize i p p i p i b b
llama_chat_apply_template i s p z b p i
llama_chat_builtin_templates i p z

llama_adapter_lora_init p p s
llama_adapter_lora_free v p
llama_adapter_meta_val_str i p s p z
llama_adapter_meta_count i p
llama_adapter_meta_key_by_index i p i p z
llama_adapter_meta_val_str_by_index i p i p z
llama_adapter_get_alora_n_invocation_tokens L p
llama_adapter_get_alora_invocation_tokens p p
llama_set_adapters_lora i p p z p
llama_set_adapter_lora i p p f
llama_rm_adapter_lora i p p
llama_clear_adapter_lora v p
llama_set_adapter_cvec i p p z i i i
llama_apply_adapter_cvec i p p z i i i

llama_sampler_init p p p
llama_sampler_name s p
llama_sampler_accept v p i
llama_sampler_apply v p p
llama_sampler_reset v p
llama_sampler_clone p p
llama_sampler_copy v p p
llama_sampler_free v p
llama_sampler_chain_init p chain_params
llama_sampler_chain_add v p p
llama_sampler_chain_get p p i
llama_sampler_chain_n i p
llama_sampler_chain_remove p p i
llama_sampler_init_greedy p
llama_sampler_init_dist p u
llama_sampler_init_top_k p i
llama_sampler_init_top_p p f z
llama_sampler_init_min_p p f z
llama_sampler_init_typical p f z
llama_sampler_init_temp p f
llama_sampler_init_temp_ext p f f f
llama_sampler_init_xtc p f f z u
llama_sampler_init_top_n_sigma p f
llama_sampler_init_mirostat p i u f f i
llama_sampler_init_mirostat_v2 p u f f
llama_sampler_init_grammar p p s s
llama_sampler_init_grammar_lazy_patterns p p s s p z p z
llama_sampler_init_penalties p i i f f f
llama_sampler_init_dry p p f f i i p z
llama_sampler_init_adaptive_p p f f u
llama_sampler_init_logit_bias p i i p
llama_sampler_init_infill p p
llama_sampler_get_seed u p
llama_sampler_sample i p p i

llama_split_path i p z s i i
llama_split_prefix i p z s i i
llama_perf_context @perf p
llama_perf_context_print v p
llama_perf_context_reset v p
llama_perf_sampler perf_sampler p
llama_perf_sampler_print v p
llama_perf_sampler_reset v p
"""

_GGML = """
ggml_backend_load p s
ggml_backend_unload v p
ggml_backend_load_all v
ggml_backend_load_all_from_path v s
ggml_backend_reg_count z
ggml_backend_reg_get p z
ggml_backend_reg_by_name p s
ggml_backend_dev_count z
ggml_backend_dev_get p z
ggml_backend_dev_by_name p s
ggml_backend_dev_by_type p i
"""

_GGML_BASE = """
ggml_backend_dev_name s p
ggml_backend_dev_description s p
ggml_backend_dev_memory v p p p
ggml_backend_dev_type i p
ggml_backend_dev_backend_reg p p
ggml_backend_dev_buffer_type p p
ggml_backend_dev_host_buffer_type p p
ggml_backend_reg_name s p
ggml_backend_reg_dev_count z p
ggml_backend_reg_get_proc_address p p s
ggml_backend_buft_name s p
ggml_log_set v p p
ggml_quantize_chunk z i p p l l l p
ggml_type_name s i
ggml_type_size z i
ggml_blck_size l i
ggml_version s
ggml_commit s
"""

WATCHED: dict[str, str | None] = {
    "ggml_backend_load_all_from_path": None,
    "llama_adapter_lora_init": None,  # freed with its model
    "llama_backend_init": None,
    "llama_init_from_model": "llama_free",
    "llama_model_load_from_file": "llama_model_free",
    "llama_model_quantize": None,
    "llama_model_save_to_file": None,
    "llama_sampler_init_grammar": "llama_sampler_free",
    "llama_sampler_init_grammar_lazy_patterns": "llama_sampler_free",
}
"""Functions that write to the log: in the main thread, Ctrl-C would get lost in its callback.

Each with the function that frees what it returns, for when Ctrl-C came meanwhile.
"""

_OLD = """
llama_sampler_init_penalties p i f f f
llama_sampler_init_dry p p i f f i i p z
"""


def _parse(table: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split() for line in table.strip().splitlines() if line)
    return {name: tuple(types) for name, *types in rows}


LLAMA = _parse(_LLAMA)
GGML = _parse(_GGML)
GGML_BASE = _parse(_GGML_BASE)
OLD_FORMS = _parse(_OLD)


def resolve(letter: str, layouts: dict[str, type[ctypes.Structure]]) -> Any:
    """Return the ctypes type for a table entry; `layouts` holds the structs chosen at load."""
    return layouts[letter] if letter in LAYOUTS else _TYPES[letter]
