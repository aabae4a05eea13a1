"""A step of the engine: who gets a slot, what is computed, which tokens come of it.

Owns the running sequences and the order within a step. What is planned, which cells are reused
and how a token is picked is decided by its siblings; it holds them together. Doesn't know threads,
requests that aren't sequences yet, or where deltas go. Imports numpy, `core` and its siblings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import numpy as np

from llamalite.engine.cost import StepCost
from llamalite.engine.picking import logprobs_of
from llamalite.engine.plan import Lane, Limits, plan_step
from llamalite.engine.result import Delta
from llamalite.engine.runner import Runner, Work
from llamalite.engine.sequence import Sequence
from llamalite.engine.slots import SlotTable
from llamalite.engine.stats import Meter
from llamalite.engine.thread_tuner import ThreadTuner
from llamalite.engine.waiting import WaitingQueue
from llamalite.errors import (
    ConstraintError,
    DecodeError,
    EngineError,
    LlamaliteError,
    NoKVSlot,
)

_log = logging.getLogger("llamalite.engine")

_LEARN_EVERY_S = 0.05


class Stepper:
    """Computes steps; one thread at a time.

    Args:
        runner: computes batches.
        new_table: makes an empty slot table over the runner's emptied memory.
        limits: of a step.
        tuner: chooses the threads of steps.
        n_parallel: most sequences computed at once.
        meter: counts.
        deliver: takes each delta of a sequence, or the error that ended it.

    Attributes:
        waiting: sequences without a slot, in order.
        running: sequences with one.
    """

    def __init__(
        self,
        runner: Runner,
        new_table: Callable[[], SlotTable],
        limits: Limits,
        tuner: ThreadTuner,
        n_parallel: int,
        meter: Meter,
        deliver: Callable[[Sequence, Delta | LlamaliteError], None],
    ) -> None:
        self.waiting: WaitingQueue[Sequence] = WaitingQueue()
        self.running: list[Sequence] = []
        self._runner, self._new_table, self._limits = runner, new_table, limits
        self._tuner = tuner
        self._n_parallel, self._meter, self._deliver = n_parallel, meter, deliver
        self._table = new_table()
        self._cost = StepCost()
        self._turn = 0
        self._learned_at = 0.0
        self._is_full = False  # nobody is admitted until one has ended
        context, model = runner.context, runner.context.model
        self._is_mixed = context.kv_unified and not (model.is_recurrent or model.is_hybrid)

    @property
    def n_cells_used(self) -> int:
        """Cells of running and parked sequences, shared ones once for each."""
        return self._table.n_cells_used

    @property
    def n_threads(self) -> int:
        """Threads of decode steps."""
        return self._tuner.n_threads

    def step(self) -> bool:
        """Admit, plan, compute and pick; False if there was nothing to do."""
        self._end_late()
        self._admit()
        self._table.pack()
        work = self._plan()
        if not work:
            return False
        started = time.perf_counter()
        depths = [item.sequence.n_computed for item in work if item.decoded]
        chunks = [(item.n_tokens, item.sequence.n_computed) for item in work if not item.decoded]
        wall_s = [self._compute(batch, started) for batch in self._batches(work)]
        # PERF: short steps alike teach little, and learning takes longer than choosing a token.
        if all(wall_s) and (chunks or started - self._learned_at > _LEARN_EVERY_S):
            self._cost.observe(depths, chunks, sum(wall_s))
            self._learned_at = started
        return True

    def _batches(self, work: list[Work]) -> list[list[Work]]:
        """Return what goes through llama_decode together.

        PERF: with streams and recurrent states libllama computes as many tokens of each sequence
        at once, so that batches of several lengths fall apart anyway; apart from the start, no
        prompt's first token is computed by itself, which would round it otherwise. And it computes
        only neighbouring sequences together, in their order.
        """
        if self._is_mixed or len(work) == 1:
            return [work]
        lengths: dict[tuple[bool, int], list[Work]] = {}
        for item in sorted(work, key=_seq_id):
            lengths.setdefault((item.decoded, item.n_tokens), []).append(item)
        return list(lengths.values())

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for a slot; nothing happens if it does."""
        if sequence not in list(self.waiting):
            self.waiting.push(sequence, sequence.request.priority)

    def end(self, chosen: Callable[[Sequence], bool], reason: str) -> None:
        """End all sequences that are chosen, with that finish reason."""
        for sequence in self._chosen(chosen):
            self._finish(sequence, sequence.finish(reason))

    def fail(self, chosen: Callable[[Sequence], bool], error: LlamaliteError) -> None:
        """End all sequences that are chosen, with an error."""
        for sequence in self._chosen(chosen):
            sequence.finish("cancelled")
            self._finish(sequence, error)

    def reset(self, error: LlamaliteError | None = None) -> None:
        """End what runs, cancelled or with an error; forget every cell, whatever state it had."""
        for sequence in self.running[:]:
            sequence.lease = None
            end = sequence.finish("cancelled")
            self._finish(sequence, end if error is None else error)
        for sequence in self.waiting:
            if sequence.is_told:
                self.waiting.remove(sequence)
        self._forget()

    def _forget(self) -> None:
        self._runner.context.memory.clear()
        self._table = self._new_table()
        self._is_full = False

    def _chosen(self, chosen: Callable[[Sequence], bool]) -> list[Sequence]:
        return [s for s in (*self.running, *self.waiting) if chosen(s)]

    def _end_late(self) -> None:
        if not self.waiting and not any(s.times_out_at for s in self.running):
            return
        now = time.perf_counter()
        self.end(lambda s: s.times_out_at is not None and s.times_out_at <= now, "time_limit")

    def _admit(self) -> None:
        while len(self.running) < self._n_parallel and not self._is_full:
            sequence = self.waiting.peek()
            if sequence is None:
                return
            request = sequence.request
            lease = self._table.acquire(
                sequence.known(),
                request.salt,
                cache=request.cache and not sequence.wants_prompt_logprobs,
            )
            if lease is None:
                return
            # NOTE: here as elsewhere a sequence is in two lists rather than in none for a moment,
            # as an exception of a signal handler may come; `reset` finds it in either.
            sequence.lease = lease
            self.running.append(sequence)
            self.waiting.remove(sequence)

    def _plan(self) -> list[Work]:
        running = self.running
        if all(s.is_decoding for s in running) and len(running) <= self._limits.n_batch:
            return [Work(sequence, 1, True) for sequence in running]  # PERF: nothing to plan
        lanes = {}
        for sequence in self.running:
            lease = sequence.lease
            assert lease is not None
            lanes[sequence.id] = Lane(
                id=sequence.id,
                n_computed=lease.n_computed,
                n_known=sequence.n_known,
                is_decoding=sequence.is_decoding,
                priority=sequence.request.priority,
                stop_at=lease.stop_at,
                is_waiting=lease.is_waiting,
            )
        plan = plan_step(list(lanes.values()), self._cost, self._limits, self._turn)
        self._turn = plan.turn
        by_id = {sequence.id: sequence for sequence in self.running}
        return [
            Work(by_id[share.id], share.n_tokens, lanes[share.id].is_decoding)
            for share in plan.shares
        ]

    def _compute(self, work: list[Work], started: float) -> float:
        """Compute a batch, making room where there is none, and pick; return seconds.

        0 means that nothing could be computed, or less than was planned.
        """
        n_planned = len(work)
        work = [item for item in work if item.sequence.lease is not None]
        n_prefill = sum([item.n_tokens for item in work if not item.decoded])
        n_threads = self._tuner.choose(n_prefill)
        self._runner.set_threads(n_threads)
        while work:
            try:
                wall_s, cpu_s = self._runner.run(work)
            except NoKVSlot:
                if not self._table.make_room():
                    self._preempt(work)
            except DecodeError as error:
                self._fail_all(work, error)
            else:
                self._note(work, n_threads, wall_s, cpu_s)
                self._harvest(work, started)
                return wall_s if len(work) == n_planned else 0.0
        return 0.0

    def _preempt(self, work: list[Work]) -> None:
        """Take the slot of the youngest of the least important, or end the only one there is."""
        if len(self.running) == 1:
            (sequence,) = self.running
            self._finish(sequence, sequence.finish("length"))
        else:
            sequence = max(self.running, key=lambda s: (-s.request.priority, s.id))
            self._send_back(sequence)
            self._is_full = True
            self._meter.count("n_preempted")
        work[:] = [item for item in work if item.sequence is not sequence]

    def _fail_all(self, work: list[Work], error: DecodeError) -> None:
        """End what was in a batch that failed; what the memory holds then isn't known."""
        involved = {item.sequence.id for item in work}
        work.clear()
        self.fail(lambda s: s.id in involved, error)
        for sequence in sorted(self.running, key=lambda s: s.id, reverse=True):
            self._send_back(sequence)  # the oldest to the very front; all compute their tokens anew
        self._forget()

    def _send_back(self, sequence: Sequence) -> None:
        self.waiting.push_front(sequence, sequence.request.priority)
        self._release(sequence, keep=False)
        sequence.preempted()

    def _note(self, work: list[Work], n_threads: int, wall_s: float, cpu_s: float) -> None:
        """Let threads and counts learn from a batch."""
        n_decode = sum([item.decoded for item in work])
        n_prefill = sum([item.n_tokens for item in work if not item.decoded])
        self._tuner.observe(n_decode, n_prefill, n_threads, wall_s, cpu_s)
        self._meter.step(n_decode, n_prefill, wall_s)

    def _harvest(self, work: Iterable[Work], started: float) -> None:
        """Note what is in the cache now, and pick the tokens that this allows."""
        for item in work:
            sequence, lease = item.sequence, item.sequence.lease
            if lease is None:  # a sibling's error has ended it
                continue
            sequence.start(started)
            if sequence.wants_prompt_logprobs and not item.decoded:
                try:
                    self._read_prompt(item)
                except Exception as error:
                    self._fail_request(sequence, error)
                    continue
            if item.decoded:
                tokens = np.asarray(sequence.tokens[-1:], np.int32)
            else:
                tokens = sequence.next_tokens(item.n_tokens)
            self._table.advance(lease, tokens, decoded=item.decoded)
            if item.picks:
                self._pick(item)

    def _read_prompt(self, item: Work) -> None:
        sequence, k = item.sequence, item.sequence.request.prompt_logprobs or 0
        start, prompt = sequence.n_computed, sequence.prompt
        for offset in range(item.n_tokens):
            target = start + offset + 1
            if target == len(sequence.prompt_logprobs) + 1 and target < len(prompt):
                logits = self._runner.context.logits(item.first_row + offset)
                sequence.prompt_logprobs.append(logprobs_of(logits, int(prompt[target]), k))

    def _pick(self, item: Work) -> None:
        sequence = item.sequence
        if not sequence.limit:  # only its prompt was asked about
            self._finish(sequence, sequence.finish("length"))
            return
        try:
            history = sequence.known() if sequence.request.processors else ()
            picked = sequence.picker.pick(self._runner.context, item.last_row, history)
            delta = sequence.take(picked, time.perf_counter())
        except ConstraintError:
            delta = sequence.finish("constraint")
        except Exception as error:
            self._fail_request(sequence, error)
            return
        if sequence.gap_s is not None:
            self._meter.gap(sequence.gap_s)
        if delta.finish_reason is not None:
            self._finish(sequence, delta)
        else:
            self._deliver(sequence, delta)

    def _fail_request(self, sequence: Sequence, error: Exception) -> None:
        """End all answers of a request, since its rows can't be read or picked from."""
        if not isinstance(error, LlamaliteError):
            _log.error("picking a token failed", exc_info=error)
            error = EngineError(f"picking a token failed: {type(error).__name__}: {error}")
        self.fail(lambda s: s.request_id == sequence.request_id, error)

    def _finish(self, sequence: Sequence, end: Delta | LlamaliteError) -> None:
        """Tell how a sequence ended, and take it out, wherever it is."""
        self._deliver(sequence, end)
        if sequence in self.running:
            self._release(sequence, keep=True)
            self._is_full = False
        self.waiting.remove(sequence)

    def _release(self, sequence: Sequence, *, keep: bool) -> None:
        self.running.remove(sequence)
        lease, sequence.lease = sequence.lease, None
        if lease is not None:
            self._table.release(lease, keep=keep)


def _seq_id(item: Work) -> int:
    lease = item.sequence.lease
    return -1 if lease is None else lease.seq_id
