"""llama-server's `timings` object, from what the engine measured.

Source: llama.cpp tools/server/README.md, "Timings and context usage".
"""

from __future__ import annotations

from typing import Any

from llamalite.engine.result import Timings, Usage


def timings_of(usage: Usage, timings: Timings) -> dict[str, Any]:
    """Return the object for one answer; times are in milliseconds, rates in tokens per second."""
    computed = usage.prompt_tokens - usage.cached_tokens
    return {
        "cache_n": usage.cached_tokens,
        **_part("prompt", computed, timings.prefill_s),
        **_part("predicted", usage.completion_tokens, timings.decode_s),
    }


def _part(name: str, n: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": n,
        f"{name}_ms": seconds * 1e3,
        f"{name}_per_token_ms": seconds * 1e3 / n if n else 0.0,
        f"{name}_per_second": n / seconds if seconds > 0 else 0.0,
    }
