"""Machines made of formulas, and a loop that plans, "computes" and learns on them: no engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamalite.engine.cost import StepCost
from llamalite.engine.plan import Lane, Limits, Plan, plan_step

Machine = Callable[[Sequence[int], Sequence[tuple[int, int]]], float]
"""Seconds of a step, from the depths of its decodes and (n_tokens, depth) of its chunks."""


def linear(decodes: Sequence[int], chunks: Sequence[tuple[int, int]]) -> float:
    """A small processor that has to compute, whatever the batch: 6.3 ms a token, 10 ms deep."""
    rows = sum(0.0085 + 3e-6 * depth for depth in decodes)
    return 0.003 + rows + sum(n * (0.0063 + 1.7e-6 * (depth + n / 2)) for n, depth in chunks)


def steep(decodes: Sequence[int], chunks: Sequence[tuple[int, int]]) -> float:
    """Chunks below 64 tokens cost far more a token than full ones, at 1,500 tokens a second.

    3 decodes take 8 ms; with 1 prompt token at depth 2,000 20 ms, with 4 42, with 8 at 3,500 108.
    """
    seconds = 0.0035 + 0.0015 * len(decodes)
    for n, depth in chunks:
        middle = depth + n / 2
        seconds += 0.0006 * n + middle * (1e-7 * n if n >= 64 else 5.5e-6 * n**0.77)
    return seconds


def flat(decodes: Sequence[int], chunks: Sequence[tuple[int, int]]) -> float:
    """A graphics card: 5 ms up to 256 tokens."""
    n = len(decodes) + sum(n for n, _ in chunks)
    cells = sum(decodes) + sum(n * (depth + n / 2) for n, depth in chunks)
    return max(0.005, n * 0.005 / 256) + cells * 2e-9


def huge(decodes: Sequence[int], chunks: Sequence[tuple[int, int]]) -> float:
    """A model too large for its machine: a step reads its weights for 400 ms."""
    n = len(decodes) + sum(n for n, _ in chunks)
    cells = sum(decodes) + sum(n * (depth + n / 2) for n, depth in chunks)
    return max(0.4, 0.06 * n) + cells * 5e-6


@dataclass
class Job:
    """A sequence: prompt, then so many decoded tokens."""

    id: int
    n_prompt: int
    n_answer: int
    arrives_s: float = 0.0
    priority: int = 0
    n_computed: int = 0
    n_chosen: int = 0
    first_s: float | None = None
    times: list[float] = field(default_factory=list)

    def lane(self) -> Lane:
        return Lane(
            self.id,
            self.n_computed,
            self.n_prompt + self.n_chosen,
            is_decoding=self.n_chosen > 0,
            priority=self.priority,
        )

    @property
    def is_done(self) -> bool:
        return self.n_chosen >= self.n_answer


@dataclass
class Simulation:
    """Runs jobs on a machine, with as much noise as asked for."""

    machine: Machine
    limits: Limits
    noise: float = 0.0
    cost: StepCost = field(default_factory=StepCost)
    seed: int = 0
    now_s: float = 0.0
    turn: int = 0
    steps: list[tuple[float, Plan]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def step(self, jobs: Sequence[Job]) -> Plan:
        by_id = {job.id: job for job in jobs}
        lanes = [job.lane() for job in jobs if job.arrives_s <= self.now_s and not job.is_done]
        plan = plan_step(lanes, self.cost, self.limits, self.turn)
        self.turn = plan.turn
        decodes, chunks = [], []
        for share in plan.shares:
            job = by_id[share.id]
            if job.n_chosen:
                decodes.append(job.n_computed)
            else:
                chunks.append((share.n_tokens, job.n_computed))
        seconds = self.machine(decodes, chunks) * self._random.lognormvariate(0.0, self.noise)
        self.cost.observe(decodes, chunks, seconds)
        self.now_s += seconds
        self.steps.append((seconds, plan))
        for share in plan.shares:
            job = by_id[share.id]
            job.n_computed += share.n_tokens
            if job.n_computed == job.n_prompt + job.n_chosen:
                job.n_chosen += 1
                job.times.append(self.now_s)
                if job.first_s is None:
                    job.first_s = self.now_s
        return plan

    def run(self, jobs: Sequence[Job], until: Callable[[], bool]) -> None:
        while not until():
            self.step(jobs)
