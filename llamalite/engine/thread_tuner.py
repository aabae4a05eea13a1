"""How many threads the next step should have, learned while the engine runs.

ggml's threads spin at a barrier after every operation, so one that has to wait for a core stops all
of them: two threads beside one busy process are several times slower than one. Other work on the
machine therefore decides how many threads are best, and it comes and goes.

Owns that choice and nothing else: it sees the durations of steps and counters of the machine, and
makes no native call. Imports its sibling `threads` and the standard library.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from llamalite.engine.threads import allowed_cpus, idle_cpu_s

_WINDOW_S = 0.2  # the kernel counts idle time in hundredths of a second
_PAUSE_S = 0.1
_LOW_S = 0.3
_PROBE_S, _PROBE_STEPS, _LONG_PROBE_S = 0.1, 3, 0.3
_CLEARLY_SLOWER, _CLEARLY_AFTER_S = 1.3, 0.03
_UNLIKE, _UNLIKE_FOR_S = 2.0, 1.0
_GAIN_DOWN, _GAIN_UP = 0.97, 0.95
_NEARLY_A_CORE = 0.25
_FORGOTTEN_S = 5.0
_HINTED_S, _EXPLORE_S = (0.3, 60.0), (20.0, 600.0)
_HINTED_LOSSES, _EXPLORE_LOSSES = 20, 100


class CoreMeter:
    """Measure how many cores this process has or could have: what it uses and what lies idle.

    Args:
        clock: seconds, monotonic.
        own_s: CPU seconds this process has used.
        idle_s: CPU seconds its CPUs have been idle, summed; None where unknown.
        n_cpus: how many those are.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        own_s: Callable[[], float] = time.process_time,
        idle_s: Callable[[], float | None] = idle_cpu_s,
        n_cpus: int | None = None,
    ) -> None:
        self.n_cpus = n_cpus or len(allowed_cpus() or ()) or os.cpu_count() or 1
        self._clock, self._own_s, self._idle_s = clock, own_s, idle_s
        self._last = self._read()

    def _read(self) -> tuple[float, float, float | None]:
        return self._clock(), self._own_s(), self._idle_s()

    def lap(self) -> float | None:
        """Return the mean number of cores since the last call; None if that can't be told."""
        (then, own_then, idle_then), self._last = self._last, self._read()
        now, own, idle = self._last
        if idle is None or idle_then is None or now <= then:
            return None
        return (own - own_then + max(0.0, idle - idle_then)) / (now - then)


class ThreadTuner:
    """Choose the number of threads of each step; for use by one thread.

    How many cores are to be had says what to try; only steps that took less time than like ones
    before decide. A try that fails costs a few slow steps, and the next one waits the longer, the
    more it cost.

    Args:
        n_threads: most threads of a step that only decodes.
        n_threads_batch: most threads of a step with prompt tokens; None for n_threads.
        fixed: always use just these.
        clock: seconds, monotonic.
        meter: measures the cores to be had; its clock is the same.
    """

    def __init__(
        self,
        n_threads: int,
        n_threads_batch: int | None = None,
        *,
        fixed: bool = False,
        clock: Callable[[], float] = time.monotonic,
        meter: CoreMeter | None = None,
    ) -> None:
        self._most, self._most_batch = n_threads, n_threads_batch or n_threads
        self._fixed = fixed or n_threads == 1
        self._clock = clock
        self._meter = meter or CoreMeter(clock)
        self._settled = n_threads
        self._window = _Window()
        self._probe: _Probe | None = None
        self._seen_at = now = clock()
        self._lowered_at = -math.inf
        self._low_s = 0.0
        self._down, self._up = _Patience(now), _Patience(now)

    @property
    def n_threads(self) -> int:
        """The number of decode threads settled on, whatever is being tried."""
        return self._settled

    def choose(self, n_prefill: int = 0) -> int:
        """Return the number of threads for the next step.

        Args:
            n_prefill: prompt tokens in it. libllama takes n_threads_batch for every batch of more
                than one token, so set both of a context's counts to what this returns.
        """
        if not self._fixed and self._clock() - self._seen_at > _PAUSE_S:
            self._resume()
        return self._current(n_prefill)

    def observe(
        self, n_rows: int, n_prefill: int, n_threads: int, wall_s: float, cpu_s: float
    ) -> None:
        """Learn from a step.

        Args:
            n_rows: tokens of sequences that decode.
            n_prefill: prompt tokens.
            n_threads: what it ran with; ignored if that is not what was chosen.
            wall_s: how long llama_decode took.
            cpu_s: CPU seconds the process used in it.
        """
        n_tokens = n_rows + n_prefill
        self._seen_at = self._clock()
        if self._fixed or not n_tokens or n_threads != self._current(n_prefill):
            return
        if self._probe:
            self._probe.add(n_tokens, wall_s)
            self._judge(self._probe)
            return
        self._window.add(n_tokens, wall_s, cpu_s)
        if self._window.wall_s >= _WINDOW_S:
            self._consider(self._window)
            self._window = _Window()

    def _current(self, n_prefill: int) -> int:
        n_threads = self._probe.n_threads if self._probe else self._settled
        return max(1, self._most_batch * n_threads // self._most) if n_prefill else n_threads

    def _resume(self) -> None:
        """Start again after a pause, with the cores that were to be had meanwhile."""
        cores = self._meter.lap()
        self._seen_at = self._clock()
        self._window, self._probe = _Window(), None
        worth = self._settled if cores is None else self._worth(cores)
        way = self._down if worth < self._settled else self._up
        if worth != self._settled and way.is_due(self._seen_at, hinted=True):
            self._settle(worth)

    def _worth(self, cores: float, n_spinning: int = 0) -> int:
        """Return how many threads can run undisturbed where so many got so much."""
        if cores < n_spinning:
            # All got equal shares of all CPUs: the others' number follows, and what they leave.
            n_cpus = self._meter.n_cpus
            cores = n_cpus + n_spinning - n_cpus * n_spinning / max(cores, 0.1)
        return max(1, min(self._most, math.floor(cores + _NEARLY_A_CORE)))

    def _settle(self, n_threads: int) -> None:
        is_lower, self._settled = n_threads < self._settled, n_threads
        now = self._seen_at
        self._down.renew(now)
        if is_lower:
            # NOTE: of a neighbour that comes and goes, only its coming is followed at once: too
            # many threads cost more than too few.
            if now - self._lowered_at < max(_FORGOTTEN_S, 2 * self._up.hinted_s):
                self._up.failed(now)
            else:
                self._up.renew(now)
            self._lowered_at = now
        self._up.n_failed = 0

    def _consider(self, window: _Window) -> None:
        """Begin to try another number of threads if there is a reason to."""
        now, settled = self._seen_at, self._settled
        cores = self._meter.lap()
        if cores is None:
            cores = min(1.0, window.cpu_s / window.wall_s / settled) * settled
        worth = self._worth(cores, settled)
        # NOTE: a short window alone may be low by chance; a neighbour that stays shows in the next.
        self._low_s = self._low_s + window.wall_s if worth < settled else 0.0
        is_low = self._low_s >= _LOW_S
        down = self._down.is_due(now, hinted=is_low)
        up = self._up.is_due(now, hinted=worth > settled)
        if down and settled > 1 and worth <= settled:
            lower = worth if is_low else settled // 2
            self._try(lower, self._down, window, is_hinted=is_low)
        elif up and worth >= settled < self._most:
            higher = worth if worth > settled else self._most
            self._try(higher, self._up, window, is_hinted=worth > settled)

    def _try(
        self, n_threads: int, patience: _Patience, window: _Window, *, is_hinted: bool
    ) -> None:
        jump = abs(n_threads - self._settled) >> patience.n_failed
        sign = 1 if n_threads > self._settled else -1
        presumed = sign < 0 and is_hinted  # too many threads cost more than too few
        self._probe = _Probe(self._settled + sign * max(1, jump), window, presumed)

    def _judge(self, probe: _Probe) -> None:
        """Settle on what is tried, give it up, or wait for more steps."""
        is_up = probe.n_threads > self._settled
        is_better = probe.is_better(_GAIN_UP if is_up else _GAIN_DOWN)
        if is_better is None:
            return
        self._probe = None
        if is_better:
            self._settle(probe.n_threads)
        else:
            (self._up if is_up else self._down).failed(self._seen_at, probe.loss_s)
        self._meter.lap()  # of what was tried; the next window is to show the settled number


class _Window:
    """What steps with one number of threads took, by their number of tokens."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._steps: dict[int, tuple[int, float]] = {}

    def add(self, n_tokens: int, wall_s: float, cpu_s: float) -> None:
        """Take a step."""
        self.wall_s += wall_s
        self.cpu_s += cpu_s
        count, sum_s = self._steps.get(n_tokens, (0, 0.0))
        self._steps[n_tokens] = count + 1, sum_s + wall_s

    def expected_s(self, n_tokens: int) -> tuple[float, float]:
        """Return between which two durations a step of so many tokens would have been.

        One with more tokens than those seen takes no less time, and not more in proportion.
        """
        nearest = min(self._steps, key=lambda seen: abs(math.log(seen / n_tokens)))
        count, sum_s = self._steps[nearest]
        mean_s = sum_s / count
        in_proportion_s = mean_s * n_tokens / nearest
        return min(mean_s, in_proportion_s), max(mean_s, in_proportion_s)


@dataclass
class _Probe:
    """A try of another number of threads, against steps with the settled one before it.

    Attributes:
        presumed: whether it is taken for better where the steps before tell nothing about these.
        loss_s: seconds it has surely cost.
    """

    n_threads: int
    before: _Window
    presumed: bool
    loss_s: float = 0.0
    _n_steps: int = 0
    _wall_s: float = 0.0
    _low_s: float = 0.0
    _high_s: float = 0.0
    _unlike_s: float = 0.0

    def add(self, n_tokens: int, wall_s: float) -> None:
        """Take a step."""
        low_s, high_s = self.before.expected_s(n_tokens)
        if high_s > _UNLIKE * low_s and low_s < wall_s < high_s:
            self._unlike_s += wall_s
            return
        self._n_steps += 1
        self._wall_s += wall_s
        self._low_s += low_s
        self._high_s += high_s
        self.loss_s = max(0.0, self._wall_s - self._high_s)

    def is_better(self, gain: float) -> bool | None:
        """Say whether its steps took at most this part of what they would have; None: not yet."""
        wall_s = self._wall_s
        if wall_s > max(_CLEARLY_SLOWER * self._high_s, _CLEARLY_AFTER_S):
            return False
        if self._unlike_s > _UNLIKE_FOR_S:
            return self.presumed
        enough = wall_s >= _PROBE_S and self._n_steps >= _PROBE_STEPS
        if not enough and wall_s < _LONG_PROBE_S:
            return None
        return wall_s <= gain * self._low_s


class _Patience:
    """How long to wait before one direction is tried again.

    Attributes:
        n_failed: tries in a row that failed.
    """

    def __init__(self, now: float) -> None:
        self.renew(now)
        self._hinted_at = -math.inf

    def renew(self, now: float) -> None:
        """Forget what failed."""
        self._since, self.n_failed = now, 0
        self.hinted_s, self._explore_s = 0.0, _EXPLORE_S[0]

    def failed(self, now: float, loss_s: float = 0.0) -> None:
        """Wait longer, in proportion to what the try has cost at least."""
        self._since, self.n_failed = now, self.n_failed + 1
        hinted_s = max(_HINTED_S[0], 2 * self.hinted_s)
        if self.n_failed > 1:  # the first is free: what changes in a window makes it misjudge
            hinted_s = max(hinted_s, _HINTED_LOSSES * loss_s)
        explore_s = max(2 * self._explore_s, _EXPLORE_LOSSES * loss_s)
        self.hinted_s = min(hinted_s, _HINTED_S[1])
        self._explore_s = min(explore_s, _EXPLORE_S[1])

    def is_due(self, now: float, *, hinted: bool) -> bool:
        """Say whether to try, given whether the machine's counters speak for it."""
        if hinted:
            if now - self._hinted_at > _FORGOTTEN_S:
                self.hinted_s, self.n_failed = 0.0, 0  # this hint isn't the one that misled
            self._hinted_at = now
        return now - self._since >= (self.hinted_s if hinted else self._explore_s)
