"""How a constraint meets the tokens of one answer. Imports numpy and the standard library."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Matcher(Protocol):
    """Follows one answer, token by token; one thread at a time.

    The end of generation counts as a token: it is allowed where the answer may end.
    """

    @property
    def is_over(self) -> bool:
        """Say whether nothing but the end may follow."""
        ...

    def allows(self, token: int) -> bool:
        """Say whether a token may come next; changes nothing."""
        ...

    def mask(self, logits: npt.NDArray[np.float32]) -> bool:
        """Set what may not come next to -inf, in place; False if nothing is left.

        Args:
            logits: float32[n_vocab].
        """
        ...

    def accept(self, token: int) -> None:
        """Go on past a token that is allowed here."""
        ...

    def close(self) -> None:
        """Free what is native."""
        ...
