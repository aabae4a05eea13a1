"""From a loaded model and options to what computes steps: context, slots, limits, threads.

Imports `core` and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable

from llamalite.core.context import Context
from llamalite.engine.loading import Loaded
from llamalite.engine.plan import Limits
from llamalite.engine.request import EngineOptions
from llamalite.engine.result import Delta
from llamalite.engine.runner import Runner
from llamalite.engine.sequence import Sequence
from llamalite.engine.slot_memory import SlotMemory
from llamalite.engine.slots import SlotTable
from llamalite.engine.stats import Meter
from llamalite.engine.stepper import Stepper
from llamalite.engine.thread_tuner import ThreadTuner
from llamalite.errors import LlamaliteError

_IDLE_BUDGET_S = 0.5
"""A step may take this long while nobody waits for a next token: arrivals and cancels do."""

MIN_CHUNK = 2
"""Tokens of a prompt computed at once, at least: one alone rounds otherwise than several."""


def make_stepper(
    loaded: Loaded,
    options: EngineOptions,
    meter: Meter,
    deliver: Callable[[Sequence, Delta | LlamaliteError], None],
) -> tuple[Stepper, Context]:
    """Return what computes steps, and its context, which is closed with the model.

    Raises:
        ModelLoadError: the context can't be made.
        AdapterError: an adapter can't be loaded.
    """
    # Made first, so that it knows at the first step how busy the machine is.
    tuner = ThreadTuner(
        loaded.params["n_threads"],
        loaded.params["n_threads_batch"],
        fixed=loaded.threads_are_fixed or not options.adapt_threads,
    )
    context = Context(loaded.model, **loaded.params)
    context.set_loras(loaded.adapters)
    limits = Limits(
        budget_s=options.step_budget_s,
        idle_budget_s=max(_IDLE_BUDGET_S, options.step_budget_s),
        n_batch=context.n_batch,
        n_ubatch=min(loaded.params["n_ubatch"], context.n_batch),
        min_chunk=MIN_CHUNK,
    )
    stepper = Stepper(
        Runner(context),
        lambda: SlotTable(
            SlotMemory(context), context.n_seq_max, reuse=options.reuse, min_tail=MIN_CHUNK
        ),
        limits,
        tuner,
        options.n_parallel,
        meter,
        deliver,
    )
    return stepper, context
