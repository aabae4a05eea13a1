"""What prompts and computed tokens have in common."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamalite.engine.prefix import Overlap, TokenRun, common_prefix
from llamalite.engine.snapshots import Snapshot, SnapshotStore


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


def run_of(prompt: np.ndarray, n_computed: int) -> TokenRun:
    run = TokenRun()
    run.begin(prompt, "a", n_computed)
    return run


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_common_prefix_is_the_longest(first: list[int], second: list[int]) -> None:
    n = common_prefix(ids(*first), ids(*second))
    assert first[:n] == second[:n]
    assert n in (len(first), len(second)) or first[n] != second[n]


def test_a_run_that_is_being_computed_will_have_more() -> None:
    run = run_of(ids(1, 2, 3, 4, 5), 2)
    assert run.overlap(ids(1, 2, 3, 9), "a", exact=False) == Overlap(2, 3)
    run.append(ids(3, 4), is_exact=True)
    assert run.overlap(ids(1, 2, 3, 9), "a", exact=False) == Overlap(3, 3)
    run.end()  # the fifth never came
    assert run.overlap(ids(1, 2, 3, 4, 5), "a", exact=False) == Overlap(4, 4)


def test_another_salt_matches_nothing() -> None:
    run = run_of(ids(1, 2, 3), 3)
    assert run.overlap(ids(1, 2, 3), "b", exact=False) == Overlap()
    run.forget()
    assert run.overlap(ids(1, 2, 3), "a", exact=False) == Overlap()


def test_exact_tokens_end_where_one_came_alone() -> None:
    run = run_of(ids(1, 2, 3, 4), 2)
    run.append(ids(3, 4), is_exact=True)
    run.append(ids(5), is_exact=False)
    run.append(ids(6, 7), is_exact=True)
    prompt = ids(1, 2, 3, 4, 5, 6, 7, 8)
    assert run.overlap(prompt, "a", exact=True) == Overlap(4, 4)
    assert run.overlap(prompt, "a", exact=False) == Overlap(7, 7)
    assert list(run.computed) == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_not_exact_now_promises_nothing() -> None:
    run = run_of(ids(1, 2, 3, 4, 5), 2)
    run.append(ids(3), is_exact=False)
    assert run.overlap(ids(1, 2, 3, 4), "a", exact=True) == Overlap(2, 2)


@pytest.mark.parametrize("differ_at", [0, 4000, 8000])
def test_64_slots_of_8000_tokens_are_compared_in_a_millisecond(differ_at: int) -> None:
    prompt = np.arange(8000, dtype=np.int32)
    runs = []
    for _ in range(64):
        tokens = prompt.copy()
        tokens[differ_at:] += 1
        runs.append(run_of(tokens, 8000))
    times = []
    for _ in range(20):
        started = time.perf_counter()
        found = [run.overlap(prompt, "a", exact=False).n_now for run in runs]
        times.append(time.perf_counter() - started)
    assert found == [differ_at] * 64
    assert min(times) < 0.001


def snapshot(tokens: np.ndarray, size: int = 10, salt: str = "") -> Snapshot:
    return Snapshot(tokens, salt, np.zeros(size, np.uint8))


def test_snapshots_within_a_prompt_come_longest_first() -> None:
    store = SnapshotStore(1000)
    for n in (2, 4, 3):
        store.add(snapshot(ids(*range(n))))
    store.add(snapshot(ids(0, 1, 9)))
    store.add(snapshot(ids(0, 1, 2, 3, 4), salt="b"))
    found = [len(each.tokens) for each in store.within(ids(*range(9)), "")]
    assert found == [4, 3, 2]
    assert store.at(ids(0, 1, 2), "") is not None
    assert store.at(ids(0, 1, 2, 3, 4), "") is None


def test_the_snapshot_unused_for_longest_goes_first() -> None:
    store = SnapshotStore(30)
    first, second = snapshot(ids(1)), snapshot(ids(2))
    store.add(first)
    store.add(second)
    store.add(snapshot(ids(3)))
    store.touch(first)
    store.add(snapshot(ids(4), size=5))
    assert [len(list(store.within(ids(n), ""))) for n in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert store.n_bytes == 25
    store.add(snapshot(ids(5), size=31))
    assert (store.n_bytes, len(store)) == (0, 0)
