"""What can be done with the sequences of a context's memory: cut, copied, saved, each only where
the continuation stays right.

Owns the rules of the kinds of memory (KV cache, sliding window, recurrent state, hybrids) and of
both layouts. Doesn't know tokens or requests. Imports numpy, `core` and `ffi`'s enums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.core.state import copy_sequence, paste_sequence
from llamalite.ffi.structs import StateSeqFlags

if TYPE_CHECKING:
    from llamalite.core.context import Context

State = npt.NDArray[np.uint8]

_ANY_SIZE = 2**62


class SlotMemory:
    """The sequences of one context; engine thread only.

    A sequence with n tokens holds the positions 0 to n - 1, but for those outside a sliding
    window. Whatever fails leaves the sequence empty.

    Args:
        context: its sequences belong to nobody else.

    Attributes:
        n_slots: number of sequences.
        has_streams: whether each sequence has cells of its own, so that a copy moves them.
        can_reuse: whether computed tokens say all about a sequence; not so for models with an
            encoder, whose text the decoder's cache depends on.
        is_stateful: whether a sequence can't be cut at all (recurrent and hybrid models).
        has_states: whether something is lost by going on that only a saved state brings back.
        needs_cells: whether a saved state continues only a sequence that still holds the cells of
            the same tokens.
    """

    def __init__(self, context: Context) -> None:
        model = context.model
        self._context, self._memory = context, context.memory
        self._n_swa = model.n_swa
        self._copied: dict[int, int] = {}
        self.n_slots = context.n_seq_max
        self.has_streams = not context.kv_unified and context.n_seq_max > 1
        self.can_reuse = context.memory.exists and not model.has_encoder
        self.is_stateful = model.is_recurrent or model.is_hybrid
        self._has_window_cells = bool(self._n_swa) and not context.swa_full
        self.has_states = self.is_stateful or self._has_window_cells
        self.needs_cells = model.is_hybrid or self._has_window_cells

    def clear(self, slot: int) -> None:
        """Forget a sequence."""
        if self._memory.exists:
            self._memory.seq_rm(slot)

    def holds(self, slot: int, n: int) -> bool:
        """Say whether a sequence ends behind its n-th token."""
        return not self.can_reuse or self._memory.seq_pos_max(slot) == n - 1

    def can_keep(self, slot: int, n_held: int, n: int) -> bool:
        """Say whether a sequence of n_held tokens, cut to n, continues as if computed anew."""
        if n == n_held:
            return True
        return not self.is_stateful and self._sees_window(slot, n)

    def _sees_window(self, slot: int, n: int) -> bool:
        """Say whether the n-th token finds all it may look at within the sliding window."""
        return not self._n_swa or 0 <= self._memory.seq_pos_min(slot) <= max(0, n - self._n_swa)

    def keep(self, slot: int, n_held: int, n: int) -> bool:
        """Cut a sequence of n_held tokens to its first n, n >= 1."""
        right = self.can_keep(slot, n_held, n) and (n == n_held or self._memory.seq_rm(slot, n))
        return self._or_clear(slot, right and self.holds(slot, n))

    def _or_clear(self, slot: int, right: bool) -> bool:
        if not right:
            self.clear(slot)
        return right

    def copy(self, source: int, target: int) -> None:
        """Put a copy of a whole sequence into another, of which all is forgotten.

        NOTE: always the whole; libllama aborts when a part is to go from stream to stream.
        """
        self.clear(target)
        self._memory.seq_cp(source, target)
        if self.has_streams:
            self._copied[source] = self._copied[target] = self._context.n_computed

    def take(self, source: int, target: int, n_held: int, n: int) -> bool:
        """Put the first n of a sequence's n_held tokens into another, n >= 1."""
        self.copy(source, target)
        if not self.keep(target, n_held, n):
            return False
        if self.has_streams or not self._has_window_cells:
            return True
        # Cells that two sequences share are never taken back from the window while both live,
        # however far they go on, and the window's cells of a pool are few.
        state = self._read(target, _ANY_SIZE, self._flags)
        if state is None or self._write(target, state, self._flags):
            return self._or_clear(target, self.holds(target, n))
        self.copy(source, target)
        return self.keep(target, n_held, n)

    @property
    def can_copy_and_load(self) -> bool:
        """Say whether a state can be loaded into a sequence that was copied in the same step.

        Cells go from stream to stream only with the next batch, and would overwrite it.
        """
        return not (self.has_streams and self._has_window_cells)

    def can_load(self, slot: int) -> bool:
        """Say whether a state can be loaded into a sequence before the next batch."""
        is_copied = self._copied.get(slot) == self._context.n_computed
        return self.can_copy_and_load or not is_copied

    @property
    def can_exchange(self) -> bool:
        """Say whether sequences may change places, and their places matter.

        With streams libllama computes only neighbours together.
        """
        return self.has_streams and not self.is_stateful

    def exchange(self, source: int, target: int) -> tuple[bool, bool]:
        """Let two sequences change places.

        Returns:
            Whether the first has gone to the second's place, else it stands as it did; and whether
            the second is still there, in its new place or its old one.
        """
        if self._context.n_computed in (self._copied.get(source), self._copied.get(target)):
            return False, True  # their cells move with the next batch
        flags = StateSeqFlags.NONE
        first, second = self._read(source, _ANY_SIZE, flags), self._read(target, _ANY_SIZE, flags)
        if first is None or second is None:
            return False, True
        if not self._replace(target, first):
            return False, self._replace(target, second)
        return True, self._replace(source, second)

    def _replace(self, slot: int, state: State) -> bool:
        # NOTE: the state of an empty sequence leaves what is there.
        self.clear(slot)
        return self._or_clear(slot, self._write(slot, state, StateSeqFlags.NONE))

    def save(self, slot: int, max_bytes: int) -> State | None:
        """Return what can't be had by cutting a sequence; None if larger than max_bytes."""
        if not self.can_load(slot):
            return None
        return self._read(slot, max_bytes, self._flags)

    def load(self, slot: int, state: State, n: int) -> bool:
        """Bring a sequence to where its state was saved, behind its n-th token.

        Args:
            slot: with `needs_cells` it holds the same n tokens and perhaps more; else whatever it
                holds is replaced.
            state: what `save` gave.
            n: number of tokens then.
        """
        done = (
            self.can_load(slot)
            and self._write(slot, state, self._flags)
            and self._memory.seq_rm(slot, n)
            and self.holds(slot, n)
            and (self.is_stateful or self._sees_window(slot, n))
        )
        return self._or_clear(slot, done)

    def _read(self, slot: int, max_bytes: int, flags: StateSeqFlags) -> State | None:
        return copy_sequence(self._context, slot, flags, max_bytes)

    def _write(self, slot: int, state: State, flags: StateSeqFlags) -> bool:
        return paste_sequence(self._context, slot, state, flags)

    @property
    def _flags(self) -> StateSeqFlags:
        return StateSeqFlags.PARTIAL_ONLY if self.needs_cells else StateSeqFlags.NONE
