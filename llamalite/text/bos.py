"""Exactly one BOS: whether the tokenizer must add it to a rendered prompt.

Imports nothing.
"""

from __future__ import annotations


def needs_bos(prompt: str, bos_token: str, add_bos: bool) -> bool:
    """Say whether the tokenizer must add BOS to this prompt.

    Many templates write BOS themselves, and a second one makes answers worse.

    Args:
        prompt: the text to be tokenized, special tokens parsed.
        bos_token: BOS as text, or "" where the vocabulary has none.
        add_bos: whether the vocabulary asks for BOS.
    """
    return add_bos and not (bos_token and prompt.startswith(bos_token))
