"""The way to the end of an answer: tokens that bring it to a close in few steps.

Owns which tokens to try where. It finds a short way, not always the shortest. Imports numpy and the
standard library.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint32]
"""A bit for each token, lowest first: whether it may come."""

_N_FILLERS, _N_CLOSERS = 64, 32
_OPENERS = frozenset(b"{[")
_RARE = b"@:;)=-+./_,TZ0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
_CHARACTERS = bytes(c for c in dict.fromkeys([*_RARE, *range(32, 127)]) if c not in _OPENERS)
"""Characters of patterns, those first that are seldom allowed; what opens a value leads astray."""


class Matcher(Protocol):
    """A matcher that can look ahead; see `GuidedMatcher`."""

    @property
    def is_over(self) -> bool:
        """Say whether nothing but the end may follow."""
        ...

    @property
    def may_end(self) -> bool:
        """Say whether the end may follow."""
        ...

    def allowed_bits(self) -> Bits | None:
        """Return what may follow; None = error."""
        ...

    def accept(self, token: int) -> None:
        """Go on past a token that is allowed here."""
        ...


class Exits:
    """Tokens of a vocabulary by what they are good for on the way out; never changes.

    Args:
        pieces: bytes of every token.
        end: a token that ends a generation.

    Attributes:
        openers: tokens that may open an object, a list, or its next item.
    """

    def __init__(self, pieces: list[bytes], end: int) -> None:
        self.end = end
        self.openers = frozenset(
            t for t, piece in enumerate(pieces) if b"{" in piece or b"[" in piece or b"," in piece
        )
        ids: dict[bytes, int] = {}
        closers, letters = [], []
        for token, piece in enumerate(pieces):
            ids.setdefault(piece, token)
            if piece and not piece.strip(b'"]}'):
                closers.append((piece.startswith(b'"'), -len(piece), token))
            elif piece.isalpha() and piece.isascii():
                letters.append((-len(piece), token))
        quotes = [token for is_quote, _, token in sorted(closers) if is_quote][:_N_CLOSERS]
        brackets = [token for is_quote, _, token in sorted(closers) if not is_quote][:_N_CLOSERS]
        self.content = _Tokens([ids[word] for word in (b"#", b"~") if word in ids])
        self.in_string, self.outside = _Tokens(quotes), _Tokens(brackets + quotes)
        self.fillers = _Tokens([token for _, token in sorted(letters)[:_N_FILLERS]])
        self.singles = _Tokens([ids[bytes([c])] for c in _CHARACTERS if bytes([c]) in ids])


class _Search:
    """Chooses the tokens of one way."""

    def __init__(self, exits: Exits) -> None:
        self._exits = exits
        self._n_used = np.zeros(len(exits.singles.ids), np.int32)
        self._fills = False

    def next(self, bits: Bits) -> int | None:
        """Choose one of the allowed tokens; None if there are none."""
        words = np.flatnonzero(bits)
        if not len(words):
            return None
        lowest = _lowest(bits, int(words[0]))
        if len(words) == 1 and int(bits[words[0]]).bit_count() == 1:
            return lowest
        exits = self._exits
        in_string = exits.content.first(bits) is not None
        token = (exits.in_string if in_string else exits.outside).first(bits)
        if token is not None:
            self._n_used.fill(0)  # the next value is another one
            return token
        if in_string:
            # NOTE: too short as yet, or a pattern: a long piece serves the one, turns the other.
            self._fills = not self._fills
            token = exits.fillers.first(bits) if self._fills else None
        return self._least_used(bits, lowest) if token is None else token

    def _least_used(self, bits: Bits, otherwise: int) -> int:
        # NOTE: by turns, because a pattern may want one thing after any number of another.
        singles = self._exits.singles
        allowed = singles.allowed(bits)
        if not len(allowed):
            return otherwise
        number = allowed[self._n_used[allowed].argmin()]
        self._n_used[number] += 1
        return int(singles.ids[number])


def _lowest(bits: Bits, word: int) -> int:
    value = int(bits[word])
    return 32 * word + (value & -value).bit_length() - 1


class _Tokens:
    """Some tokens, and where their bits are."""

    def __init__(self, tokens: list[int]) -> None:
        self.ids = np.array(tokens, np.int32)
        self._words, self._masks = self.ids >> 5, np.uint32(1) << (self.ids & 31).astype(np.uint32)

    def allowed(self, bits: Bits) -> npt.NDArray[np.intp]:
        """Return the places of those that are allowed."""
        return np.flatnonzero(bits[self._words] & self._masks)

    def first(self, bits: Bits) -> int | None:
        """Return the first that is allowed."""
        allowed = self.allowed(bits)
        return int(self.ids[allowed[0]]) if len(allowed) else None


def find_way(matcher: Matcher, exits: Exits, n_tokens: int) -> list[int] | None:
    """Return tokens that bring an answer to its end, or None if none are found.

    Args:
        matcher: where the answer stands; used up.
        exits: of its vocabulary.
        n_tokens: most tokens the way may have.
    """
    search = _Search(exits)
    way: list[int] = []
    while len(way) <= n_tokens:
        if matcher.is_over:
            return way
        if matcher.may_end:
            return [*way, exits.end] if len(way) < n_tokens else None
        bits = matcher.allowed_bits()
        token = None if bits is None else search.next(bits)
        if token is None:
            return None
        matcher.accept(token)
        way.append(token)
    return None
