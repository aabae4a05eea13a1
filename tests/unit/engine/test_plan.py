import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamalite.engine.plan import Lane, Limits, Share, plan_step

LIMITS = Limits(budget_s=0.1, idle_budget_s=0.5, n_batch=512, n_ubatch=128)


class PerToken:
    """So many seconds a decode, so many a prompt token."""

    def __init__(self, decode_s=0.01, prompt_s=0.001):
        self.decode_s, self.prompt_s = decode_s, prompt_s

    def predict(self, decode_depths, chunks):
        return len(decode_depths) * self.decode_s + sum(n for n, _ in chunks) * self.prompt_s


class Kernels:
    """Below 64 tokens at once each costs ten times as much."""

    def predict(self, decode_depths, chunks):
        n = sum(n for n, _ in chunks)
        return 0.01 * len(decode_depths) + n * (0.001 if n >= 64 else 0.01)


def decoding(id_, depth=100):
    return Lane(id_, depth, depth + 1, is_decoding=True)


def prompt(id_, n_open, n_computed=0, **more):
    return Lane(id_, n_computed, n_computed + n_open, is_decoding=False, **more)


def planned(lanes, cost=None, limits=LIMITS, turn=1):
    plan = plan_step(lanes, cost or PerToken(), limits, turn)
    assert plan.turn == turn + 1
    return {share.id: share.n_tokens for share in plan.shares}


def test_nothing_to_do_is_an_empty_plan():
    plan = plan_step([prompt(1, 5, is_waiting=True), prompt(2, 0, 7)], PerToken(), LIMITS, 3)
    assert (plan.shares, plan.predicted_s) == ((), 0.0)


def test_decodes_come_first_and_all_get_their_token():
    plan = plan_step([prompt(1, 9), decoding(2), prompt(3, 9), decoding(4)], PerToken(), LIMITS, 1)
    assert plan.shares[:2] == (Share(2, 1), Share(4, 1))
    assert sorted(share.id for share in plan.shares[2:]) == [1, 3]


def test_a_prompt_gets_what_the_decodes_leave_of_the_budget():
    plan = plan_step(
        [decoding(1), decoding(2), decoding(3), prompt(4, 8000)], PerToken(), LIMITS, 1
    )
    assert 67 <= plan.shares[-1].n_tokens <= 70
    assert 0.097 <= plan.predicted_s <= 0.1


def test_alone_a_prompt_gets_longer_steps_in_whole_ubatches():
    assert planned([prompt(1, 8000)]) == {1: 384}
    assert planned([prompt(1, 8000)], PerToken(prompt_s=1e-6)) == {1: 512}
    assert planned([prompt(1, 300)]) == {1: 300}  # all there is needs no rounding
    assert planned([prompt(1, 8000, is_waiting=True), prompt(2, 4)]) == {2: 4}


def test_beside_decodes_the_step_ends_at_a_whole_ubatch_too():
    assert planned([decoding(1), prompt(2, 8000)], PerToken(prompt_s=0.0005)) == {1: 1, 2: 127}


def test_prompts_keep_a_part_of_the_time_where_decodes_take_all_of_it():
    lanes = [*map(decoding, range(20)), prompt(99, 8000)]
    plan = plan_step(lanes, PerToken(), LIMITS, 1)
    assert plan.predicted_s == pytest.approx(0.25, abs=0.005)
    assert plan.shares[-1].n_tokens >= 45


def test_where_a_token_takes_long_prompts_pause_but_go_on():
    lanes, cost = [decoding(1), prompt(2, 1000)], PerToken(decode_s=0.1, prompt_s=0.05)
    got = [planned(lanes, cost, turn=turn).get(2, 0) for turn in range(16)]
    assert got == [2, 0, 0, 0] * 4
    dearer = PerToken(decode_s=0.1, prompt_s=10.0)
    got = [planned(lanes, dearer, turn=turn).get(2, 0) for turn in range(16)]
    assert got == [2, *[0] * 7] * 2


def test_the_cheaper_kernel_is_found_above_the_dearer_one():
    lanes = [decoding(1), prompt(2, 8000)]
    assert 80 <= planned(lanes, Kernels())[2] <= 90
    tight = Limits(0.07, 0.5, 512, 128)
    assert planned(lanes, Kernels(), tight)[2] == 64  # a little over the budget, but worth it
    tighter = Limits(0.05, 0.5, 512, 128)
    assert planned(lanes, Kernels(), tighter)[2] == 4


def test_prompts_share_equally_and_what_short_ones_leave_goes_to_longer_ones():
    lanes = [decoding(1), prompt(2, 8), prompt(3, 500), prompt(4, 500, 40)]
    got = planned(lanes)
    assert got[2] == 8
    assert abs(got[3] - got[4]) <= 1
    assert got[3] + got[4] + 8 >= 88


def test_higher_priorities_go_first_but_not_always():
    lanes = [decoding(1), prompt(2, 5000), prompt(3, 5000, priority=1)]
    got = [planned(lanes, turn=turn) for turn in range(1, 5)]
    assert [2 in shares for shares in got] == [False, False, False, True]
    spare = planned([decoding(1), prompt(2, 5000), prompt(3, 20, priority=1)])
    assert spare[3] == 20
    assert spare[2] >= 67


def test_where_tokens_do_not_reach_for_all_they_take_turns():
    lanes = [decoding(0), *(prompt(id_, 1000) for id_ in range(1, 8))]
    cost = PerToken(decode_s=0.05, prompt_s=0.01)
    got = [planned(lanes, cost, turn=turn) for turn in range(16)]
    assert all(sum(shares.values()) <= 6 for shares in got)
    assert all(any(lane.id in shares for shares in got) for lane in lanes)


def test_a_chunk_ends_at_the_place_it_must_not_cross():
    assert planned([prompt(1, 100, 50, stop_at=70)]) == {1: 20}
    assert planned([prompt(1, 100, 50, stop_at=51)]) == {1: 1}
    assert planned([prompt(1, 100, 50, stop_at=50)]) == {1: 100}  # it has got there
    assert planned([prompt(1, 100, 50, stop_at=149)]) == {1: 99}
    assert planned([decoding(2), prompt(1, 900, 50, stop_at=60)])[1] == 10


@pytest.mark.parametrize("n_open", range(1, 12))
@pytest.mark.parametrize("n_left", range(1, 8))
def test_no_chunk_of_one_token_and_none_left_behind(n_open, n_left):
    limits = Limits(0.1, n_left * 0.01 + 0.001, 512, 128)
    n = planned([prompt(1, n_open)], PerToken(prompt_s=0.01), limits)[1]
    assert n == n_open or 2 <= n <= n_open - 2


@pytest.mark.parametrize("n_batch", [1, 2, 3, 4, 5, 8])
def test_more_decodes_than_fit_take_turns_and_prompts_still_go_on(n_batch):
    limits = Limits(0.1, 0.5, n_batch, n_batch)
    lanes = [*map(decoding, range(7)), prompt(7, 50)]
    got = [planned(lanes, limits=limits, turn=turn) for turn in range(64)]
    assert all(sum(shares.values()) <= n_batch for shares in got)
    for lane in lanes:
        assert any(lane.id in shares for shares in got), lane.id


costs = st.builds(PerToken, st.floats(1e-5, 0.3), st.floats(1e-6, 0.3))
lanes_ = st.lists(
    st.tuples(
        st.booleans(),  # decodes
        st.integers(0, 3000),
        st.integers(1, 3000),
        st.integers(-1, 1),
        st.one_of(st.none(), st.integers(1, 3000)),
        st.integers(0, 4).map(lambda n: n == 0),  # waits
    ),
    max_size=12,
)
limits_ = st.builds(
    Limits,
    st.floats(0.001, 1),
    st.floats(0.001, 2),
    st.integers(1, 600),
    st.integers(1, 600),
    st.integers(1, 5),
)


@settings(max_examples=200)
@given(lanes_, costs, limits_, st.integers(0, 10_000))
def test_every_plan_keeps_the_rules(given_, cost, limits, turn):
    lanes = {
        id_: Lane(id_, depth, depth + (1 if decodes else n), decodes, priority, stop_at, waits)
        for id_, (decodes, depth, n, priority, stop_at, waits) in enumerate(given_)
    }
    plan = plan_step(list(lanes.values()), cost, limits, turn)
    assert len({share.id for share in plan.shares}) == len(plan.shares)
    assert sum(share.n_tokens for share in plan.shares) <= limits.n_batch
    decodes, chunks, least = [], [], min(limits.min_chunk, (limits.n_batch + 1) // 2)
    for share in plan.shares:
        lane = lanes[share.id]
        assert not lane.is_waiting
        if lane.is_decoding:
            assert share.n_tokens == 1
            assert not chunks, "decodes come first"
            decodes.append(lane.n_computed)
            continue
        chunks.append((share.n_tokens, lane.n_computed))
        end = lane.n_computed + share.n_tokens
        stop = lane.n_known
        if lane.stop_at is not None and lane.stop_at > lane.n_computed:
            stop = min(stop, lane.stop_at)
        assert end == stop or (share.n_tokens >= least and stop - end >= least)
    assert plan.predicted_s == cost.predict(decodes, chunks)
    live = [lane for lane in lanes.values() if not lane.is_waiting]
    n_decoding = sum(lane.is_decoding for lane in live)
    if n_decoding + 2 * limits.min_chunk <= limits.n_batch:
        assert len(decodes) == n_decoding
    if not decodes and live and n_decoding < len(live):
        assert chunks
    _check_budget(cost, limits, decodes, chunks, plan.predicted_s)


def _check_budget(cost, limits, decodes, chunks, predicted_s):
    if sum(n for n, _ in chunks) <= max(2 * limits.min_chunk, 1):
        return  # the smallest is taken whatever it costs
    decodes_s = cost.predict(decodes, [])
    budget_s = max(limits.budget_s, decodes_s + 0.25 * max(limits.budget_s, decodes_s))
    assert predicted_s <= (1.15 * budget_s if decodes else limits.idle_budget_s) * (1 + 1e-9)
