"""opencode's configuration classes, and what each says in llamalite's own terms.

Owns their fields, defaults and ranges. May import `llamalite.config` and `errors`.
"""

# ruff: noqa: RUF009 # what makes a field is called to make it
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from llamalite import config
from llamalite.config.fields import MAX_INT32, MAX_UINT32, number, text, whole
from llamalite.errors import InvalidParameter
from llamalite.opencode.view import View, member, names, nested, place, required, strings

_LEAST_CONTEXT = 128


class ChatTemplateType(str, Enum):
    """Chat templates by name; AUTO is the model's own."""

    AUTO = "auto"
    CHATML = "chatml"
    LLAMA3 = "llama3"
    MISTRAL = "mistral"
    QWEN = "qwen"
    PHI = "phi"
    GEMMA = "gemma"
    DOLPHIN = "dolphin"
    VICUNA = "vicuna"
    OPENCHAT = "openchat"
    CAUSAL_LM = "causal_lm"

    @property
    def template(self) -> str | None:
        """Name of llamalite's template; None = the model's own."""
        return _TEMPLATES.get(self.value, self.value)


_TEMPLATES = {
    "auto": None,
    "qwen": "chatml",
    "dolphin": "chatml",
    "causal_lm": "chatml",
    "phi": "phi3",
}
"""What is called otherwise here; these families were all trained on ChatML."""


class GPUMode(str, Enum):
    """Kinds of GPU. Which is used follows from the libllama installed ('llamalite lib install')."""

    NONE = "none"
    CUDA = "cuda"
    METAL = "metal"
    VULKAN = "vulkan"
    OPENCL = "opencl"


class ModelSource(str, Enum):
    """Where a model came from."""

    LOCAL = "local"
    HUGGINGFACE = "huggingface"
    OLLAMA = "ollama"


@dataclass
class SamplingConfig(View):
    """How tokens are chosen."""

    temperature: float = number(0.7, 0, 2, "0 = always the likeliest token")
    top_p: float = number(0.9, 0, 1, "1 = off")
    top_k: int = whole(40, 1, MAX_INT32, "candidates kept")
    repeat_penalty: float = number(1.1, 0, 1e6, "1 = off", open_low=True)
    seed: int | None = whole(None, -1, MAX_UINT32 - 1, "-1 = random")
    max_tokens: int = whole(2048, 1, MAX_INT32, "most tokens of an answer")
    stop_sequences: list[str] = strings()

    def to_llamalite(self) -> config.SamplingConfig:
        """Return the same as llamalite's own SamplingConfig; a seed of -1 is a random one."""
        return config.SamplingConfig(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repeat_penalty=self.repeat_penalty,
            seed=None if self.seed == -1 else self.seed,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences),
        )


@dataclass
class ServerConfig(View):
    """Where a server listens, and for whom."""

    host: str = text("127.0.0.1", "address to listen at")
    port: int = whole(8080, 0, 65535, "0 = any that is free")
    cors_origins: list[str] = strings("*")
    max_connections: int = whole(10, 1, 65535, "connections at once")
    timeout: int = whole(300, 0, 10**6, "seconds for a request, 0 = any time")

    def to_llamalite(self) -> config.ServerConfig:
        """Return the same as llamalite's own ServerConfig."""
        return config.ServerConfig(
            host=self.host,
            port=self.port,
            cors_origins=tuple(self.cors_origins),
            max_connections=self.max_connections,
            timeout_s=self.timeout or 1e6,
        )


@dataclass
class ModelConfig(View):
    """One model's settings; None = not said."""

    name: str = required(text(None, "what it is called"))
    path: Path = required(place(None))
    source: ModelSource = member(ModelSource, ModelSource.LOCAL)
    gpu_layers: int | None = whole(None, -1, MAX_INT32, "-1 = all, 0 = none")
    context_size: int | None = whole(None, _LEAST_CONTEXT, MAX_INT32, "tokens")
    chat_template: ChatTemplateType | None = member(ChatTemplateType, None)
    system_prompt: str | None = text(None, "system message", may_be_empty=True)
    temperature: float | None = number(None, 0, 2, "0 = always the likeliest token")
    top_p: float | None = number(None, 0, 1, "1 = off")
    top_k: int | None = whole(None, 1, MAX_INT32, "candidates kept")
    grammar_file: Path | None = place(None)

    def to_llamalite(self) -> config.ModelConfig:
        """Return the same as llamalite's own ModelConfig.

        Raises:
            InvalidParameter: the grammar's file can't be read.
        """
        sampling: dict[str, Any] = {
            name: value
            for name in ("temperature", "top_p", "top_k")
            if (value := getattr(self, name)) is not None
        }
        if self.grammar_file is not None:
            sampling["grammar"] = _read(self.grammar_file)
        return config.ModelConfig(
            model=str(self.path),
            n_ctx=self.context_size,
            n_gpu_layers=self.gpu_layers,
            chat_template=self.chat_template and self.chat_template.template,
            system_prompt=self.system_prompt,
            sampling=sampling,
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"ModelConfig.grammar_file: {file} can't be read ({reason}): check the path",
            param="grammar_file",
        ) from error


@dataclass
class LLMConfig(View):
    """Settings for all models."""

    default_model: str | None = text(None, "model used where none is named")
    models_dir: Path = place("~/.cache/opencode/models")
    gpu_layers: int = whole(0, -1, MAX_INT32, "-1 = all, 0 = none")
    context_size: int | None = whole(4096, 0, MAX_INT32, "tokens, 0 = the model's own", none_as=0)
    max_tokens: int = whole(2048, 1, MAX_INT32, "most tokens of an answer")
    gpu_mode: GPUMode = member(GPUMode, GPUMode.NONE)
    temperature: float = number(0.7, 0, 2, "0 = always the likeliest token")
    top_p: float = number(0.9, 0, 1, "1 = off")
    top_k: int = whole(40, 1, MAX_INT32, "candidates kept")
    repeat_penalty: float = number(1.1, 0, 1e6, "1 = off", open_low=True)
    system_prompt: str = text("You are a helpful assistant.", "system message", may_be_empty=True)
    chat_template: ChatTemplateType = member(ChatTemplateType, ChatTemplateType.AUTO)
    server: ServerConfig = nested(ServerConfig)
    aliases: dict[str, str] = names()

    def to_llamalite(self) -> config.LLMConfig:
        """Return the same as llamalite's own LLMConfig; gpu_mode has no counterpart there."""
        return config.LLMConfig(
            default_model=self.default_model or config.LLMConfig.default_model,
            models_dir=self.models_dir,
            n_gpu_layers=self.gpu_layers,
            n_ctx=self.context_size,
            system_prompt=self.system_prompt,
            chat_template=self.chat_template.template,
            sampling=config.SamplingConfig(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                repeat_penalty=self.repeat_penalty,
                max_tokens=self.max_tokens,
            ),
            server=self.server.to_llamalite(),
            aliases=self.aliases,
        )
