"""llamalite runs GGUF language models through prebuilt libllama libraries.

Importing this package loads neither libllama nor numpy: the public names below are resolved on
first use.
"""

from __future__ import annotations

__version__ = "0.1.0"

_EXPORTS = {
    "LLM": "llamalite.llm",
    "GenerationResult": "llamalite.llm",
    "ModelManager": "llamalite.models.manager",
    "get_model_manager": "llamalite.models.manager",
    "LLMConfig": "llamalite.config",
    "ModelConfig": "llamalite.config",
    "SamplingConfig": "llamalite.config",
    "ServerConfig": "llamalite.config",
    "LlamaliteError": "llamalite.errors",
}

__all__ = [
    "LLM",
    "GenerationResult",
    "LLMConfig",
    "LlamaliteError",
    "ModelConfig",
    "ModelManager",
    "SamplingConfig",
    "ServerConfig",
    "__version__",
    "get_model_manager",
]

TYPE_CHECKING = False  # PERF: importing typing would take a third of the time
if TYPE_CHECKING:
    from typing import Any

    from llamalite.config import LLMConfig, ModelConfig, SamplingConfig, ServerConfig
    from llamalite.errors import LlamaliteError
    from llamalite.llm import LLM, GenerationResult
    from llamalite.models.manager import ModelManager, get_model_manager


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        import importlib

        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'llamalite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
