"""Leases, reuse and waiting, over a memory that tells what it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.fake_memory import KINDS, FakeContext, FakeMemory

from llamalite.engine.slots import Lease, SlotTable
from llamalite.errors import InvalidParameter

LAYOUTS = pytest.mark.parametrize("unified", [True, False], ids=["pool", "streams"])
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


class Bench:
    """A slot table over a fake context, and the loop that an engine would be."""

    def __init__(self, kind: str = "dense", n_slots: int = 3, unified: bool = True, **how: Any):
        self.context = FakeContext(kind, n_slots, unified=unified)
        self.memory = FakeMemory(self.context)
        self.table = SlotTable(self.memory, n_slots, **how)

    def acquire(self, prompt: list[int], salt: str = "", cache: bool = True) -> Lease:
        lease = self.table.acquire(np.array(prompt, np.int32), salt, cache=cache)
        assert lease is not None
        return lease

    def chunk(self, lease: Lease, n: int = 10**6) -> None:
        """Compute the next part of a prompt, no further than the lease allows."""
        start, end = lease.n_computed, min(lease.n_computed + n, len(lease.prompt))
        if lease.stop_at is not None:
            end = min(end, lease.stop_at)
        self.put(lease, lease.prompt[start:end], decoded=False)

    def put(self, lease: Lease, tokens: Any, decoded: bool) -> None:
        held = self.table.tokens_in(lease.seq_id)
        self.context.settle()
        self.context.check(lease.seq_id, held, lease.salt)
        self.context.compute(lease.seq_id, lease.n_computed, tokens, lease.salt)
        self.table.advance(lease, np.asarray(tokens, np.int32), decoded=decoded)

    def prefill(self, lease: Lease) -> None:
        while lease.n_computed < len(lease.prompt):
            self.chunk(lease)

    def answer(self, lease: Lease, tokens: list[int]) -> None:
        for token in tokens:
            self.put(lease, [token], decoded=True)

    def serve(self, prompt: list[int], answer: list[int] | None = None, **how: Any) -> int:
        """Take a prompt through to its end and return how much of it was there already."""
        lease = self.acquire(prompt, **how)
        self.prefill(lease)
        self.answer(lease, answer or [])
        self.table.release(lease)
        return lease.n_cached


def system(n: int = 100) -> list[int]:
    return list(range(n))


@ALL_KINDS
@LAYOUTS
def test_the_next_turn_computes_only_what_is_new(kind: str, unified: bool) -> None:
    bench = Bench(kind, unified=unified)
    prompt, answer = system(), [7, 8, 9]
    assert bench.serve(prompt, answer) == 0
    assert bench.serve([*prompt, *answer, 1, 2, 3]) == 103
    assert bench.table.n_parked == 1  # its slot was taken over


@ALL_KINDS
@LAYOUTS
def test_the_same_prompt_again_computes_its_last_two_tokens(kind: str, unified: bool) -> None:
    bench = Bench(kind, unified=unified)
    prompt = system()
    bench.serve(prompt, [7] * 5)
    assert bench.serve(prompt) == 98


@ALL_KINDS
@LAYOUTS
def test_a_common_beginning_serves_the_third_prompt_at_the_latest(kind: str, unified: bool) -> None:
    bench = Bench(kind, n_slots=4, unified=unified)
    answer = [7] * 60  # more than a sliding window remembers
    first, *others = (bench.serve([*system(), *[tail] * 20], answer) for tail in (501, 502, 503))
    assert first == 0
    assert others == ([100, 100] if kind == "dense" else [0, 100])


@ALL_KINDS
@LAYOUTS
def test_prompts_that_arrive_at_once_compute_a_common_beginning_once(
    kind: str, unified: bool
) -> None:
    bench = Bench(kind, n_slots=5, unified=unified)
    donor, *others = (bench.acquire([*system(), *[500 + i] * 8]) for i in range(5))
    assert not donor.is_waiting
    assert donor.stop_at == 100
    assert all(lease.is_waiting for lease in others)
    bench.chunk(donor, 64)
    assert all(lease.is_waiting for lease in others)
    bench.chunk(donor, 64)
    assert not any(lease.is_waiting for lease in others)
    assert [lease.n_cached for lease in others] == [100] * 4
    for lease in (donor, *others):
        bench.prefill(lease)


@ALL_KINDS
def test_equal_prompts_share_all_but_two_tokens(kind: str) -> None:
    bench = Bench(kind)
    donor, *others = (bench.acquire(system()) for _ in range(3))
    assert donor.stop_at == 98
    bench.chunk(donor)
    assert [lease.n_cached for lease in others] == [98, 98]


def test_waiting_goes_on_behind_one_that_waited() -> None:
    bench = Bench(n_slots=3)
    long = [*system(), *range(600, 640)]
    first = bench.acquire([*system(), 500, 500])
    second = bench.acquire([*long, 501, 501])
    third = bench.acquire([*long, 502, 502])
    assert (second.donor, third.donor) == (first.seq_id, first.seq_id)
    bench.prefill(first)
    assert (second.n_cached, third.donor) == (100, second.seq_id)
    bench.prefill(second)
    assert third.n_cached == 140


@ALL_KINDS
@pytest.mark.parametrize("keep", [True, False])
def test_a_donor_that_ends_early_leaves_its_part_and_the_next_goes_on(
    kind: str, keep: bool
) -> None:
    bench = Bench(kind)
    donor, second, third = (bench.acquire([*system(), *[500 + i] * 8]) for i in range(3))
    bench.chunk(donor, 40)
    bench.table.release(donor, keep=keep)
    assert second.n_cached == (40 if keep else 0)
    assert third.donor == second.seq_id
    bench.prefill(second)
    assert third.n_cached == 100


def test_little_is_not_waited_for() -> None:
    bench = Bench()
    bench.acquire([*system(15), *[500] * 20])
    lease = bench.acquire([*system(15), *[501] * 20])
    assert not lease.is_waiting


def test_salts_do_not_mix() -> None:
    bench = Bench()
    running = bench.acquire(system(), "a")
    assert not bench.acquire(system(), "b").is_waiting
    bench.prefill(running)
    bench.table.release(running)
    assert bench.acquire(system(), "c").n_cached == 0


def test_no_cache_means_all_is_computed() -> None:
    bench = Bench()
    bench.serve(system())
    assert bench.serve(system(), cache=False) == 0
    assert bench.serve(system()) == 98  # what it computed serves others


def test_reuse_off_keeps_nothing() -> None:
    bench = Bench(reuse="off")
    bench.serve(system())
    assert (bench.serve(system()), bench.table.n_parked, bench.table.n_cells_used) == (0, 0, 0)


@ALL_KINDS
def test_exact_reuse_ends_before_the_answer(kind: str) -> None:
    bench = Bench(kind, reuse="exact")
    bench.serve(system(), [7, 8, 9])
    reusable = 100 if kind in ("dense", "sliding") else 98  # 98: its snapshot
    assert bench.serve([*system(), 7, 8, 9, 1, 2]) == reusable


def test_a_chunk_of_one_token_ends_what_is_exact() -> None:
    bench = Bench(reuse="exact")
    lease = bench.acquire(system())
    bench.chunk(lease, 50)
    bench.chunk(lease, 1)
    bench.prefill(lease)
    bench.table.release(lease)
    assert bench.serve(system()) == 50


def test_a_short_prompt_is_computed() -> None:
    bench = Bench()
    assert bench.serve([5]) == 0
    assert bench.serve([5]) == 0
    assert bench.serve([5, 6]) == 0
    assert bench.serve([5, 6, 7]) == 1


def test_no_slot_is_free() -> None:
    bench = Bench(n_slots=1)
    lease = bench.acquire([1, 2])
    assert bench.table.acquire(np.array([3], np.int32), "") is None
    bench.table.release(lease)
    bench.acquire([3])


def test_the_slot_unused_for_longest_is_taken() -> None:
    bench = Bench(n_slots=3)
    for first in (100, 200, 300):
        bench.serve([first + i for i in range(20)])
    bench.serve([100 + i for i in range(20)])
    assert bench.serve([400, 401, 402]) == 0  # in place of 200
    assert bench.serve([100 + i for i in range(20)]) == 18
    assert bench.serve([300 + i for i in range(20)]) == 18


def test_what_ended_last_or_was_of_use_is_kept() -> None:
    bench = Bench(n_slots=4)
    first, second = (bench.acquire([tail] * 40) for tail in (100, 200))
    for lease in (first, second):
        bench.prefill(lease)
    bench.table.release(second)
    bench.table.release(first)
    bench.serve([*[200] * 20, *[201] * 20])  # a beginning is copied from the second
    assert bench.table.make_room()
    assert [bench.serve([tail] * 41) for tail in (200, 100)] == [39, 0]


def test_a_parked_sequence_survives_who_needs_only_its_beginning() -> None:
    bench = Bench(n_slots=2)
    bench.serve([*system(), *[500] * 100])
    assert bench.serve([*system(), *[501] * 100]) == 100
    assert bench.serve([*system(), *[500] * 102]) == 200


def test_room_is_made_from_what_was_unused_for_longest() -> None:
    bench = Bench(n_slots=3)
    bench.serve([1] * 20)
    bench.serve([2] * 20)
    running = bench.acquire([3] * 20)
    bench.prefill(running)
    assert bench.table.n_cells_used == 60
    assert bench.table.make_room()
    assert bench.table.n_cells_used == 40
    assert bench.table.make_room()
    assert not bench.table.make_room()
    assert list(bench.table.tokens_in(running.seq_id)) == [3] * 20


def test_chunks_of_one_token_are_avoided() -> None:
    bench = Bench(n_slots=5)
    donor = bench.acquire(system())
    for n in (99, 98, 97, 96):
        bench.acquire([*system(n), 500, 500])
    ends = {0, 100, *donor.stops}
    gaps = np.diff(sorted(ends))
    assert gaps.min() > 1
    bench.prefill(donor)


def test_what_was_left_unsure_is_not_kept() -> None:
    bench = Bench()
    lease = bench.acquire(system())
    bench.prefill(lease)
    bench.context.compute(lease.seq_id, 100, [1, 2, 3], "")  # a batch that failed half-way
    bench.table.release(lease)
    assert bench.table.n_parked == 0
    assert bench.context.seq_pos_max(lease.seq_id) == -1


@pytest.mark.parametrize("kind", ["sliding", "recurrent", "hybrid"])
def test_states_too_large_are_done_without(kind: str) -> None:
    bench = Bench(kind, snapshot_bytes=99)
    bench.serve(system(), [7] * 60)
    assert bench.serve(system()) == 0
    assert bench.table.n_snapshot_bytes == 0


def test_dense_models_need_no_states() -> None:
    bench = Bench()
    bench.serve(system(), [7] * 60)
    bench.serve(system())
    assert bench.context.n_saves == 0


@LAYOUTS
@pytest.mark.parametrize("n_answer", range(0, 40, 3))
def test_a_window_is_cut_no_further_than_it_remembers(unified: bool, n_answer: int) -> None:
    bench = Bench("sliding", unified=unified)
    bench.serve(system(), [7] * n_answer)
    bench.serve([*system(90), 1, 2, 3])


@ALL_KINDS
@LAYOUTS
def test_a_state_is_not_loaded_onto_cells_of_other_tokens(kind: str, unified: bool) -> None:
    bench = Bench(kind, unified=unified)
    for tail in (501, 502):
        bench.serve([*system(), *[tail] * 20], [7] * 60)
    while bench.table.make_room():
        pass
    bench.serve([*system(50), *[503] * 60], [7] * 60)
    bench.serve([*system(), *[504] * 20])


@pytest.mark.parametrize("kind", ["sliding", "recurrent", "hybrid"])
def test_a_state_that_cannot_be_loaded_is_computed_anew(kind: str) -> None:
    bench = Bench(kind)
    for tail in (501, 502):
        bench.serve([*system(), *[tail] * 20], [7] * 60)
    bench.memory.loads_fail = True
    assert bench.serve([*system(), *[503] * 20]) == 0
    bench.memory.loads_fail = False
    assert bench.serve([*system(), *[504] * 20]) == 100


@LAYOUTS
def test_a_state_is_not_loaded_where_a_copy_is_under_way(unified: bool) -> None:
    bench = Bench("sliding", unified=unified)
    for tail in (501, 502):
        bench.serve([*system(60), *[tail] * 20], [7] * 60)  # now there is a state at 60
    while bench.table.make_room():
        pass
    donor = bench.acquire([*system(), 503, 503])
    waiting = bench.acquire([*system(), 504, 504])
    bench.chunk(donor)
    bench.table.release(donor)  # its cells are on their way to the other
    third = bench.acquire([*system(60), *[505] * 9])
    assert third.n_cached == (60 if unified else 0)
    bench.prefill(waiting)
    bench.prefill(third)


@pytest.mark.parametrize("kind", ["dense", "sliding"])
def test_streams_that_run_are_brought_side_by_side_and_nothing_is_lost(kind: str) -> None:
    """One of them has nothing computed yet; the gaps hold parked sequences, or nothing."""
    bench = Bench(kind, n_slots=4, unified=False)
    prompts = [[number] * 30 for number in range(1, 5)]
    leases = [bench.acquire(prompt) for prompt in prompts]
    for lease in leases[:3]:
        bench.prefill(lease)
    bench.table.release(leases[1])
    bench.table.release(leases[2], keep=False)
    while bench.table.pack():
        pass
    assert abs(leases[0].seq_id - leases[3].seq_id) == 1
    bench.answer(leases[0], [7])
    bench.prefill(leases[3])
    assert bench.serve(prompts[1]) == 28


def test_a_pool_has_no_neighbours() -> None:
    bench = Bench(n_slots=3)
    leases = [bench.acquire([number] * 30) for number in range(3)]
    bench.table.release(leases[1])
    assert not bench.table.pack()


def test_ended_and_waiting_leases_are_refused() -> None:
    bench = Bench()
    donor, waiting = bench.acquire(system()), bench.acquire(system())
    with pytest.raises(InvalidParameter, match="waits"):
        bench.table.advance(waiting, np.array([1], np.int32), decoded=False)
    bench.table.release(donor)
    with pytest.raises(InvalidParameter, match="ended"):
        bench.table.release(donor)
    with pytest.raises(InvalidParameter, match="4 slots"):
        SlotTable(FakeMemory(bench.context), 4)
