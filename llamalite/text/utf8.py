"""Incremental UTF-8: token pieces in, text out, no character ever shown in halves.

Knows nothing of tokens. Imports the standard library alone.
"""

from __future__ import annotations

import codecs


class Utf8Stream:
    """Decode bytes that arrive in pieces, as `bytes.decode("utf-8", "replace")` would the whole.

    A character split over pieces is held back until its last byte arrives; U+FFFD stands only for
    bytes that no later byte can make valid.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def decode(self, piece: bytes) -> str:
        """Return the text that is complete after `piece`; may be empty."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """Return U+FFFD for an unfinished character, else nothing, and start afresh."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
