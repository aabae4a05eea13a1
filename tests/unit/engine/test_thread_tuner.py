"""The tuner on simulated machines: what it settles on, how soon, and what finding out costs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamalite.engine.thread_tuner import CoreMeter, ThreadTuner

Load = Callable[[float], float]


class Machine:
    """Cores, some of them busy with others' work, and a clock that only steps move.

    Args:
        n_cores: cores in all.
        busy: others' busy threads at a time.
        penalty: how many times longer a step takes where threads wait for each other.
        serial: part of a step that more threads don't make shorter.
        sees_idle: whether there is a counter of idle time.
    """

    def __init__(
        self,
        n_cores: int,
        busy: Load = lambda now: 0,
        *,
        penalty: float = 4.0,
        serial: float = 0.1,
        sees_idle: bool = True,
    ) -> None:
        self.n_cores, self.busy, self.penalty, self.serial = n_cores, busy, penalty, serial
        self.now = self.own_s = 0.0
        self.idle_s = 1.0
        self.sees_idle = sees_idle
        self.random = random.Random(7)
        self.n_tokens_done = 0

    def meter(self) -> CoreMeter:
        idle_s = lambda: self.idle_s if self.sees_idle else None  # noqa: E731
        return CoreMeter(lambda: self.now, lambda: self.own_s, idle_s, self.n_cores)

    def tuner(self, n_threads: int, **options: bool) -> ThreadTuner:
        return ThreadTuner(n_threads, clock=lambda: self.now, meter=self.meter(), **options)

    def pause(self, seconds: float) -> None:
        self.idle_s += seconds * max(0.0, self.n_cores - self.busy(self.now))
        self.now += seconds

    def duration_s(self, work_s: float, n_threads: int) -> float:
        wall_s = work_s * (self.serial + (1 - self.serial) / n_threads)
        if n_threads > 1 and n_threads + self.busy(self.now) > self.n_cores:
            return wall_s * self.penalty * self.random.choice((0.3, 0.5, 0.7, 1.0, 2.5))
        share = min(1.0, self.n_cores / (n_threads + self.busy(self.now)))
        return wall_s / share * self.random.uniform(0.95, 1.05)

    def step(self, tuner: ThreadTuner, n_rows: int = 1, n_prefill: int = 0) -> None:
        n_threads = tuner.choose(n_prefill)
        wall_s = self.duration_s(0.012 * (n_rows + n_prefill) ** 0.8, n_threads)
        wanted = n_threads + self.busy(self.now)
        cpu_s = wall_s * n_threads * min(1.0, self.n_cores / wanted)
        self.own_s += cpu_s
        self.idle_s += wall_s * max(0.0, self.n_cores - wanted)
        self.now += wall_s
        self.n_tokens_done += n_rows + n_prefill
        tuner.observe(n_rows, n_prefill, n_threads, wall_s, cpu_s)

    def run(self, tuner: ThreadTuner, seconds: float, n_rows: int = 1) -> set[int]:
        """Decode for some time and return the counts that were settled on."""
        end, settled = self.now + seconds, set()
        while self.now < end:
            self.step(tuner, n_rows)
            settled.add(tuner.n_threads)
        return settled


def rate(machine: Machine, n_threads: int, seconds: float, *, fixed: bool) -> float:
    """Return tokens/s from the first step on."""
    machine.run(machine.tuner(n_threads, fixed=fixed), seconds)
    return machine.n_tokens_done / machine.now


@pytest.mark.parametrize("n_cores", [2, 4, 16, 64])
@pytest.mark.parametrize("sees_idle", [True, False])
def test_alone_it_keeps_all_threads_and_costs_nearly_nothing(n_cores: int, sees_idle: bool) -> None:
    seconds = 60 if n_cores < 16 else 25
    machine = Machine(n_cores, sees_idle=sees_idle)
    assert machine.run(machine.tuner(n_cores), seconds) == {n_cores}
    ours = machine.n_tokens_done / machine.now
    assert ours >= 0.985 * rate(Machine(n_cores), n_cores, seconds, fixed=True)


@pytest.mark.parametrize("penalty", [3, 30, 300])
@pytest.mark.parametrize("sees_idle", [True, False])
def test_beside_one_busy_process_it_is_near_one_thread(penalty: float, sees_idle: bool) -> None:
    def machine() -> Machine:
        return Machine(2, lambda now: 1, penalty=penalty, sees_idle=sees_idle)

    seconds = 10 if penalty < 100 else 60  # there a single step with two threads takes seconds
    ours = rate(machine(), 2, seconds, fixed=False)
    assert ours >= 0.85 * rate(machine(), 1, seconds, fixed=True)
    assert ours >= 1.5 * rate(machine(), 2, seconds, fixed=True)


def test_it_follows_a_neighbour_that_comes_and_goes() -> None:
    machine = Machine(2, lambda now: 1 if 5 <= now < 20 else 0)
    tuner = machine.tuner(2)
    assert machine.run(tuner, 4.9) == {2}
    machine.run(tuner, 1.2)
    assert machine.run(tuner, 13.8) == {1}
    machine.run(tuner, 1.0)
    assert machine.run(tuner, 20) == {2}


@pytest.mark.parametrize("n_busy", [1, 3, 8, 12, 15])
def test_on_many_cores_it_leaves_the_others_theirs(n_busy: int) -> None:
    machine = Machine(16, lambda now: n_busy if now < 10 else 0, penalty=30)
    tuner = machine.tuner(16)
    machine.run(tuner, 1)
    assert machine.run(tuner, 8.9) == {16 - n_busy}
    machine.run(tuner, 1.5)
    assert min(machine.run(tuner, 5)) >= 13  # more gain too little to show


def test_a_neighbour_that_blinks_makes_no_flapping() -> None:
    machine = Machine(2, lambda now: int(now) % 2)
    tuner, counts = machine.tuner(2), []
    while machine.now < 120:
        machine.step(tuner)
        counts.append(tuner.n_threads)
    changes = sum(a != b for a, b in itertools.pairwise(counts))
    assert changes <= 35
    blinking = Machine(2, lambda now: int(now) % 2)
    assert machine.n_tokens_done / machine.now >= 0.95 * rate(blinking, 1, 120, fixed=True)


def test_counters_that_mislead_cost_little() -> None:
    """Others look busy but give way, as under a weight of a control group."""
    machine = Machine(2)
    tuner = ThreadTuner(
        2,
        clock=lambda: machine.now,
        meter=CoreMeter(lambda: machine.now, lambda: machine.own_s / 2, lambda: 1.0, 2),
    )
    assert machine.run(tuner, 120) == {2}
    assert machine.n_tokens_done / machine.now >= 0.97 * rate(Machine(2), 2, 120, fixed=True)


def test_where_fewer_threads_are_faster_it_finds_out() -> None:
    """All cores idle, but half of them are slow ones that the others wait for."""

    class Uneven(Machine):
        def duration_s(self, work_s: float, n_threads: int) -> float:
            return super().duration_s(work_s, n_threads) * (2.5 if n_threads > 4 else 1)

    machine = Uneven(8)
    tuner = machine.tuner(8)
    machine.run(tuner, 30)
    assert machine.run(tuner, 60) == {4}


def test_after_a_pause_it_starts_with_the_cores_that_were_idle() -> None:
    machine = Machine(4, lambda now: 3 if now > 2 else 0)
    tuner = machine.tuner(4)
    machine.run(tuner, 2)
    machine.pause(20)
    assert tuner.choose() == 1
    machine.busy = lambda now: 0
    machine.run(tuner, 0.3)
    machine.pause(20)
    assert tuner.choose() == 4


def test_prompts_alone_show_it_too() -> None:
    machine = Machine(2, lambda now: 1)
    tuner = machine.tuner(2)
    for size in (256, 200, 230, 256, 190, 256):
        machine.step(tuner, 0, size)
    assert tuner.choose(256) == 1


def test_one_slow_prompt_step_is_enough_to_decode_with_fewer() -> None:
    machine = Machine(2, lambda now: 1, penalty=30)
    tuner = machine.tuner(2)
    machine.step(tuner, 0, 32)
    for _ in range(20):
        machine.step(tuner)
        assert tuner.choose() == 1
    assert tuner.n_threads == 1


def test_steps_of_changing_sizes_are_compared_by_what_is_certain() -> None:
    machine = Machine(4)
    tuner = machine.tuner(4)
    shapes = random.Random(3)
    while machine.now < 100:
        n_prefill = shapes.choice((0, 0, 0, 64, 500))
        machine.step(tuner, shapes.randint(1, 8), n_prefill)
        assert tuner.n_threads == 4


def test_prefill_threads_shrink_in_proportion() -> None:
    machine = Machine(4, lambda now: 2)
    tuner = ThreadTuner(4, 8, clock=lambda: machine.now, meter=machine.meter())
    assert (tuner.choose(), tuner.choose(100)) == (4, 8)
    machine.run(tuner, 5)
    assert (tuner.choose(), tuner.choose(100)) == (2, 4)


def test_fixed_means_fixed() -> None:
    machine = Machine(4, lambda now: 4)
    tuner = ThreadTuner(3, 4, fixed=True, clock=lambda: machine.now, meter=machine.meter())
    for _ in range(200):
        machine.step(tuner)
        assert (tuner.choose(), tuner.choose(9), tuner.n_threads) == (3, 4, 3)


def test_steps_with_another_count_than_chosen_teach_nothing() -> None:
    machine = Machine(2, lambda now: 1)
    tuner = machine.tuner(2)
    for _ in range(100):
        machine.now += 0.1
        tuner.observe(1, 0, 1, 0.1, 0.1)
    assert tuner.n_threads == 2


_STEPS = st.tuples(
    st.integers(0, 16),
    st.sampled_from((0, 0, 1, 7, 512)),
    st.floats(0, 3, allow_nan=False),
    st.floats(0, 40, allow_nan=False),
    st.floats(0, 2, allow_nan=False),
)


@given(st.integers(1, 16), st.integers(1, 32), st.lists(_STEPS, max_size=60), st.booleans())
def test_whatever_it_sees_the_count_is_possible(
    most: int, most_batch: int, steps: list[tuple[int, int, float, float, float]], sees_idle: bool
) -> None:
    machine = Machine(16, sees_idle=sees_idle)
    tuner = ThreadTuner(most, most_batch, clock=lambda: machine.now, meter=machine.meter())
    for n_rows, n_prefill, wall_s, cpu_s, gap_s in steps:
        n_threads = tuner.choose(n_prefill)
        assert 1 <= n_threads <= (most_batch if n_prefill else most)
        machine.now += wall_s
        machine.own_s += cpu_s
        tuner.observe(n_rows, n_prefill, n_threads, wall_s, cpu_s)
        assert 1 <= tuner.n_threads <= most
        machine.now += gap_s
        machine.idle_s += gap_s * (cpu_s % 16)
