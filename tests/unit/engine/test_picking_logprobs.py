"""Log-probabilities are those of the model's logits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llamalite.engine.picking import logprobs_of
from llamalite.errors import FatalDecode


@pytest.mark.parametrize(("size", "scale"), [(5, 1.0), (512, 5.0), (49_152, 4.0), (5000, 1e4)])
def test_logprobs_are_a_log_softmax(size: int, scale: float) -> None:
    logits = (np.random.default_rng(size).standard_normal(size) * scale).astype(np.float32)
    exact = logits.astype(np.float64)
    exact -= exact.max()
    exact -= math.log(np.exp(exact).sum())
    found = logprobs_of(logits, 3, 4)
    assert found.token == 3
    assert found.logprob == pytest.approx(exact[3], abs=1e-5, rel=1e-6)
    best = np.argsort(-exact, kind="stable")[:4]
    assert [token for token, _ in found.top] == best.tolist()
    assert [value for _, value in found.top] == pytest.approx(exact[best].tolist(), abs=1e-5)


def test_all_of_a_small_vocabulary_make_up_one() -> None:
    logits = np.array([2.0, -np.inf, 0.0, 3.0], np.float32)
    found = logprobs_of(logits, 1, 100)
    assert found.logprob == -math.inf
    assert [token for token, _ in found.top] == [3, 0, 2]
    assert sum(math.exp(value) for _, value in found.top) == pytest.approx(1.0)
    assert logprobs_of(logits, 0, 0).top == ()


def test_logits_that_are_no_numbers_are_an_error() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(FatalDecode):
            logprobs_of(np.array([0.0, bad], np.float32), 0, 1)
