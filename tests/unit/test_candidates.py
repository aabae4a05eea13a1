"""The largest logits are found, whatever stands around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamalite.core.candidates import candidates_of, largest, nucleus, peak, possible
from llamalite.errors import FatalDecode


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 7, 31, 32, 512, 5000, 32_003]),
    share=st.floats(0.0, 1.0),
    values=st.sampled_from(["wide", "ties", "mostly -inf", "equal"]),
)
def test_largest_are_those_of_a_stable_sort(
    seed: int, size: int, share: float, values: str
) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(size) * 4).astype(np.float32)
    if values == "ties":
        logits = np.round(logits)
    elif values == "mostly -inf":
        logits[rng.random(size) < 0.999] = -np.inf
    elif values == "equal":
        logits[:] = 1.5
    k = max(1, round(size * share**4))
    expected = np.argsort(-logits, kind="stable")[:k]
    expected = expected[logits[expected] > -np.inf]
    assert largest(logits, k).tolist() == expected.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_noticed_wherever_it_stands(bad: float) -> None:
    for place in (0, 57, -1):
        logits = np.linspace(-1, 1, 100, dtype=np.float32)
        assert peak(logits) == 1.0
        logits[place] = bad
        with pytest.raises(FatalDecode, match="not numbers"):
            peak(logits)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 40, 512, 20_000]),
    p=st.sampled_from([0.0, 0.3, 0.95, 0.9999, 1.0]),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
    min_keep=st.sampled_from([0, 1, 5, 1000]),
    n_forbidden=st.sampled_from([0, 39]),
)
def test_nucleus_is_the_shortest_run_of_the_likeliest(
    seed: int, size: int, p: float, spread: float, min_keep: int, n_forbidden: int
) -> None:
    logits = (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)
    logits[1 : 1 + n_forbidden] = -np.inf
    found = nucleus(logits, p, min_keep)
    order = np.argsort(-logits, kind="stable")[: (logits > -np.inf).sum()]
    assert found.tolist() == order[: len(found)].tolist()
    weights = np.exp(logits.astype(np.float64))
    weights /= weights.sum()
    slack = 1e-5
    enough = max(1, min(min_keep, len(order)))
    assert len(found) >= enough
    assert len(found) == len(order) or weights[found].sum() >= p - slack
    assert len(found) == enough or weights[found[:-1]].sum() < p + slack


def test_possible_leaves_out_minus_infinity() -> None:
    assert possible(np.array([1.0, -3e38], np.float32)) is None
    found = possible(np.array([-np.inf, 2.0, -np.inf, -5.0], np.float32))
    assert found is not None
    assert found.tolist() == [1, 3]


def test_candidates_carry_ids_and_logits() -> None:
    logits = np.array([0.5, 1.5, 2.5], np.float32)
    assert candidates_of(logits)["id"].tolist() == [0, 1, 2]
    some = candidates_of(logits, np.array([2, 0]))
    assert some["id"].tolist() == [2, 0]
    assert some["logit"].tolist() == [2.5, 0.5]
