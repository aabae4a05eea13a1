"""What a step computes: which tokens of which sequences.

A pure function of the running sequences, the learned cost of a step and the limits. Knows nothing
of slots, contexts or requests. Imports the standard library alone.

All sequences that decode get their token. Prompts get what is left of the step's time, in equal
parts and in order of priority. Two things keep every prompt going: there is always some time for
prompts, however long the decodes take, and every fourth time that prompts are computed priority
doesn't count: then the oldest goes first, or in turn another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Protocol, TypeVar

T = TypeVar("T")

_PROMPT_SHARE = 0.25
"""Prompts get at least this part of the longer of the budget and the decodes' time."""

_LONGEST_PAUSE = 8
"""Where even the smallest chunk takes more than that, prompts pause; at most so many steps."""

_PRIORITY_RESTS_EVERY = 4

_STRETCH, _WORTH_STRETCHING = 1.15, 1.5
"""A step may take so much longer where that makes a prompt token so much cheaper."""


class Cost(Protocol):
    """Predicts the seconds of a step; `StepCost` does."""

    def predict(self, decode_depths: Sequence[int], chunks: Sequence[tuple[int, int]]) -> float:
        """Return seconds; each chunk is (n_tokens, depth of its first token)."""
        ...


@dataclass(frozen=True, slots=True)
class Lane:
    """A running sequence as the planner sees it.

    Attributes:
        n_computed: tokens in the cache, which is the position of the next to compute.
        n_known: tokens of the prompt and of the answer so far; those after n_computed are to be
            computed.
        is_decoding: exactly one token is to be computed, and its row is needed.
        priority: higher goes first.
        stop_at: a chunk may end at this count of computed tokens, but not cross it; without
            meaning once it is reached.
        is_waiting: waits for another lane; gets nothing.
    """

    id: int
    n_computed: int
    n_known: int
    is_decoding: bool
    priority: int = 0
    stop_at: int | None = None
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """The next n_tokens of a lane, from its n_computed on."""

    id: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step may take.

    Attributes:
        budget_s: seconds of a step while a sequence decodes.
        idle_budget_s: seconds of a step in which none does.
        n_batch: most tokens of a step.
        n_ubatch: tokens computed at once; chunks above that end at a multiple of it.
        min_chunk: a prompt is computed in chunks of at least this many tokens, but for a prompt
            that is shorter, or where stop_at makes it so.
    """

    budget_s: float
    idle_budget_s: float
    n_batch: int
    n_ubatch: int
    min_chunk: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step computes.

    Attributes:
        shares: at most one for each lane; decodes first.
        predicted_s: what that is expected to take.
        turn: what to plan the next step with.
    """

    shares: tuple[Share, ...]
    predicted_s: float
    turn: int


def plan_step(lanes: Sequence[Lane], cost: Cost, limits: Limits, turn: int) -> Plan:
    """Choose what the next step computes.

    Args:
        lanes: the running sequences, oldest first.
        cost: what it would take.
        limits: what it may take.
        turn: 0 at first, then that of the last plan.
    """
    live = [lane for lane in lanes if not lane.is_waiting and lane.n_known > lane.n_computed]
    decodes = [lane for lane in live if lane.is_decoding]
    least = min(limits.min_chunk, (limits.n_batch + 1) // 2)
    prompts = [_prompt(lane, least) for lane in live if not lane.is_decoding]
    most_beside = limits.n_batch - 2 * least + 1  # with room for whatever a prompt needs
    if len(decodes) > limits.n_batch:
        decodes = _rotated(decodes, turn * limits.n_batch)[: limits.n_batch]
    pause = 1
    if prompts and decodes:
        is_full = len(decodes) > most_beside
        pause = _LONGEST_PAUSE if is_full else _pause(prompts[0], decodes, cost, limits)
    chunks: list[tuple[Lane, int]] = []
    if prompts and turn % pause == 0:
        decodes = decodes[:most_beside]
        chunks = _choose(_tiers(prompts, turn // pause), decodes, cost, limits, least)
    return Plan(
        (*[Share(lane.id, 1) for lane in decodes], *[Share(lane.id, n) for lane, n in chunks]),
        cost.predict(_depths(decodes), _shape(chunks)),
        turn + 1,
    )


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A lane that doesn't decode.

    Attributes:
        n_open: tokens that may be computed in one step.
        need: the smallest chunk that leaves nothing too small behind.
    """

    lane: Lane
    n_open: int
    need: int


def _prompt(lane: Lane, least: int) -> _Prompt:
    end = lane.n_known
    if lane.stop_at is not None and lane.stop_at > lane.n_computed:
        end = min(end, lane.stop_at)
    n_open = end - lane.n_computed
    return _Prompt(lane, n_open, n_open if n_open < 2 * least else least)


def _target_s(depths: list[int], cost: Cost, limits: Limits) -> tuple[float, float]:
    """Return the seconds the decodes take, and those that decodes and prompts may take."""
    if not depths:
        return 0.0, limits.idle_budget_s
    decodes_s = cost.predict(depths, [])
    prompts_s = _PROMPT_SHARE * max(limits.budget_s, decodes_s)
    return decodes_s, max(limits.budget_s, decodes_s + prompts_s)


def _pause(prompt: _Prompt, decodes: Sequence[Lane], cost: Cost, limits: Limits) -> int:
    """Return in which of how many steps prompts are computed: a power of two.

    NOTE: a multiple of the longest pause is one of every other, so prompts get their turn even if
    the answer changes from step to step.
    """
    depths = _depths(decodes)
    decodes_s, target_s = _target_s(depths, cost, limits)
    # NOTE: of several sizes, as what is known of one may be outdated, and only computing it tells.
    sizes = [n for n in (1, 2, 4) if n == 1 or n * prompt.need <= prompt.n_open]
    chunks = [[(n * prompt.need, prompt.lane.n_computed)] for n in sizes]
    wanted_s = min([cost.predict(depths, chunk) for chunk in chunks]) - decodes_s
    pause = 1
    while pause < _LONGEST_PAUSE and wanted_s >= 2 * pause * (target_s - decodes_s):
        pause *= 2
    return pause


def _tiers(prompts: list[_Prompt], turn: int) -> list[list[_Prompt]]:
    """Return the prompts in groups, one to be served before the next."""
    n_rests, has_priority = divmod(turn, _PRIORITY_RESTS_EVERY)
    if not has_priority:
        n_others, is_other = divmod(n_rests, 2)
        return [_rotated(prompts, n_others) if is_other else prompts]
    turned = _rotated(prompts, turn - n_rests)
    turned.sort(key=lambda prompt: -prompt.lane.priority)
    return [list(tier) for _, tier in groupby(turned, key=lambda prompt: prompt.lane.priority)]


def _choose(
    tiers: list[list[_Prompt]], decodes: Sequence[Lane], cost: Cost, limits: Limits, least: int
) -> list[tuple[Lane, int]]:
    """Find the most prompt tokens that fit into a step, and split them."""
    depths = _depths(decodes)
    n_open = sum([prompt.n_open for tier in tiers for prompt in tier])
    most = min(limits.n_batch - len(decodes), n_open)
    needed = tiers[0][0].need

    @cache
    def seconds(n_tokens: int) -> float:
        return cost.predict(depths, _shape(_split(tiers, n_tokens, least)))

    decodes_s, target_s = _target_s(depths, cost, limits)
    n_tokens = _most_within(target_s, seconds, needed, most)
    if decodes and n_tokens < most:
        larger = _power_within(_STRETCH * target_s, seconds, n_tokens, most)
        each_s = (seconds(n_tokens) - decodes_s) / n_tokens
        if (seconds(larger) - decodes_s) / larger * _WORTH_STRETCHING <= each_s:
            n_tokens = larger
    n_all = len(decodes) + n_tokens
    if n_tokens < n_open and n_all > limits.n_ubatch:
        n_tokens = max(needed, n_tokens - n_all % limits.n_ubatch)
    return _split(tiers, n_tokens, least)


def _most_within(target_s: float, seconds: Callable[[int], float], needed: int, most: int) -> int:
    """Return the most tokens that take no longer than that, or those needed."""
    if seconds(most) <= target_s:
        return most
    low = _power_within(target_s, seconds, needed, most)
    high = min(2 * low, most)
    while high - low > 1 + low // 32:
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(middle) <= target_s else (low, middle)
    return low


def _power_within(target_s: float, seconds: Callable[[int], float], needed: int, most: int) -> int:
    """Return the largest power of two up to `most` that takes no longer, or what is needed.

    NOTE: from above, as a large chunk may be cheaper than a smaller one where another kernel
    takes it.
    """
    n_tokens = 1 << most.bit_length() - 1
    while n_tokens > needed and seconds(n_tokens) > target_s:
        n_tokens //= 2
    return max(n_tokens, needed)


def _split(tiers: list[list[_Prompt]], n_tokens: int, least: int) -> list[tuple[Lane, int]]:
    """Share tokens out: in equal parts within a tier, the rest to the next tier."""
    chunks = []
    for tier in tiers:
        part = _split_evenly(tier, n_tokens, least)
        n_tokens -= sum([n for _, n in part])
        chunks += part
    return chunks


def _split_evenly(prompts: list[_Prompt], n_tokens: int, least: int) -> list[tuple[Lane, int]]:
    """Share tokens out in equal parts; where they don't reach for all, the first get theirs."""
    served = []
    n_needed = 0
    for prompt in prompts:
        if n_needed + prompt.need <= n_tokens:
            n_needed += prompt.need
            served.append(prompt)
    served.sort(key=lambda prompt: prompt.n_open)  # what short ones leave goes to longer ones
    chunks = []
    for i, prompt in enumerate(served):
        n_needed -= prompt.need
        n = min(max(n_tokens // (len(served) - i), prompt.need), n_tokens - n_needed)
        n = prompt.n_open if n >= prompt.n_open else min(n, prompt.n_open - least)
        n_tokens -= n
        chunks.append((prompt.lane, n))
    return chunks


def _depths(decodes: Sequence[Lane]) -> list[int]:
    return [lane.n_computed for lane in decodes]


def _shape(chunks: Sequence[tuple[Lane, int]]) -> list[tuple[int, int]]:
    return [(n, lane.n_computed) for lane, n in chunks]


def _rotated(items: Sequence[T], start: int) -> list[T]:
    start %= len(items)
    return [*items[start:], *items[:start]]
