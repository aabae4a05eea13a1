"""A context's memory (KV cache or recurrent state), by sequence and position.

Imports `ffi` and `llamalite.errors`.

Source: llama_memory_*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamalite.errors import InvalidParameter

if TYPE_CHECKING:
    from llamalite.core.context import Context


class Memory:
    """Operations on what the context remembers; engine thread only.

    Positions are half-open ranges [p0, p1); p0 below 0 means 0 and p1 below 0 means the end.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lib = context.library

    @property
    def exists(self) -> bool:
        """Say whether the model keeps anything between batches; encoders don't."""
        return bool(self._lib.llama_get_memory(self._context.handle))

    @property
    def _handle(self) -> int:
        handle = self._lib.llama_get_memory(self._context.handle)
        if not handle:
            raise InvalidParameter("this model keeps no memory between batches", param="model")
        return int(handle)

    def _check(self, seq_id: int, *numbers: int) -> None:
        self._context.check_seq_id(seq_id)
        if any(not -(2**31) <= number < 2**31 for number in numbers):
            raise InvalidParameter("positions must fit 32 bits", param="pos")

    def clear(self, *, data: bool = False) -> None:
        """Forget everything; with data=True also zero the buffers."""
        self._lib.llama_memory_clear(self._handle, data)

    def seq_rm(self, seq_id: int, p0: int = -1, p1: int = -1) -> bool:
        """Remove a range of a sequence; False if this kind of memory can't cut there."""
        self._check(seq_id, p0, p1)
        return bool(self._lib.llama_memory_seq_rm(self._handle, seq_id, p0, p1))

    def seq_cp(self, source: int, target: int, p0: int = -1, p1: int = -1) -> None:
        """Let a sequence share a range of another.

        Raises:
            InvalidParameter: part of a sequence between separate streams, which libllama asserts
                on: copy the whole and cut the tail with seq_rm.
        """
        self._context.check_seq_id(source, target)
        whole = p0 <= 0 and (p1 < 0 or p1 > self.seq_pos_max(source))
        if not whole and not self._context.kv_unified:
            raise InvalidParameter(
                "only whole sequences can be copied between streams: copy (-1, -1), then seq_rm",
                param="p1",
            )
        if whole:
            p0 = p1 = -1
        self._lib.llama_memory_seq_cp(self._handle, source, target, p0, p1)

    def seq_keep(self, seq_id: int) -> None:
        """Remove all other sequences."""
        self._context.check_seq_id(seq_id)
        self._lib.llama_memory_seq_keep(self._handle, seq_id)

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        """Shift positions of a range by delta.

        Raises:
            InvalidParameter: this memory can't shift.
        """
        self._check(seq_id, p0, p1, delta)
        self._need_shift()
        self._lib.llama_memory_seq_add(self._handle, seq_id, p0, p1, delta)

    def seq_div(self, seq_id: int, p0: int, p1: int, divisor: int) -> None:
        """Divide positions of a range by a whole number above 1."""
        self._check(seq_id, p0, p1, divisor)
        self._need_shift()
        if divisor < 1:
            raise InvalidParameter("the divisor must be at least 1", param="divisor")
        self._lib.llama_memory_seq_div(self._handle, seq_id, p0, p1, divisor)

    def seq_pos_min(self, seq_id: int) -> int:
        """Return the smallest position held, or -1 if empty."""
        self._context.check_seq_id(seq_id)
        return int(self._lib.llama_memory_seq_pos_min(self._handle, seq_id))

    def seq_pos_max(self, seq_id: int) -> int:
        """Return the largest position held, or -1 if empty."""
        self._context.check_seq_id(seq_id)
        return int(self._lib.llama_memory_seq_pos_max(self._handle, seq_id))

    @property
    def can_shift(self) -> bool:
        """Say whether positions can be changed."""
        return bool(self._lib.llama_memory_can_shift(self._handle))

    def _need_shift(self) -> None:
        if not self.can_shift:
            raise InvalidParameter("this model's memory can't shift positions", param="delta")
