"""The slot table under any course of events, against a memory that tells what it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.fake_memory import KINDS, FakeContext, FakeMemory

from llamalite.engine.slots import Lease, SlotTable

STEMS = [[stem] * 40 + [stem + 1] * 30 for stem in (10, 20)]
"""Prompts begin with part of one of these, so that they have much in common and then differ."""

prompts = st.builds(
    lambda stem, n, tail: [*stem[:n], *tail],
    st.sampled_from(STEMS),
    st.integers(0, 70),
    st.lists(st.integers(0, 2), min_size=1, max_size=30),
)


class Sequences(RuleBasedStateMachine):
    """Sequences come, are computed in chunks, answer, end, are preempted or cancelled."""

    @initialize(
        kind=st.sampled_from(KINDS),
        unified=st.booleans(),
        reuse=st.sampled_from(["all", "all", "exact", "off"]),
        n_slots=st.integers(1, 4),
        snapshot_bytes=st.sampled_from([0, 250, 10_000]),
    )
    def start(self, kind: str, unified: bool, reuse: str, **sizes: int) -> None:
        self.n_slots = sizes["n_slots"]
        self.context = FakeContext(kind, self.n_slots, unified=unified)
        self.memory = FakeMemory(self.context)
        self.table = SlotTable(
            self.memory, self.n_slots, reuse=reuse, snapshot_bytes=sizes["snapshot_bytes"]
        )
        self.reuse = reuse
        self.leases: list[Lease] = []
        self.told: dict[Lease, list[int]] = {}

    def ready(self, *, prompt_left: bool | None = None) -> list[Lease]:
        return [
            lease
            for lease in self.leases
            if not lease.is_waiting and prompt_left in (None, lease.n_computed < len(lease.prompt))
        ]

    def put(self, lease: Lease, tokens: Any, decoded: bool, look: bool = True) -> None:
        self.context.compute(lease.seq_id, lease.n_computed, tokens, lease.salt)
        if look:
            self.context.check(lease.seq_id, [*self.told[lease], *tokens], lease.salt)
        self.told[lease] += [int(token) for token in tokens]
        self.table.advance(lease, np.asarray(tokens, np.int32), decoded=decoded)
        assert lease.n_computed == len(self.told[lease])

    @precondition(lambda self: len(self.leases) < self.n_slots)
    @rule(prompt=prompts, salt=st.sampled_from(["", "", "other"]), cache=st.booleans())
    def arrive(self, prompt: list[int], salt: str, cache: bool) -> None:
        lease = self.table.acquire(np.array(prompt, np.int32), salt, cache=cache)
        assert lease is not None, "a slot leaked"
        assert not (lease.is_waiting and (self.reuse == "off" or not cache))
        self.leases.append(lease)

    @precondition(lambda self: len(self.leases) + 1 < self.n_slots)
    @rule(stem=st.sampled_from(STEMS), n=st.integers(16, 70), n_tail=st.integers(1, 30))
    def arrive_alike(self, stem: list[int], n: int, n_tail: int) -> None:
        for tail in range(self.n_slots - len(self.leases)):
            self.arrive([*stem[:n], *[tail] * n_tail], "", True)

    @rule(fail=st.booleans())
    def trouble(self, fail: bool) -> None:
        self.memory.loads_fail = fail

    @rule(at=st.integers(0, 10), n=st.integers(1, 50), heeds=st.booleans())
    def prefill(self, at: int, n: int, heeds: bool) -> None:
        ready = self.ready(prompt_left=True)
        if not ready:
            return
        lease = ready[at % len(ready)]
        end = min(lease.n_computed + n, len(lease.prompt))
        if lease.stop_at is not None and heeds:
            assert lease.stop_at > lease.n_computed
            end = min(end, lease.stop_at)
        self.put(lease, lease.prompt[lease.n_computed : end], decoded=False)

    @rule(at=st.integers(0, 10), tokens=st.lists(st.integers(0, 2), min_size=1, max_size=40))
    def answer(self, at: int, tokens: list[int]) -> None:
        ready = self.ready(prompt_left=False)
        if ready:
            for index, token in enumerate(tokens):
                self.put(ready[at % len(ready)], [token], decoded=True, look=not index)

    @rule(at=st.integers(0, 10), keep=st.booleans(), again=st.booleans())
    def end(self, at: int, keep: bool, again: bool) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(at % len(self.leases))
        self.table.release(lease, keep=keep)
        told = self.told.pop(lease, [])
        if again and len(told) >= len(lease.prompt):  # preempted; it comes back with its answer
            self.arrive([*told, 1], lease.salt, True)

    @rule()
    def make_room(self) -> None:
        n_parked = self.table.n_parked
        assert self.table.make_room() == (n_parked > 0)
        assert self.table.n_parked == max(n_parked - 1, 0)

    @rule()
    def pack(self) -> None:
        before = sorted(lease.seq_id for lease in self.leases)
        if self.table.pack():
            after = sorted(lease.seq_id for lease in self.leases)
            assert after[-1] - after[0] < before[-1] - before[0]

    @invariant()
    def holds_together(self) -> None:
        if not hasattr(self, "leases"):
            return
        assert len({lease.seq_id for lease in self.leases}) == len(self.leases)
        assert self.table.n_leased == len(self.leases)
        assert self.table.n_leased + self.table.n_parked <= self.n_slots
        by_slot = {lease.seq_id: lease for lease in self.leases}
        for lease in self.leases:
            if lease.donor is not None:
                donor = by_slot[lease.donor]
                assert not donor.is_waiting
                assert lease.n_awaited in donor.stops
                assert lease.salt == donor.salt
                assert self.context.seq_pos_max(lease.seq_id) == -1
            elif lease not in self.told:
                self.begin(lease)
        for seq_id in range(self.n_slots):
            n_held = len(self.table.tokens_in(seq_id))
            assert self.context.seq_pos_max(seq_id) == n_held - 1

    def begin(self, lease: Lease) -> None:
        """Note with what a lease starts; whether that is right shows at its first batch."""
        assert lease.n_cached == lease.n_computed <= max(len(lease.prompt) - 2, 0)
        assert not lease.n_cached or (lease.cache and self.reuse != "off")
        self.told[lease] = [int(token) for token in lease.prompt[: lease.n_cached]]

    def teardown(self) -> None:
        """All that wait come through if the others are computed."""
        if not hasattr(self, "leases"):
            return
        for _ in range(20 * self.n_slots):
            self.holds_together()
            for lease in self.ready(prompt_left=True):
                self.prefill(self.ready(prompt_left=True).index(lease), 50, True)
                self.holds_together()
        assert all(lease.n_computed >= len(lease.prompt) for lease in self.leases)


Sequences.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_sequences = Sequences.TestCase
