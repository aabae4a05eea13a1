"""Prompts as token ids: the same in every run, different wherever sharing would be cheating."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from llamalite.core.model import Model
from llamalite.core.ready import ready_library

_SUBJECTS = "The captain|A young baker|My neighbour|The old clock|Every student|The river|A storm"
_VERBS = "carried|forgot|repaired|counted|painted|followed|described"
_OBJECTS = "the broken bridge|three letters|a box of apples|the last train|seven lanterns|a map"
_ENDS = "before the rain|in the morning|without a word|for the whole village|near the harbour"


def tokenizer(model: Path) -> Callable[[str], list[int]]:
    """Return what turns text into token ids with this model's vocabulary."""
    vocab = Model(ready_library(), model, vocab_only=True).vocab
    return vocab.tokenize


def text(seed: int, n_sentences: int) -> str:
    """Return sentences that another seed gives otherwise from the first word on."""
    chosen = random.Random(seed)
    parts = [words.split("|") for words in (_SUBJECTS, _VERBS, _OBJECTS, _ENDS)]
    sentences = (
        " ".join(chosen.choice(words) for words in parts) + f", {chosen.randrange(1000)} times."
        for _ in range(n_sentences)
    )
    return f"Story {seed}. " + " ".join(sentences)


class Prompts:
    """Makes prompts of a wanted length."""

    def __init__(self, model: Path) -> None:
        self._tokenize = tokenizer(model)
        self._seed = 0

    def fresh(self, n_tokens: int) -> list[int]:
        """Return a prompt that begins like no other one."""
        self._seed += 1
        return self._tokenize(text(self._seed, n_tokens // 4 + 8))[:n_tokens]

    def sharing(self, n: int, n_shared: int, n_tail: int) -> list[list[int]]:
        """Return n prompts with n_shared tokens in common and then n_tail of their own."""
        head = self.fresh(n_shared)
        return [head + self.fresh(n_tail) for _ in range(n)]
