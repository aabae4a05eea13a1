"""Enums, callbacks and the structs of llama.h that never changed between b5640 and b11739.

Structs whose layout drifted are in `layouts`. Imports the standard library alone.

Source: llama.h, ggml.h, ggml-backend.h.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t
from ctypes import c_void_p as ptr
from enum import IntEnum, IntFlag

TOKEN_NULL = -1
DEFAULT_SEED = 0xFFFFFFFF


class VocabType(IntEnum):
    """Source: llama_vocab_type."""

    NONE = 0
    SPM = 1
    BPE = 2
    WPM = 3
    UGM = 4
    RWKV = 5
    PLAMO2 = 6


class TokenAttr(IntFlag):
    """Source: llama_token_attr."""

    UNDEFINED = 0
    UNKNOWN = 1 << 0
    UNUSED = 1 << 1
    NORMAL = 1 << 2
    CONTROL = 1 << 3
    USER_DEFINED = 1 << 4
    BYTE = 1 << 5
    NORMALIZED = 1 << 6
    LSTRIP = 1 << 7
    RSTRIP = 1 << 8
    SINGLE_WORD = 1 << 9


class PoolingType(IntEnum):
    """Source: llama_pooling_type."""

    UNSPECIFIED = -1
    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


class AttentionType(IntEnum):
    """Source: llama_attention_type."""

    UNSPECIFIED = -1
    CAUSAL = 0
    NON_CAUSAL = 1


class RopeScalingType(IntEnum):
    """Source: llama_rope_scaling_type."""

    UNSPECIFIED = -1
    NONE = 0
    LINEAR = 1
    YARN = 2
    LONGROPE = 3


class FlashAttnType(IntEnum):
    """Source: llama_flash_attn_type (from b6325)."""

    AUTO = -1
    DISABLED = 0
    ENABLED = 1


class SplitMode(IntEnum):
    """Source: llama_split_mode."""

    NONE = 0
    LAYER = 1
    ROW = 2
    TENSOR = 3


class ContextType(IntEnum):
    """Source: llama_context_type (from b9180)."""

    DEFAULT = 0
    MTP = 1


class StateSeqFlags(IntFlag):
    """Source: LLAMA_STATE_SEQ_FLAGS_*."""

    NONE = 0
    PARTIAL_ONLY = 1
    ON_DEVICE = 2


class DeviceType(IntEnum):
    """Kinds of device as of b6451; before it, ACCEL was 2 and IGPU did not exist.

    Source: ggml_backend_dev_type.
    """

    CPU = 0
    GPU = 1
    IGPU = 2
    ACCEL = 3
    META = 4


class LogLevel(IntEnum):
    """Source: ggml_log_level."""

    NONE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CONT = 5


class KvOverrideType(IntEnum):
    """Source: llama_model_kv_override_type."""

    INT = 0
    FLOAT = 1
    BOOL = 2
    STR = 3


class Batch(ctypes.Structure):
    """Source: llama_batch; passed by value."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", ptr),
        ("embd", ptr),
        ("pos", ptr),
        ("n_seq_id", ptr),
        ("seq_id", ptr),
        ("logits", ptr),
    ]


class TokenData(ctypes.Structure):
    """Source: llama_token_data."""

    _fields_ = [("id", c_int32), ("logit", c_float), ("p", c_float)]


class TokenDataArray(ctypes.Structure):
    """Source: llama_token_data_array. `data` may be replaced and shortened by samplers."""

    _fields_ = [
        ("data", ptr),
        ("size", c_size_t),
        ("selected", c_int64),
        ("sorted", c_bool),
    ]


class SamplerChainParams(ctypes.Structure):
    """Source: llama_sampler_chain_params; passed by value."""

    _fields_ = [("no_perf", c_bool)]


class LogitBias(ctypes.Structure):
    """Source: llama_logit_bias."""

    _fields_ = [("token", c_int32), ("bias", c_float)]


class ChatMessage(ctypes.Structure):
    """Source: llama_chat_message."""

    _fields_ = [("role", c_char_p), ("content", c_char_p)]


class _KvOverrideValue(ctypes.Union):
    _fields_ = [
        ("val_i64", c_int64),
        ("val_f64", c_double),
        ("val_bool", c_bool),
        ("val_str", c_char * 128),
    ]


class KvOverride(ctypes.Structure):
    """Source: llama_model_kv_override; an array of them ends with an empty key."""

    _anonymous_ = ("value",)
    _fields_ = [
        ("tag", c_int32),
        ("key", c_char * 128),
        ("value", _KvOverrideValue),
    ]


class TensorBuftOverride(ctypes.Structure):
    """Source: llama_model_tensor_buft_override; an array of them ends with a NULL pattern."""

    _fields_ = [("pattern", c_char_p), ("buft", ptr)]


class TensorTypeOverride(ctypes.Structure):
    """Source: llama_model_tensor_override (from b8608)."""

    _fields_ = [("pattern", c_char_p), ("type", c_int32)]


class ImatrixData(ctypes.Structure):
    """Source: llama_model_imatrix_data (from b8608)."""

    _fields_ = [("name", c_char_p), ("data", ptr), ("size", c_size_t)]


class PerfSamplerData(ctypes.Structure):
    """Source: llama_perf_sampler_data; returned by value."""

    _fields_ = [("t_sample_ms", c_double), ("n_sample", c_int32)]


class SamplerSeqConfig(ctypes.Structure):
    """Source: llama_sampler_seq_config (from b7627)."""

    _fields_ = [("seq_id", c_int32), ("sampler", ptr)]


LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, ptr)
ProgressCallback = ctypes.CFUNCTYPE(c_bool, c_float, ptr)
AbortCallback = ctypes.CFUNCTYPE(c_bool, ptr)
