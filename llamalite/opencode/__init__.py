"""The names of opencode's `core.llm`, for programs that use them: a view over llamalite's own.

Owns those names, their fields, defaults and signatures, and how they map to `llamalite.config` and
`llamalite.models.manager`. May import everything below `cli`.

Ranges that are wrong for real models are widened: contexts beyond 128,000 tokens, answers beyond
8,192, -1 GPU layers.
"""

from __future__ import annotations

from llamalite.opencode.chat import ChatCompletionRequest, ChatCompletionResponse, ChatMessage
from llamalite.opencode.chat import Role as Role
from llamalite.opencode.manager import ModelInfo, ModelManager, ModelStatus, get_model_manager
from llamalite.opencode.metadata import GGUFMetadata
from llamalite.opencode.metadata import QuantizationType as QuantizationType
from llamalite.opencode.server import LLMServer, get_llm_server
from llamalite.opencode.settings import (
    ChatTemplateType,
    GPUMode,
    LLMConfig,
    ModelConfig,
    ModelSource,
    SamplingConfig,
    ServerConfig,
)

__all__ = [
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatMessage",
    "ChatTemplateType",
    "GGUFMetadata",
    "GPUMode",
    "LLMConfig",
    "LLMServer",
    "ModelConfig",
    "ModelInfo",
    "ModelManager",
    "ModelSource",
    "ModelStatus",
    "SamplingConfig",
    "ServerConfig",
    "get_llm_server",
    "get_model_manager",
]
