"""Plan and learned cost together, on simulated machines: gaps, and what prompts wait for them."""

import pytest
from support.simulated_machine import Job, Simulation, flat, huge, linear, steep

from llamalite.engine.plan import Limits

LIMITS = Limits(budget_s=0.1, idle_budget_s=0.5, n_batch=2048, n_ubatch=512)


def seconds_alone(machine, n_prompt, seed):
    simulation = Simulation(machine, LIMITS, noise=0.15, seed=seed)
    simulation.run([warm := Job(0, 300, 5)], lambda: warm.is_done)
    started = simulation.now_s
    simulation.run([long := Job(1, n_prompt, 1)], lambda: long.is_done)
    return simulation.now_s - started


def seconds_beside(machine, n_prompt, seed):
    """Return how long a prompt took beside three streams, and the lengths of the steps, sorted."""
    simulation = Simulation(machine, LIMITS, noise=0.15, seed=seed)
    streams = [Job(i, 200, 10**6) for i in range(3)]
    simulation.run(streams, lambda: all(job.n_chosen > 30 for job in streams))
    started, first = simulation.now_s, len(simulation.steps)
    simulation.run([*streams, long := Job(9, n_prompt, 1)], lambda: long.is_done)
    return simulation.now_s - started, sorted(s for s, _ in simulation.steps[first:])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("machine", [linear, steep, flat])
def test_three_streams_go_on_while_a_long_prompt_comes(machine, seed):
    alone = seconds_alone(machine, 8000, seed)
    beside, steps = seconds_beside(machine, 8000, seed)
    assert steps[int(0.95 * len(steps))] <= 1.5 * LIMITS.budget_s
    assert steps[len(steps) // 2] <= 1.1 * LIMITS.budget_s
    assert beside <= 2.5 * alone


def test_where_decodes_alone_take_longer_they_take_little_longer_still():
    alone = seconds_alone(huge, 1000, 1)
    beside, steps = seconds_beside(huge, 1000, 1)
    decodes_s = huge([1000] * 3, [])
    assert steps[int(0.95 * len(steps))] <= 1.6 * decodes_s
    assert beside <= 4 * alone  # a quarter of the time is for it


def test_short_prompts_arriving_all_the_time_do_not_starve_a_long_one():
    simulation = Simulation(linear, LIMITS, noise=0.1)
    long = Job(0, 2000, 1)
    short = [Job(i, 60, 8, arrives_s=0.6 * i, priority=i % 2) for i in range(1, 400)]
    simulation.run([long, *short], lambda: long.is_done)
    got = [any(s.id == 0 for s in plan.shares) for _, plan in simulation.steps]
    pauses = "".join("x" if computed else "." for computed in got).split("x")
    assert max(map(len, pauses)) <= 4
    assert simulation.now_s < 200
    in_time = [job for job in short if job.arrives_s < simulation.now_s - 20]
    assert all(job.is_done for job in in_time)
    assert max(job.first_s - job.arrives_s for job in in_time) < 5


def test_sixteen_prompts_at_once_all_get_their_first_token_in_about_the_same_time():
    simulation = Simulation(linear, LIMITS, noise=0.1)
    jobs = [Job(i, 300, 2) for i in range(16)]
    simulation.run(jobs, lambda: all(job.is_done for job in jobs))
    first = sorted(job.first_s for job in jobs)
    assert first[-1] - first[0] < 0.1 * first[-1]


def test_a_step_stays_short_when_the_machine_becomes_three_times_slower():
    factor = 1.0
    simulation = Simulation(lambda *shape: factor * linear(*shape), LIMITS, noise=0.1)
    jobs = [*(Job(i, 200, 10**6) for i in range(2)), Job(9, 10**6, 1)]
    for _ in range(150):
        simulation.step(jobs)
    factor = 3.0
    for _ in range(60):
        simulation.step(jobs)
    steps = [seconds for seconds, _ in simulation.steps[-60:]]
    assert sum(seconds > 1.5 * LIMITS.budget_s for seconds in steps) <= 6
