"""Saved states of sequences by their tokens, least recently used first to go.

Knows nothing of slots or memory. Imports numpy and its sibling `prefix`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamalite.engine.prefix import Tokens

_MAX_COUNT = 256


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state saved behind the last of these tokens.

    Attributes:
        tokens: int32[n].
        salt: whose tokens they are.
        state: uint8[size].
    """

    tokens: Tokens
    salt: str
    state: npt.NDArray[np.uint8]


class SnapshotStore:
    """Snapshots within a budget.

    Attributes:
        max_bytes: of all states together.
        n_bytes: of those held.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._held: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, snapshot: Snapshot) -> None:
        """Hold a snapshot, in place of those unused for longest where there is no room."""
        self._held.append(snapshot)
        self.n_bytes += len(snapshot.state)
        while self.n_bytes > self.max_bytes or len(self._held) > _MAX_COUNT:
            self.n_bytes -= len(self._held.pop(0).state)

    def touch(self, snapshot: Snapshot) -> None:
        """Note that a snapshot has been used."""
        self._held.remove(snapshot)
        self._held.append(snapshot)

    def at(self, tokens: Tokens, salt: str) -> Snapshot | None:
        """Return the snapshot behind exactly these tokens."""
        for snapshot in self.within(tokens, salt):
            return snapshot if len(snapshot.tokens) == len(tokens) else None
        return None

    def within(self, prompt: Tokens, salt: str) -> Iterator[Snapshot]:
        """Yield the snapshots that lie within a prompt, longest first."""
        held = sorted(self._held, key=lambda snapshot: -len(snapshot.tokens))
        for snapshot in held:
            n = len(snapshot.tokens)
            if snapshot.salt != salt or n > len(prompt):
                continue
            if np.array_equal(snapshot.tokens, prompt[:n]):
                yield snapshot
