"""Random lives of sequences against the planner: whoever can go on does so, soon enough."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.simulated_machine import flat, huge, linear, steep

from llamalite.engine.cost import StepCost
from llamalite.engine.plan import Lane, Limits, plan_step

PATIENCE = 64
"""Steps within which the oldest prompt gets tokens, whatever else arrives."""


class Planning(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lanes, self.positions, self.n_idle = {}, {}, {}
        self.cost, self.turn, self.next_id = StepCost(), 0, 0
        self.machine, self.limits = linear, Limits(0.1, 0.5, 64, 32)

    @rule(
        machine=st.sampled_from([linear, steep, flat, huge]),
        n_batch=st.sampled_from([4, 7, 64, 512]),
        budget_s=st.sampled_from([0.01, 0.1, 0.4]),
    )
    def change(self, machine, n_batch, budget_s):
        self.machine, self.limits = machine, Limits(budget_s, 5 * budget_s, n_batch, n_batch)

    @precondition(lambda self: len(self.lanes) < 8)
    @rule(
        n=st.sampled_from([1, 2, 3, 5, 40, 3000]),
        n_shared=st.sampled_from([0, 0, 7]),
        priority=st.sampled_from([0, 0, 0, 1]),
        stop=st.sampled_from([None, None, 1, 2, 9]),
    )
    def arrive(self, n, n_shared, priority, stop):
        id_, self.next_id = self.next_id, self.next_id + 1
        stop = None if stop is None else n_shared + stop
        self.lanes[id_] = Lane(id_, n_shared, n_shared + n, False, priority, stop)
        self.positions[id_] = list(range(n_shared))
        self.n_idle[id_] = 0

    @precondition(lambda self: self.lanes)
    @rule(data=st.data(), waits=st.booleans())
    def wait(self, data, waits):
        lane = self.lanes[data.draw(st.sampled_from(sorted(self.lanes)))]
        if not lane.is_decoding:
            self.lanes[lane.id] = replace(lane, is_waiting=waits)

    @precondition(lambda self: self.lanes)
    @rule(data=st.data())
    def leave(self, data):
        del self.lanes[data.draw(st.sampled_from(sorted(self.lanes)))]

    @rule(n=st.integers(1, 40))
    def go(self, n):
        for _ in range(n):
            self._step()

    def _step(self):
        lanes = list(self.lanes.values())
        plan = plan_step(lanes, self.cost, self.limits, self.turn)
        self.turn = plan.turn
        shares = {share.id: share.n_tokens for share in plan.shares}
        assert len(shares) == len(plan.shares)
        assert sum(shares.values()) <= self.limits.n_batch
        got = [(self.lanes[id_], n) for id_, n in shares.items()]
        decodes = [lane.n_computed for lane, _ in got if lane.is_decoding]
        chunks = [(n, lane.n_computed) for lane, n in got if not lane.is_decoding]
        assert plan.predicted_s == self.cost.predict(decodes, chunks)
        if any(not lane.is_waiting for lane in lanes):
            assert shares
        self.cost.observe(decodes, chunks, self.machine(decodes, chunks))
        for lane in lanes:
            self._advance(lane, shares.get(lane.id, 0))
        self._check_patience()

    def _advance(self, lane, n):
        assert not (lane.is_waiting and n)
        self.n_idle[lane.id] = 0 if n or lane.is_waiting else self.n_idle[lane.id] + 1
        self.positions[lane.id] += range(lane.n_computed, lane.n_computed + n)
        done = lane.n_computed + n
        if n and lane.stop_at is not None and lane.n_computed < lane.stop_at:
            assert done <= lane.stop_at
        assert done <= lane.n_known
        is_next = bool(n) and done == lane.n_known
        self.lanes[lane.id] = replace(
            lane,
            n_computed=done,
            n_known=lane.n_known + is_next,
            is_decoding=lane.is_decoding or is_next,
        )

    def _check_patience(self):
        going = [lane for lane in self.lanes.values() if not lane.is_waiting]
        prompts = [lane for lane in going if not lane.is_decoding]
        if prompts:
            assert self.n_idle[prompts[0].id] <= PATIENCE
        for lane in going:
            assert self.n_idle[lane.id] <= 2 * PATIENCE * len(self.lanes)

    @invariant()
    def no_position_is_left_out(self):
        for lane in self.lanes.values():
            assert self.positions[lane.id] == list(range(lane.n_computed))


Planning.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestPlanning = Planning.TestCase
