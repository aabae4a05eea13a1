"""The batch handed to llama_decode: numpy arrays made once and filled again every step.

Imports numpy, `ffi` and `llamalite.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llamalite.errors import InvalidBatch
from llamalite.ffi import structs


class Batch:
    """Tokens of one or many sequences for one step. Not for use by two threads at once.

    Everything added is checked, because libllama asserts on much of what is out of range.

    Args:
        capacity: most tokens it can hold, at most the context's n_batch.
        n_vocab: size of the vocabulary.
        n_seq_max: number of sequence ids the context has.
    """

    def __init__(self, capacity: int, n_vocab: int, n_seq_max: int = 1) -> None:
        if capacity < 1 or n_seq_max < 1:
            raise InvalidBatch("a batch needs room for at least one token and one sequence")
        self.capacity = capacity
        self.n_vocab = n_vocab
        self.n_seq_max = n_seq_max
        self.token = np.zeros(capacity, np.int32)
        self.pos = np.zeros(capacity, np.int32)
        self.n_seq_id = np.ones(capacity, np.int32)
        self.output = np.zeros(capacity, np.int8)
        self._seq_ids = np.zeros((capacity, n_seq_max), np.int32)
        rows = self._seq_ids.ctypes.data + np.arange(capacity, dtype=np.uint64) * np.uint64(
            self._seq_ids.strides[0]
        )
        self._rows = np.ascontiguousarray(rows, dtype=np.uint64)
        self._struct = structs.Batch(
            n_tokens=0,
            token=self.token.ctypes.data,
            embd=None,
            pos=self.pos.ctypes.data,
            n_seq_id=self.n_seq_id.ctypes.data,
            seq_id=self._rows.ctypes.data,
            logits=self.output.ctypes.data,
        )

    @property
    def n_tokens(self) -> int:
        """Number of tokens in it."""
        return int(self._struct.n_tokens)

    @property
    def struct(self) -> structs.Batch:
        """The llama_batch; its pointers live as long as this object."""
        return self._struct

    def clear(self) -> None:
        """Empty it; nothing is freed."""
        self._struct.n_tokens = 0

    def add(
        self, token: int, pos: int, seq_ids: Sequence[int] = (0,), *, output: bool = False
    ) -> int:
        """Append one token and return its row.

        Args:
            token: token id.
            pos: its position in its sequences, from 0.
            seq_ids: the sequences it belongs to.
            output: whether logits (or an embedding) are wanted for it.

        Raises:
            InvalidBatch: it doesn't fit, or an id is out of range.
        """
        row = self._struct.n_tokens
        if row >= self.capacity:
            raise InvalidBatch(f"the batch is full at {self.capacity} tokens: decode it first")
        if not 0 <= token < self.n_vocab:
            raise InvalidBatch(f"token {token} is not in the vocabulary of {self.n_vocab} tokens")
        if pos < 0 or not 0 < len(seq_ids) <= self.n_seq_max:
            raise InvalidBatch(f"position {pos} or sequences {list(seq_ids)} are out of range")
        for column, seq_id in enumerate(seq_ids):
            if not 0 <= seq_id < self.n_seq_max:
                raise InvalidBatch(f"sequence {seq_id} is not below {self.n_seq_max}")
            self._seq_ids[row, column] = seq_id
        self.token[row] = token
        self.pos[row] = pos
        self.n_seq_id[row] = len(seq_ids)
        self.output[row] = output
        self._struct.n_tokens = row + 1
        return int(row)

    def extend(
        self,
        tokens: npt.NDArray[np.int32],
        pos: int,
        seq_id: int = 0,
        *,
        outputs: str = "none",
    ) -> None:
        """Append consecutive tokens of one sequence.

        Args:
            tokens: int32[n].
            pos: position of the first.
            seq_id: the sequence.
            outputs: rows wanted: "none", "last" or "all".

        Raises:
            InvalidBatch: they don't fit, or an id is out of range.
        """
        start, count = self._struct.n_tokens, len(tokens)
        if start + count > self.capacity:
            raise InvalidBatch(
                f"{count} more tokens don't fit a batch of {self.capacity} that holds {start}"
            )
        if not 0 <= seq_id < self.n_seq_max or pos < 0:
            raise InvalidBatch(f"position {pos} or sequence {seq_id} is out of range")
        if count and not (int(tokens.min()) >= 0 and int(tokens.max()) < self.n_vocab):
            raise InvalidBatch(f"a token is not in the vocabulary of {self.n_vocab} tokens")
        rows = slice(start, start + count)
        self.token[rows] = tokens
        self.pos[rows] = np.arange(pos, pos + count)
        self.n_seq_id[rows] = 1
        self._seq_ids[rows, 0] = seq_id
        self.output[rows] = outputs == "all"
        if outputs == "last" and count:
            self.output[start + count - 1] = 1
        self._struct.n_tokens = start + count
