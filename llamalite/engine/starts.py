"""How a prompt starts: with which computed tokens, from where, or behind whom it waits.

Owns the choice between slots, snapshots and waiting. Changes nothing. Imports its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llamalite.engine.prefix import Overlap, TokenRun, Tokens
from llamalite.engine.slot_memory import SlotMemory
from llamalite.engine.snapshots import Snapshot, SnapshotStore

MIN_GAIN = 16
"""Tokens that waiting, a snapshot or moving cells must save; fewer are computed sooner."""

_MOSTLY = 0.75
"""Share of a parked sequence that must be of use to whoever takes its slot over."""


@dataclass(eq=False)
class Lease:
    """A slot in use by one sequence.

    Attributes:
        prompt: int32[n], all that is to be computed before the first token is chosen.
        salt: whose prompt it is.
        cache: whether it may use computed tokens.
        seq_id: the slot.
        n_computed: tokens in the cache.
        n_cached: tokens of the prompt that were there already.
        donor: slot of the lease it waits for, or None.
        n_awaited: tokens the donor must have computed.
        stops: counts of computed tokens at which a chunk should end, for others or a snapshot.
    """

    prompt: Tokens
    salt: str
    cache: bool
    seq_id: int = -1
    n_computed: int = 0
    n_cached: int = 0
    donor: int | None = None
    n_awaited: int = 0
    stops: set[int] = field(default_factory=set)

    @property
    def is_waiting(self) -> bool:
        """Say whether it waits for another to compute the beginning of its prompt."""
        return self.donor is not None

    @property
    def stop_at(self) -> int | None:
        """Count of computed tokens that the next chunk may reach but not cross, or None."""
        return min(self.stops, default=None)

    def add_stop(self, n: int) -> int | None:
        """Let a chunk end behind the n-th token, or a few before it, and return where.

        No chunk of a single token may come of it: its row would be rounded differently.
        """
        ends = {self.n_computed, len(self.prompt), *self.stops}
        for place in range(n, max(n - 4, self.n_computed), -1):
            if all(abs(place - end) != 1 for end in ends):
                self.stops.add(place)
                return place
        return None


@dataclass(eq=False)
class Slot:
    """A sequence of the memory: empty, parked or leased.

    Attributes:
        id: its seq_id.
        run: its tokens.
        lease: who uses it, or None.
        last_used: a count that grows with each use.
    """

    id: int
    run: TokenRun = field(default_factory=TokenRun)
    lease: Lease | None = None
    last_used: int = 0


@dataclass(frozen=True)
class Start:
    """A way to start.

    Attributes:
        n: tokens that are there already.
        source: the slot they come from, or None.
        snapshot: the state that is loaded behind them, or None.
        donor: the slot to wait for, or None.
        n_awaited: tokens it will have computed of the prompt.
        n_shared: tokens in common with any sequence, whether or not they can be used.
    """

    n: int = 0
    source: Slot | None = None
    snapshot: Snapshot | None = None
    donor: Slot | None = None
    n_awaited: int = 0
    n_shared: int = 0


def find_start(
    slots: Iterable[Slot],
    snapshots: SnapshotStore,
    memory: SlotMemory,
    prompt: Tokens,
    salt: str,
    *,
    exact: bool,
    to_empty: bool,
) -> Start:
    """Return the start that leaves least to compute.

    Args:
        slots: all; one that waits holds nothing, so it is never a source or donor.
        snapshots: saved states.
        memory: says what can be done with a slot.
        prompt: int32[n], cut to what may be reused of it.
        salt: of the prompt.
        exact: count exact tokens alone.
        to_empty: whether a slot is chosen already, so that none can be taken over.
    """
    found: list[tuple[Slot, Overlap]] = []
    for slot in slots:
        overlap = slot.run.overlap(prompt, salt, exact=exact)
        if overlap.n_later:
            found.append((slot, overlap))
    n, source = _best_slot(found, memory, to_empty)
    snapshot = None
    for candidate in snapshots.within(prompt, salt):
        if len(candidate.tokens) - n < MIN_GAIN:
            break
        cells = _cells_for(len(candidate.tokens), found, memory, to_empty)
        if cells is not None or not memory.needs_cells:
            n, source, snapshot = len(candidate.tokens), cells, candidate
            break
    n_shared = max((overlap.n_later for _, overlap in found), default=0)
    donor, n_awaited = _best_donor(found)
    if n_awaited - n < MIN_GAIN:
        donor, n_awaited = None, 0
    return Start(n, source, snapshot, donor, n_awaited, n_shared)


def _best_slot(
    found: Sequence[tuple[Slot, Overlap]], memory: SlotMemory, to_empty: bool
) -> tuple[int, Slot | None]:
    best: tuple[int, Slot | None] = 0, None
    for slot, overlap in found:
        n, is_moved = overlap.n_now, to_empty or slot.lease is not None
        # On a tie the parked one, which may be taken over.
        is_better = n > best[0] or (n == best[0] > 0 and not is_moved)
        if is_moved and memory.has_streams and n < MIN_GAIN:
            continue
        if is_better and memory.can_keep(slot.id, slot.run.n_computed, n):
            best = n, slot
    return best


def _cells_for(
    n: int, found: Sequence[tuple[Slot, Overlap]], memory: SlotMemory, to_empty: bool
) -> Slot | None:
    """Return a slot with the cells of the first n tokens that a state can be loaded onto."""
    if not memory.needs_cells:
        return None
    for slot, overlap in sorted(found, key=lambda each: each[0].lease is not None):
        is_moved = to_empty or slot.lease is not None
        can_load = memory.can_copy_and_load or (not is_moved and memory.can_load(slot.id))
        if overlap.n_now >= n and can_load:
            return slot
    return None


def _best_donor(found: Iterable[tuple[Slot, Overlap]]) -> tuple[Slot | None, int]:
    """Return who will have computed most of the prompt, the soonest on a tie, and how much."""
    best: tuple[Slot | None, int] = None, 0
    soonest = 0
    for slot, overlap in found:
        n, n_computed = overlap.n_later, slot.run.n_computed
        if slot.lease is not None and n > n_computed and (n, n_computed) > (best[1], soonest):
            best, soonest = (slot, n), n_computed
    return best


def choose_slot(start: Start, free: Sequence[Slot], memory: SlotMemory) -> Slot:
    """Return the free slot to start in: the source itself, an empty one, or that longest unused."""
    source = start.source
    if source is not None and source in free and len(free) > 1:
        is_used_up = start.n >= _MOSTLY * source.run.n_computed
        can_move = start.snapshot is None or memory.can_copy_and_load
        pays = not memory.has_streams or start.n >= MIN_GAIN
        if start.donor is None and (is_used_up or not can_move or not pays):
            return source
        free = [slot for slot in free if slot is not source]
    return min(free, key=lambda slot: (slot.last_used if slot.run.n_computed else -1, slot.id))
