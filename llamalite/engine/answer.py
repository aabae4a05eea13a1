"""The text of one answer, from its tokens: characters kept whole, stop strings kept out.

Imports `text` and, for types alone, `core`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamalite.text.stop import StopStrings
from llamalite.text.utf8 import Utf8Stream

if TYPE_CHECKING:
    from llamalite.core.vocab import Vocab


class AnswerText:
    """Text that may be shown, token by token.

    Args:
        vocab: the tokens' vocabulary.
        stops: strings the answer ends before.
        special: write control tokens out.
    """

    def __init__(self, vocab: Vocab, stops: Sequence[str], *, special: bool = False) -> None:
        self._vocab, self._special = vocab, special
        self._utf8, self._stops = Utf8Stream(), StopStrings(stops)

    @property
    def stop(self) -> str | None:
        """The stop string that ended it, or None while there is none."""
        return self._stops.matched

    def feed(self, token: int) -> str:
        """Return what a token makes final; may be empty."""
        piece = self._vocab.piece(token, special=self._special)
        return self._stops.feed(self._utf8.decode(piece))

    def end(self) -> str:
        """Return what was held back, as no more tokens will come."""
        rest = self._stops.feed(self._utf8.flush())
        if self._stops.matched is None:
            rest += self._stops.flush()
        return rest
