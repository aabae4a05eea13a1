"""What a step costs, learned from the steps that were.

Owns a model of seconds by shape of the batch. Doesn't know lanes, budgets or clocks. Imports the
standard library alone.

The model: a step of T tokens, P of them of prompts at a mean depth of z thousand, takes

    base(T) + z x slope(P) x base(P) + Z x row_slope x base(1)

seconds, where Z is the summed depth of the decoded rows in thousands, and base and slope x base
are lines between knots at 1, 2, 4, 8, ... tokens: no law is assumed of how much cheaper a token
gets in company. An observation moves the few weights it depends on as a Kalman filter with a
diagonal covariance does: the least certain ones move most. Knots of base that nobody has visited
follow from two facts: more tokens don't cost less, and twice as many don't cost more than twice
as much. Such of slope take that seen last.
"""

from __future__ import annotations

from collections.abc import Sequence

_N_KNOTS = 18
"""Up to 2^17 tokens; more cost in proportion."""

_ROW_SLOPE = 2 * _N_KNOTS

_FIRST_TOKEN_S = 0.03
"""Cost of a token before any was seen. High, as a step that is too short costs next to nothing
and one that is too long can't be taken back."""

_FIRST_SLOPE = 0.2
"""How much dearer 1,000 tokens of depth make a token, before that was seen."""

_LEAST_DEPTH = 0.1
"""Depth, in thousands, from which on a step says something about slopes."""

_NOISE = 0.02
"""Variance of observed over predicted seconds (14 % of deviation)."""

_DRIFT = 0.002
"""What a weight's relative variance grows by with each observation."""

_UNKNOWN = 1.0
"""Relative variance of a guess."""

_KNOWN = 0.3
"""Relative variance below which a weight isn't changed for the sake of a less certain one."""

_NOTABLE = 0.05
"""Share of a prediction from which on a weight can be the reason for a surprise."""

_SURPRISE = 1.4
"""An observation off by more than this counts in full only if the one before was off, too."""

_DOUBT = 10.0
"""What variances are multiplied with when that happens."""

_MOST_GAIN = 3.0
"""How much further than the prediction was off, in logarithms, a weight may move."""

_LEAST_S, _LEAST_SLOPE = 1e-7, 0.002
"""Weights change by factors, so none may vanish."""


class StepCost:
    """Learns and predicts how long steps take; one thread at a time.

    A step is given by the depths of its decoded tokens (how many precede each in its sequence),
    and by its prompt chunks, each as (n_tokens, depth of its first token).
    """

    def __init__(self) -> None:
        # Seconds at the knots of base; then slopes, as parts of the base at the same knot.
        self._weights = [_FIRST_TOKEN_S * (1 << k) for k in range(_N_KNOTS)]
        self._weights += [_FIRST_SLOPE] * (_N_KNOTS + 1)
        # NOTE: the decoded rows' slope counts as known, as depth is seldom what surprises there.
        self._variances = [*[_UNKNOWN] * (2 * _N_KNOTS), _KNOWN / 3]
        self._unseen = set(range(_N_KNOTS, _ROW_SLOPE))  # slopes
        self._last_ratios: dict[tuple[int, int], float] = {}

    def predict(self, decode_depths: Sequence[int], chunks: Sequence[tuple[int, int]]) -> float:
        """Return the seconds a step is expected to take; 0.0 for an empty one."""
        return sum([seconds for _, seconds in self._parts(decode_depths, chunks)])

    def observe(
        self, decode_depths: Sequence[int], chunks: Sequence[tuple[int, int]], seconds: float
    ) -> None:
        """Learn from a step that was computed."""
        parts = self._parts(decode_depths, chunks)
        if not parts or not seconds > 0:
            return
        predicted = sum([part for _, part in parts])
        n_prompt, depth = _prompt_shape(chunks)
        n_all = len(decode_depths) + n_prompt
        shape = n_all.bit_length(), n_prompt.bit_length()
        is_new = shape not in self._last_ratios
        ratio = self._believed(shape, seconds / predicted)
        if not is_new and not 1 / _SURPRISE <= ratio <= _SURPRISE:
            for i, _ in parts:  # the machine has changed, and what was learned is worth less
                self._variances[i] = min(_DOUBT * self._variances[i], _UNKNOWN)
        self._correct([(i, part / predicted) for i, part in parts if part > 0], ratio)
        for k, share in sorted(_between(n_all), key=lambda pair: pair[1]):
            if share:
                self._level(k)
        if n_prompt and depth > _LEAST_DEPTH:
            self._learned_slope(_slope_of(n_prompt))

    def _parts(
        self, decode_depths: Sequence[int], chunks: Sequence[tuple[int, int]]
    ) -> list[tuple[int, float]]:
        """Return the weights a step depends on, each with the seconds it stands for."""
        n_decode, (n_prompt, depth) = len(decode_depths), _prompt_shape(chunks)
        if not n_decode + n_prompt:
            return []
        weights = self._weights
        parts = [(k, x * weights[k]) for k, x in _between(n_decode + n_prompt)]
        if n_prompt:
            base = sum([x * weights[k] for k, x in _between(n_prompt)])
            slope = _slope_of(n_prompt)
            parts.append((slope, depth * weights[slope] * base))
        if n_decode:
            parts.append((_ROW_SLOPE, sum(decode_depths) / 1000 * weights[_ROW_SLOPE] * weights[0]))
        return parts

    def _believed(self, shape: tuple[int, int], ratio: float) -> float:
        """Return how far off a step counts as, having taken `ratio` times its prediction.

        A machine that was busy for a moment makes one step long; one that has become slower makes
        all so.
        """
        last = self._last_ratios.get(shape, ratio)
        self._last_ratios[shape] = ratio
        return min(max(ratio, min(last, 1 / _SURPRISE)), max(last, _SURPRISE))

    def _correct(self, shares: list[tuple[int, float]], ratio: float) -> None:
        """Move the weights so that the prediction comes nearer to `ratio` times itself.

        Args:
            shares: the weights it depends on, each with its share of the prediction.
            ratio: what was observed, over the prediction.
        """
        weights, variances = self._weights, self._variances
        if not 1 / _SURPRISE <= ratio <= _SURPRISE:
            # What is known keeps its worth while something unknown can be the reason.
            shares = [
                (i, share) for i, share in shares if variances[i] >= _KNOWN and share >= _NOTABLE
            ] or shares
        total = _NOISE + sum([variances[i] * share**2 for i, share in shares])
        for i, share in shares:
            gain = min(variances[i] * share / total, _MOST_GAIN)
            factor = min(ratio**gain, max(ratio / share, 1.0))
            weights[i] = max(weights[i] * factor, _LEAST_S if i < _N_KNOTS else _LEAST_SLOPE)
            variances[i] += _DRIFT * share - variances[i] * gain * share

    def _learned_slope(self, slope: int) -> None:
        """Let slopes that nobody has seen follow from the one just learned."""
        self._unseen.discard(slope)
        for other in self._unseen:
            self._weights[other] = self._weights[slope]

    def _level(self, knot: int) -> None:
        """Let the base at other knots follow from that at one, and that from better known ones."""
        base = self._weights
        below, above = base[max(knot - 1, 0)], base[min(knot + 1, _N_KNOTS - 1)]
        is_level = base[knot] / 2 <= below <= base[knot] <= above <= 2 * base[knot]
        if is_level and self._variances[knot] < _KNOWN:
            return  # PERF: nearly always so
        known = [k for k in range(_N_KNOTS) if self._variances[k] < _KNOWN]
        first, last = 0, _N_KNOTS - 1
        if knot not in known:
            for k in known:
                ratio = 2.0 ** (knot - k)
                base[knot] = min(max(base[knot], base[k] * min(1, ratio)), base[k] * max(1, ratio))
            first = max((k + 1 for k in known if k < knot), default=first)
            last = min((k - 1 for k in known if k > knot), default=last)
        for k in range(knot, last):
            if base[k] <= base[k + 1] <= 2 * base[k]:
                break
            base[k + 1] = min(max(base[k + 1], base[k]), 2 * base[k])
        for k in range(knot, first, -1):
            if base[k] / 2 <= base[k - 1] <= base[k]:
                break
            base[k - 1] = min(max(base[k - 1], base[k] / 2), base[k])


def _prompt_shape(chunks: Sequence[tuple[int, int]]) -> tuple[int, float]:
    """Return the prompt tokens of a step, and their mean depth in thousands."""
    n_prompt = sum([n for n, _ in chunks])
    if not n_prompt:
        return 0, 0.0
    return n_prompt, sum([n * (start + n / 2) for n, start in chunks]) / (1000 * n_prompt)


def _slope_of(n_prompt: int) -> int:
    """Return the weight that says how depth counts for so many prompt tokens."""
    return _N_KNOTS + min(n_prompt.bit_length(), _N_KNOTS) - 1


def _between(n_tokens: int) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return the knots on both sides of a number of tokens, and how much each counts."""
    last = _N_KNOTS - 1
    if n_tokens >= 1 << last:
        return (last - 1, 0.0), (last, n_tokens / (1 << last))
    knot = n_tokens.bit_length() - 1
    upper = n_tokens / (1 << knot) - 1
    return (knot, 1 - upper), (knot + 1, upper)
