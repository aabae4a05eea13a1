import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated_machine import flat, huge, linear, steep

from llamalite.engine.cost import StepCost


def train(cost, machine, shapes, n=200, noise=0.0, seed=0):
    rng = random.Random(seed)
    for _ in range(n):
        decodes, chunks = rng.choice(shapes)
        cost.observe(decodes, chunks, machine(decodes, chunks) * rng.lognormvariate(0.0, noise))


def mixed_shapes(rng):
    shapes = [([rng.randrange(2000)] * k, []) for k in (1, 2, 3, 5, 8, 16)]
    shapes += [([], [(n, rng.randrange(4000))]) for n in (4, 16, 30, 64, 100, 256, 500)]
    shapes += [([500] * k, [(n, rng.randrange(4000))]) for k in (1, 3, 8) for n in (3, 8, 20, 60)]
    return shapes


def test_an_empty_step_costs_nothing_and_teaches_nothing():
    cost = StepCost()
    before = cost.predict([0], [(8, 0)])
    cost.observe([], [], 1.0)
    cost.observe([0], [], 0.0)
    assert cost.predict([], []) == 0.0
    assert cost.predict([0], [(8, 0)]) == before


def test_what_was_never_seen_is_taken_to_be_slow():
    cost = StepCost()
    assert cost.predict([], [(512, 0)]) > 10
    assert cost.predict([0], []) > 0.02


@pytest.mark.parametrize("machine", [linear, flat, huge])
@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_learns_machines_of_very_different_kinds(machine, noise):
    rng = random.Random(1)
    shapes = mixed_shapes(rng)
    cost = StepCost()
    train(cost, machine, shapes, n=600, noise=noise)
    errors = sorted(abs(cost.predict(*shape) / machine(*shape) - 1) for shape in shapes)
    assert errors[len(errors) // 2] < 0.15
    assert errors[int(0.9 * len(errors))] < 0.35


@pytest.mark.parametrize(
    ("machine", "decodes", "chunks"),
    [
        (linear, [300] * 3, [(10, 4000)]),
        (steep, [300] * 3, [(8, 3500)]),
        (steep, [300] * 3, [(80, 3500)]),
        (flat, [], [(1000, 100)]),
        (huge, [200] * 8, []),
    ],
)
def test_the_third_step_of_a_kind_is_predicted_well(machine, decodes, chunks):
    cost = StepCost()
    train(cost, machine, [([100], []), ([], [(20, 0)])], n=20)
    for _ in range(2):
        cost.observe(decodes, chunks, machine(decodes, chunks))
    assert cost.predict(decodes, chunks) == pytest.approx(machine(decodes, chunks), rel=0.35)


def test_large_chunks_are_expected_to_cost_at_most_in_proportion_once_small_ones_are_known():
    cost = StepCost()
    train(cost, linear, [([], [(16, 0)])], n=10)
    assert cost.predict([], [(256, 0)]) <= 16.5 * cost.predict([], [(16, 0)])


def test_depth_is_learned_as_a_prompt_goes_on():
    cost = StepCost()
    for depth in range(0, 3000, 60):
        cost.observe([], [(60, depth)], linear([], [(60, depth)]))
    assert cost.predict([], [(60, 6000)]) == pytest.approx(linear([], [(60, 6000)]), rel=0.2)
    assert cost.predict([], [(60, 0)]) == pytest.approx(linear([], [(60, 0)]), rel=0.2)


def test_one_long_step_changes_little():
    cost, shape = StepCost(), ([300] * 3, [(10, 500)])
    train(cost, linear, [shape], n=30)
    before = cost.predict(*shape)
    cost.observe(*shape, 10 * before)
    assert cost.predict(*shape) < 1.25 * before
    cost.observe(*shape, before)
    assert cost.predict(*shape) == pytest.approx(before, rel=0.15)


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_a_machine_that_changed_is_followed_within_a_few_steps(factor):
    cost, shapes = StepCost(), [([300] * 3, []), ([300] * 3, [(10, 500)])]
    for _ in range(50):
        for shape in shapes:
            cost.observe(*shape, linear(*shape))
    for _ in range(6):
        for shape in shapes:
            cost.observe(*shape, factor * linear(*shape))
    for shape in shapes:
        assert cost.predict(*shape) == pytest.approx(factor * linear(*shape), rel=0.2)


def test_a_slow_first_step_is_forgotten():
    cost, shape = StepCost(), ([], [(16, 0)])
    cost.observe(*shape, 30.0)  # the file had to be read
    for _ in range(4):
        cost.observe(*shape, linear(*shape))
    assert cost.predict(*shape) == pytest.approx(linear(*shape), rel=0.2)
    assert cost.predict([], [(64, 0)]) < 6 * linear(*shape)


shapes = st.tuples(
    st.lists(st.integers(0, 100_000), max_size=20),
    st.lists(st.tuples(st.integers(1, 300_000), st.integers(0, 100_000)), max_size=4),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(shapes, st.floats(1e-6, 1e4)), max_size=30), shapes)
def test_predictions_stay_finite_whatever_was_seen(steps, shape):
    cost = StepCost()
    for seen, seconds in steps:
        cost.observe(*seen, seconds)
    predicted = cost.predict(*shape)
    assert 0 <= predicted < 1e30
    assert (predicted == 0) == (shape == ([], []))


@pytest.mark.parametrize(("machine", "least"), [(linear, 1.0), (flat, 0.8), (huge, 0.8)])
def test_more_prompt_tokens_are_hardly_ever_expected_to_take_less(machine, least):
    ratios = []
    for seed in range(30):
        rng = random.Random(seed)
        cost = StepCost()
        train(cost, machine, mixed_shapes(rng), n=150, noise=0.1, seed=seed)
        predicted = [cost.predict([300] * 3, [(2**k, 1000)]) for k in range(1, 10)]
        ratios += [later / earlier for earlier, later in itertools.pairwise(predicted)]
    assert sorted(ratios)[len(ratios) // 50] > least


def test_beyond_the_last_knot_cost_grows_in_proportion():
    cost = StepCost()
    assert cost.predict([], [(2**19, 0)]) >= 4 * cost.predict([], [(2**17, 0)]) > 0
