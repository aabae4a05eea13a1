"""The text of one answer as an iterator, for library use. Imports its siblings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llamalite.engine.handle import Generation
from llamalite.engine.result import GenerationResult
from llamalite.errors import LlamaliteError


class GenerationStream(Iterator[str]):
    """The text of a generation, piece by piece as it comes.

    Pieces are never empty, never split a character and never show part of a stop string.
    """

    def __init__(
        self, generation: Generation, finish: Callable[[GenerationResult], GenerationResult]
    ) -> None:
        self._generation = generation
        self._finish = finish

    def __next__(self) -> str:
        for delta in self._generation:
            if delta.text:
                return delta.text
        raise StopIteration

    def close(self) -> None:
        """Stop generating; `result` then says "cancelled" unless it had ended."""
        generation = self._generation
        if generation.done:
            return
        generation.cancel()
        try:
            for _ in generation:
                pass
        except LlamaliteError:
            return  # it has ended, which was asked for

    def __del__(self) -> None:
        if not self._generation.done:
            self._generation.cancel()

    @property
    def result(self) -> GenerationResult:
        """What has been generated so far, whole once the iteration has ended."""
        return self._finish(self._generation.so_far()[0])
