"""Slots: which sequence of the memory belongs to whom, and whose computed tokens it starts with.

A slot is empty, parked (its sequence has ended, its cells are kept for prompts that begin alike)
or leased. A lease whose prompt another one is computing right now waits for it, its donor; when
the donor has got there, the donor's sequence is copied as it is at that moment, which is right
for every kind of memory.

Owns leases and what becomes of cells. Doesn't know requests, batches or when a step is computed.
Imports numpy and its siblings.
"""

from __future__ import annotations

import numpy as np

from llamalite.engine.prefix import Tokens
from llamalite.engine.slot_memory import SlotMemory
from llamalite.engine.snapshots import Snapshot, SnapshotStore
from llamalite.engine.starts import MIN_GAIN, Lease, Slot, Start, choose_slot, find_start
from llamalite.errors import InvalidParameter

__all__ = ["Lease", "SlotMemory", "SlotTable"]

_SNAPSHOT_BYTES = 256 << 20


class SlotTable:
    """Leases the sequences of a memory and reuses what they hold; one thread.

    Args:
        memory: the sequences, all empty.
        n_slots: how many of them to use.
        reuse: "all", "exact" or "off", see EngineOptions. "exact" keeps its word where rows don't
            depend on how a prompt is cut into chunks: on the CPU without flash attention.
        min_tail: tokens of a prompt that are always computed anew, at least 1.
        snapshot_bytes: most memory for saved states of models whose cache can't be cut at will.

    Raises:
        InvalidParameter: the memory has fewer sequences.
    """

    def __init__(
        self,
        memory: SlotMemory,
        n_slots: int,
        *,
        reuse: str = "all",
        min_tail: int = 2,
        snapshot_bytes: int = _SNAPSHOT_BYTES,
    ) -> None:
        if not 1 <= n_slots <= memory.n_slots:
            raise InvalidParameter(
                f"{n_slots} slots can't be had of {memory.n_slots} sequences", param="n_slots"
            )
        self._memory = memory
        self._slots = [Slot(number) for number in range(n_slots)]
        self._reuses = reuse != "off" and memory.can_reuse
        self._exact = reuse == "exact"
        self._min_tail = max(min_tail, 1)
        self._snapshots = SnapshotStore(snapshot_bytes)
        self._clock = 0

    @property
    def n_leased(self) -> int:
        """Slots in use."""
        return sum(slot.lease is not None for slot in self._slots)

    @property
    def n_parked(self) -> int:
        """Ended sequences that are kept."""
        return len(self._parked())

    @property
    def n_cells_used(self) -> int:
        """Tokens in all slots; those in shared cells count for each."""
        return sum(slot.run.n_computed for slot in self._slots)

    @property
    def n_snapshot_bytes(self) -> int:
        """Size of the saved states."""
        return self._snapshots.n_bytes

    def tokens_in(self, seq_id: int) -> Tokens:
        """Return the tokens a slot holds, int32[n]; a view."""
        return self._slots[seq_id].run.computed

    def acquire(self, prompt: Tokens, salt: str, *, cache: bool = True) -> Lease | None:
        """Lease a slot that holds as much of a prompt as can be had; None if none is free.

        Args:
            prompt: int32[n], n >= 1; for a resumed sequence its answer so far belongs to it.
            salt: only what was computed for the same salt is used.
            cache: False to compute all of it.
        """
        free = [slot for slot in self._slots if slot.lease is None]
        if not free:
            return None
        lease = Lease(np.array(prompt, np.int32), salt, cache)
        start = self._find(lease, to_empty=False)
        slot = choose_slot(start, free, self._memory)
        slot.lease, lease.seq_id = lease, slot.id
        self._begin(slot, lease, start)
        return lease

    def advance(self, lease: Lease, tokens: Tokens, *, decoded: bool) -> None:
        """Note that a batch has put tokens into a lease's slot, behind those it held.

        Args:
            lease: one that doesn't wait.
            tokens: int32[n].
            decoded: whether it was the row of an answer's token, not a chunk of a prompt.
        """
        slot = self._slot_of(lease)
        if lease.is_waiting:
            raise InvalidParameter("a lease that waits has no cells to add to", param="lease")
        slot.run.append(tokens, is_exact=not decoded and len(tokens) > 1)
        n = lease.n_computed = slot.run.n_computed
        if n in lease.stops:
            self._save(slot)
        lease.stops = {stop for stop in lease.stops if stop > n}
        self._wake(slot, n)

    def release(self, lease: Lease, *, keep: bool = True) -> None:
        """End a lease; with `keep` what it computed is parked for prompts that begin alike."""
        slot = self._slot_of(lease)
        slot.lease = lease.donor = None
        self._use(slot)
        n = slot.run.n_computed
        # A batch that was stopped half-way may have left more than was noted.
        if keep and self._reuses and n and self._memory.keep(slot.id, n, n):
            slot.run.end()
        else:
            self._empty(slot)
        self._wake(slot)

    def make_room(self) -> bool:
        """Forget the parked sequence that was of no use for longest; False if there is none."""
        parked = self._parked()
        if parked:
            self._empty(min(parked, key=lambda slot: slot.last_used))
        return bool(parked)

    def pack(self) -> bool:
        """Move a leased slot next to the others if there is a gap between them.

        PERF: with streams libllama computes only neighbours together, and a batch for each group.
        """
        leased = [slot for slot in self._slots if slot.lease is not None]
        if not self._memory.can_exchange or len(leased) < 2:
            return False
        first, last = leased[0], leased[-1]
        gaps = [slot for slot in self._slots[first.id : last.id] if slot.lease is None]
        if not gaps:
            return False
        mover = min(first, last, key=_size)
        return self._exchange(mover, min(gaps, key=_size))

    def _exchange(self, leased: Slot, free: Slot) -> bool:
        moved, kept = self._memory.exchange(leased.id, free.id)
        if not kept:
            free.run.forget()
        if moved:
            places = {leased.id: free.id, free.id: leased.id}
            leased.id, free.id = free.id, leased.id
            self._slots.sort(key=lambda slot: slot.id)
            for lease in [slot.lease for slot in self._slots if slot.lease is not None]:
                lease.seq_id = places.get(lease.seq_id, lease.seq_id)
                if lease.donor is not None:
                    lease.donor = places.get(lease.donor, lease.donor)
        return moved

    def _parked(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.lease is None and slot.run.n_computed]

    def _slot_of(self, lease: Lease) -> Slot:
        slot = self._slots[lease.seq_id]
        if slot.lease is not lease:
            raise InvalidParameter("this lease has ended", param="lease")
        return slot

    def _use(self, slot: Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock

    def _empty(self, slot: Slot) -> None:
        self._memory.clear(slot.id)
        slot.run.forget()

    def _find(self, lease: Lease, *, to_empty: bool) -> Start:
        prompt = lease.prompt[: max(len(lease.prompt) - self._min_tail, 0)]
        if not (self._reuses and lease.cache and len(prompt)):
            return Start()
        return find_start(
            self._slots, self._snapshots, self._memory, prompt, lease.salt,
            exact=self._exact, to_empty=to_empty,
        )  # fmt: skip

    def _begin(self, slot: Slot, lease: Lease, start: Start) -> None:
        """Fill a leased slot as found, or let the lease wait."""
        self._use(slot)
        if start.donor is not None and start.donor.lease is not None:
            awaited = start.donor.lease.add_stop(start.n_awaited)
            if awaited is not None:
                self._empty(slot)
                lease.donor, lease.n_awaited = start.donor.id, awaited
                return
        n = self._fill(slot, start)
        slot.run.begin(lease.prompt, lease.salt, n)
        lease.n_computed = lease.n_cached = n
        if self._reuses and self._memory.has_states:
            self._plan_snapshots(lease, start.n_shared)

    def _fill(self, slot: Slot, start: Start) -> int:
        """Bring cells and state into a slot; return how many tokens it holds then."""
        memory, source, n = self._memory, start.source, start.n
        if source is not None:
            self._use(source)
        if start.snapshot is not None:
            self._snapshots.touch(start.snapshot)
            if source is not None and source is not slot:
                memory.copy(source.id, slot.id)
            done = memory.load(slot.id, start.snapshot.state, n)
        elif source is slot:
            done = memory.keep(slot.id, slot.run.n_computed, n)
        elif source is not None:
            done = memory.take(source.id, slot.id, source.run.n_computed, n)
        else:
            memory.clear(slot.id)
            done = False
        return n if done else 0

    def _plan_snapshots(self, lease: Lease, n_shared: int) -> None:
        """Stop where a state will be of use: at a shared prefix, and for the prompt once more."""
        points = {n_shared}
        if self._memory.is_stateful:
            points.add(len(lease.prompt) - self._min_tail)
        for point in points:
            if point - lease.n_computed >= MIN_GAIN:
                lease.add_stop(point)

    def _save(self, slot: Slot) -> None:
        run = slot.run
        is_good = not self._exact or run.n_exact == run.n_computed
        if not (self._reuses and self._memory.has_states and is_good):
            return
        known = self._snapshots.at(run.computed, run.salt)
        if known is not None:
            self._snapshots.touch(known)
            return
        state = self._memory.save(slot.id, self._snapshots.max_bytes)
        if state is not None:
            self._snapshots.add(Snapshot(run.computed.copy(), run.salt, state))

    def _wake(self, donor: Slot, n: int | None = None) -> None:
        """Start the leases that waited for a slot to hold n tokens; None = all that wait for it."""
        for slot in self._slots:
            lease = slot.lease
            if lease is None or lease.donor != donor.id:
                continue
            if n is None or lease.n_awaited <= n:
                lease.donor = None
                self._begin(slot, lease, self._find(lease, to_empty=True))


def _size(slot: Slot) -> int:
    return slot.run.n_computed
