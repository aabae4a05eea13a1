"""What all of OpenAI's generating endpoints answer alike: usage and finish reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamalite.engine.result import Usage
from llamalite.errors import ConstraintError

_REASONS = {"stop": "stop", "length": "length", "time_limit": "length", "cancelled": "stop"}


def finish_reason(reason: str) -> str:
    """Return OpenAI's word for how an answer ended.

    Raises:
        ConstraintError: what was asked for left no token to choose.
    """
    if reason == "constraint":
        raise ConstraintError(
            "the constraint and the other settings left no token to choose: loosen one of them"
        )
    return _REASONS[reason]


def usage_of(usages: Mapping[int, Usage], n: int = 1) -> dict[str, Any]:
    """Return OpenAI's counts of a request.

    Args:
        usages: by answer.
        n: answers of each prompt.
    """
    prompts = [usage for index, usage in usages.items() if index % n == 0]
    prompt = sum(usage.prompt_tokens for usage in prompts)
    completion = sum(usage.completion_tokens for usage in usages.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in prompts)},
    }
