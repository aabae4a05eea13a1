"""A context's memory without libllama: holds tokens where libllama holds what was computed of them,
and aborts where libllama aborts.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from llamalite.engine.slot_memory import SlotMemory

KINDS = ("dense", "sliding", "recurrent", "hybrid")
Token = tuple[int, str]


class Cells:
    """A KV cache: which positions each sequence holds, and what lies in its stream's cells.

    As in libllama positions change at once, while cells go from stream to stream only with the
    next batch, and then all that the stream has.
    """

    def __init__(self, n_seq: int, has_streams: bool) -> None:
        self.positions: list[set[int]] = [set() for _ in range(n_seq)]
        self.cells: list[dict[int, Token]] = [{} for _ in range(n_seq)]
        self.has_streams = has_streams
        self.copies: list[tuple[int, int]] = []

    def copy(self, source: int, target: int) -> None:
        self.positions[target] |= self.positions[source]
        if self.has_streams:
            self.copies.append((source, target))
        else:
            self.cells[target].update(self.cells[source])

    def settle(self) -> None:
        for source, target in self.copies:
            self.cells[target] = dict(self.cells[source])
        self.copies.clear()

    def held(self, seq: int) -> list[Token]:
        return [self.cells[seq][pos] for pos in sorted(self.positions[seq])]

    def put(self, seq: int, pos: int, tokens: Sequence[Token]) -> None:
        for offset, token in enumerate(tokens):
            self.positions[seq].add(pos + offset)
            self.cells[seq][pos + offset] = token

    def cut(self, seq: int, start: int, end: int) -> None:
        self.positions[seq] = {pos for pos in self.positions[seq] if not start <= pos < end}


class FakeContext:
    """What SlotMemory needs of a context; tokens are written with the salt they were given."""

    def __init__(self, kind: str, n_seq: int, *, unified: bool, n_swa: int = 24) -> None:
        self.kind, self.n_seq_max, self.kv_unified = kind, n_seq, unified
        self.n_computed = 0
        self.swa_full = False
        self.n_swa = n_swa if kind == "sliding" else 0
        self.model = SimpleNamespace(
            n_swa=self.n_swa,
            is_recurrent=kind == "recurrent",
            is_hybrid=kind == "hybrid",
            has_encoder=False,
        )
        self.memory = self
        self.exists = True
        self.base = Cells(n_seq, not unified and kind != "recurrent")
        self.window = Cells(n_seq, not unified)
        self.states: list[tuple[Token, ...]] = [() for _ in range(n_seq)]
        self.n_saves = 0

    def compute(self, seq: int, pos: int, tokens: Sequence[int], salt: str) -> None:
        """Compute tokens as a batch would; what lies before them must be what belongs there."""
        self.settle()
        self.n_computed += 1
        assert self.seq_pos_max(seq) == pos - 1, "a gap or an overlap of positions"
        marked = [(int(token), salt) for token in tokens]
        if self.kind != "recurrent":
            self.base.put(seq, pos, marked)
        if self.kind == "sliding":
            self.window.put(seq, pos, marked)
            slack = self.n_swa // 2
            self.window.cut(seq, 0, max(0, pos + len(tokens) - self.n_swa - slack))
        if self.kind in ("recurrent", "hybrid"):
            self.states[seq] += tuple(marked)

    def settle(self) -> None:
        self.base.settle()
        self.window.settle()

    def check(self, seq: int, tokens: Sequence[int], salt: str) -> None:
        """Say that a sequence's next token would see just these."""
        expected = [(int(token), salt) for token in tokens]
        if self.kind != "recurrent":
            assert self.base.held(seq) == expected
        if self.kind in ("recurrent", "hybrid"):
            assert list(self.states[seq]) == expected
        if self.kind == "sliding":
            seen = max(0, len(expected) - self.n_swa + 1)
            held = {pos: self.window.cells[seq][pos] for pos in self.window.positions[seq]}
            assert [held.get(pos) for pos in range(seen, len(expected))] == expected[seen:]

    def seq_rm(self, seq: int, start: int = -1, end: int = -1) -> bool:
        assert 0 <= seq < self.n_seq_max
        start, end = max(start, 0), end if end >= 0 else 2**31
        done = True
        if self.kind in ("recurrent", "hybrid"):
            n = len(self.states[seq])
            if start == 0:
                self.states[seq] = ()
            done = not 0 < start < n
        self.base.cut(seq, start, end)
        self.window.cut(seq, start, end)
        return done

    def seq_cp(self, source: int, target: int, start: int = -1, end: int = -1) -> None:
        assert start == end == -1, "libllama aborts: only whole sequences"
        assert source != target
        assert self.seq_pos_max(target) == -1, "cells of two sequences under one number"
        self.base.copy(source, target)
        self.window.copy(source, target)
        self.states[target] = self.states[source]

    def seq_pos_max(self, seq: int) -> int:
        ends = []
        if self.kind != "recurrent":
            cells = self.window if self.kind == "sliding" else self.base
            ends.append(max(cells.positions[seq], default=-1))
        if self.kind in ("recurrent", "hybrid"):
            ends.append(len(self.states[seq]) - 1)
        return min(ends)

    def seq_pos_min(self, seq: int) -> int:
        cells = self.window if self.kind == "sliding" else self.base
        return min(cells.positions[seq], default=-1)

    def save(self, seq: int) -> Any:
        self.n_saves += 1
        assert not any(target == seq for _, target in self.window.copies), "cells not there yet"
        if self.kind == "sliding":
            held = self.window.cells[seq]
            return {pos: held[pos] for pos in self.window.positions[seq]}
        return self.states[seq]

    def save_whole(self, seq: int) -> Any:
        for cells in (self.base, self.window):
            assert not any(target == seq for _, target in cells.copies), "cells not there yet"
        return [
            (cells, {pos: cells.cells[seq][pos] for pos in cells.positions[seq]})
            for cells in (self.base, self.window)
        ]

    def load_whole(self, seq: int, state: Any) -> None:
        for cells, held in state:
            assert not any(seq in pair for pair in cells.copies), "a copy would go wrong"
            if held:  # an empty state changes nothing
                cells.cut(seq, 0, 2**31)
            for pos, token in held.items():
                cells.put(seq, pos, [token])

    def load(self, seq: int, state: Any) -> None:
        if self.kind == "sliding":
            self.window.cut(seq, 0, 2**31)
            for pos, token in state.items():
                self.window.put(seq, pos, [token])
        else:
            self.states[seq] = state


class FakeMemory(SlotMemory):
    """The real rules over a fake context; a state is some bytes that stand for what was saved."""

    def __init__(self, context: FakeContext, state_bytes: int = 100) -> None:
        super().__init__(context)  # type: ignore[arg-type]
        self._fake, self._state_bytes = context, state_bytes
        self.loads_fail = False
        self._states: dict[int, Any] = {}

    def _read(self, slot: int, max_bytes: int, flags: int) -> Any:
        if self._state_bytes > max_bytes:
            return None
        state = np.zeros(self._state_bytes, np.uint8)
        save = self._fake.save_whole if self._is_whole(flags) else self._fake.save
        self._states[id(state)] = (state, save(slot))
        return state

    def _write(self, slot: int, state: Any, flags: int) -> bool:
        if self.loads_fail:
            return False
        load = self._fake.load_whole if self._is_whole(flags) else self._fake.load
        load(slot, self._states[id(state)][1])
        return True

    def _is_whole(self, flags: int) -> bool:
        return not flags and self._fake.kind in ("dense", "sliding")
