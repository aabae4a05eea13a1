"""One step's computation: a planned batch through llama_decode.

Owns the context and the batch. Doesn't know why these tokens were chosen, nor what becomes of the
rows. Imports numpy, `core` and its siblings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.engine.sequence import Sequence


@dataclass(slots=True)
class Work:
    """What a step does for one sequence.

    Attributes:
        n_tokens: how many of its tokens are computed.
        decoded: whether that is the one token chosen last.
        first_row: where they begin in the batch.
        picks: whether the last of them is the last known, so that a token is picked from its row.
    """

    sequence: Sequence
    n_tokens: int
    decoded: bool
    first_row: int = 0
    picks: bool = False

    @property
    def last_row(self) -> int:
        """Row of its last token."""
        return self.first_row + self.n_tokens - 1


class Runner:
    """Computes batches in a context; engine thread only.

    Args:
        context: the context; closed with the model.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        n_vocab = context.model.vocab.n_tokens
        self._batch = Batch(context.n_batch, n_vocab, context.n_seq_max)
        self._n_threads = 0

    def set_threads(self, n_threads: int) -> None:
        """Use so many threads from the next batch on."""
        if n_threads != self._n_threads:
            self._n_threads = n_threads
            self.context.set_threads(n_threads)

    def run(self, work: Iterable[Work]) -> tuple[float, float]:
        """Compute a batch; return seconds of wall and of processor time.

        Raises:
            NoKVSlot: the memory is full and as it was before.
            DecodeError: the computation failed.
        """
        batch = self._batch
        batch.clear()
        for item in work:
            self._add(item)
        # NOTE: the clock of the process counts all its threads.
        wall, cpu = time.perf_counter(), time.process_time()
        self.context.decode(batch, wait=True)
        return time.perf_counter() - wall, time.process_time() - cpu

    def _add(self, item: Work) -> None:
        sequence, batch = item.sequence, self._batch
        lease = sequence.lease
        assert lease is not None
        item.first_row = batch.n_tokens
        item.picks = lease.n_computed + item.n_tokens == sequence.n_known
        if item.decoded:
            batch.add(sequence.tokens[-1], lease.n_computed, (lease.seq_id,), output=True)
            return
        outputs = "last" if item.picks else "none"
        if sequence.wants_prompt_logprobs:
            outputs = "all"
        batch.extend(
            sequence.next_tokens(item.n_tokens), lease.n_computed, lease.seq_id, outputs=outputs
        )
