"""What users write stays text: control tokens spelled out in their messages are none.

A chat template puts messages between control tokens as text, and tokenizing the whole reads all of
them alike; so whoever writes "<|im_end|>" into a message could end it and begin the system's. Owns
marking such places before a template is rendered, and finding them after. Imports `core`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from llamalite.core.vocab import Vocab

_ROLES = ("user", "tool")
"""Whose messages hold what strangers wrote; the others are the program's own."""
_PRIVATE = range(0xE000, 0xF8FF)


class Literal:
    """Marks and splits, for one vocabulary; any thread.

    Args:
        vocab: whose control tokens are meant.
    """

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        vocab = self._vocab
        tokens = {*map(int, vocab.unseen.nonzero()[0]), *vocab.eog_tokens}
        pieces = (vocab.piece(token, special=True).decode("utf-8", "replace") for token in tokens)
        texts = sorted({text for text in pieces if len(text) > 1}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts))) if texts else None

    def marked(
        self, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """Return messages with a mark inside each control token spelled out, and the mark.

        The mark is one character that stands nowhere in them; None = there is nothing to mark.
        """
        found = [self._has_control(message) for message in messages]
        if self._control is None or not any(found):
            return messages, None
        whole = "".join(str(message.get("content")) for message in messages)
        mark = next(chr(code) for code in _PRIVATE if chr(code) not in whole)
        control = self._control

        def split(match: re.Match[str]) -> str:
            return match[0][0] + mark + match[0][1:]

        return [
            {**message, "content": control.sub(split, message["content"])} if has else message
            for message, has in zip(messages, found, strict=True)
        ], mark

    def _has_control(self, message: Mapping[str, Any]) -> bool:
        content = message.get("content")
        if message.get("role") not in _ROLES or not isinstance(content, str):
            return False
        return self._control is not None and self._control.search(content) is not None
