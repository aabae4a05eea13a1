"""Stop strings over a stream: what must not be shown is never shown, not even in part.

Knows nothing of tokens: a stop string may span any number of pieces of text. Imports
`llamalite.errors` alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamalite.errors import InvalidParameter


class _Matcher:
    """Find one stop string in a stream of characters, by Knuth, Morris and Pratt.

    Attributes:
        state: length of the longest suffix of the text that begins the stop string.
        start: where the first match starts in the text, or None.
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.state = 0
        self.start: int | None = None
        self._borders = [0] * len(stop)
        for i in range(1, len(stop)):
            self._borders[i] = self._advance(self._borders[i - 1], stop[i])

    def _advance(self, state: int, char: str) -> int:
        while state and self.stop[state] != char:
            state = self._borders[state - 1]
        return state + (self.stop[state] == char)

    def scan(self, text: str, offset: int) -> None:
        """Read on; `offset` is where `text` starts in the whole."""
        state, size = self.state, len(self.stop)
        for position, char in enumerate(text, offset):
            state = self._advance(state, char)
            if state == size:
                self.start = position + 1 - size
                return
        self.state = state


class StopStrings:
    """Hold back text that may begin a stop string, and end at the first stop string found.

    The match that starts earliest wins; of several that start at the same place, the shortest,
    since the text before them is the same. So a match counts only once no other stop string can
    still turn out to start before it. The result doesn't depend on how the text was split.

    Attributes:
        matched: the stop string that ended the text, or None while there is none.

    Raises:
        InvalidParameter: a stop string is empty or no text.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise InvalidParameter(f"stop must be non-empty text, not {stop!r}", param="stop")
        unique = sorted(set(stops), key=len)
        self._matchers = [_Matcher(stop) for stop in unique]
        self._held = ""
        self._n_shown = 0
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Return the text that is safe to show now; nothing once a stop string has matched.

        Takes time in proportion to the new text and to the number of stop strings.
        """
        if self.matched is not None:
            return ""
        offset = self._n_shown + len(self._held)
        self._held += text
        end = offset + len(text)
        safe = end
        for matcher in self._matchers:
            if matcher.start is None:
                matcher.scan(text, offset)
            start = end - matcher.state if matcher.start is None else matcher.start
            safe = min(safe, start)
        found = self._first_match()
        if found is not None and found.start == safe:
            return self._finish(found)
        return self._show(safe)

    def flush(self) -> str:
        """Return what is still held back, as no more text will come."""
        found = self._first_match()
        if self.matched is None and found is not None:
            return self._finish(found)
        return self._show(self._n_shown + len(self._held))

    def _first_match(self) -> _Matcher | None:
        matches = [matcher for matcher in self._matchers if matcher.start is not None]
        return min(matches, key=lambda matcher: matcher.start or 0, default=None)

    def _finish(self, found: _Matcher) -> str:
        self.matched = found.stop
        text = self._show(found.start or 0)
        self._held = ""
        return text

    def _show(self, position: int) -> str:
        n_chars = position - self._n_shown
        text, self._held = self._held[:n_chars], self._held[n_chars:]
        self._n_shown = position
        return text
