"""Who is where, when a step is broken off or fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llamalite.engine.plan import Limits
from llamalite.engine.request import GenerationRequest
from llamalite.engine.runner import Work
from llamalite.engine.sequence import Sequence
from llamalite.engine.stepper import Stepper
from llamalite.errors import DecodeError


class _Table:
    def acquire(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(is_waiting=False, n_computed=0)

    def release(self, lease: Any, *, keep: bool) -> None:
        pass


class Bench:
    def __init__(self, n_parallel: int) -> None:
        runner: Any = SimpleNamespace(
            context=SimpleNamespace(
                kv_unified=False,
                model=SimpleNamespace(is_recurrent=False, is_hybrid=False),
                memory=SimpleNamespace(clear=lambda: None),
            )
        )
        nothing: Any = SimpleNamespace()
        self.told: list[tuple[Sequence, Any]] = []
        self.stepper = Stepper(
            runner,
            _Table,
            Limits(0.1, 0.5, 64, 64),
            nothing,
            n_parallel,
            nothing,
            self._deliver,  # type: ignore[arg-type]
        )
        picker: Any = SimpleNamespace(close=lambda: None)
        self.sequences = [
            Sequence(
                i, 0, GenerationRequest([1, 2]), np.array([1, 2], np.int32), 10, picker, None,
                nothing, nothing, 0.0,
            )
            for i in range(4)
        ]  # fmt: skip
        for sequence in self.sequences:
            self.stepper.add(sequence)
            self.stepper.add(sequence)

    def _deliver(self, sequence: Sequence, item: Any) -> None:
        if not sequence.is_told:  # as the engine does
            self.told.append((sequence, item))
            sequence.is_told = True


def test_sequences_wait_once() -> None:
    bench = Bench(2)
    assert list(bench.stepper.waiting) == bench.sequences


def test_a_failed_batch_sends_the_others_back_in_order_of_age() -> None:
    bench = Bench(3)
    bench.stepper._admit()
    assert bench.stepper.running == bench.sequences[:3]
    bench.stepper._fail_all([Work(bench.sequences[1], 1, False)], DecodeError("no"))
    assert [sequence for sequence, _ in bench.told] == [bench.sequences[1]]
    assert not bench.stepper.running
    assert list(bench.stepper.waiting) == [bench.sequences[i] for i in (0, 2, 3)]


@pytest.mark.parametrize("broken", ["remove", "_release", "_deliver", "push_front"])
def test_ctrl_c_anywhere_loses_no_sequence(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is interrupted, everybody's end is told once, or it still waits."""
    bench = Bench(2)
    stepper = bench.stepper

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        with monkeypatch.context() as patch:
            if broken == "remove":
                patch.setattr(stepper.waiting, "remove", interrupt)
            stepper._admit()
            owner = stepper.waiting if broken == "push_front" else stepper
            patch.setattr(owner, broken, interrupt)
            if broken == "push_front":
                stepper._preempt([])
            else:
                stepper.end(lambda s: s is bench.sequences[0], "cancelled")

    with pytest.raises(KeyboardInterrupt):
        work()
    stepper.reset()
    told = [sequence for sequence, _ in bench.told]
    waiting = list(stepper.waiting)
    assert not stepper.running
    assert sorted([s.id for s in told] + [s.id for s in waiting]) == [s.id for s in bench.sequences]
