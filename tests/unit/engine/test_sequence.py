from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llamalite.engine.picking import Picked
from llamalite.engine.request import GenerationRequest
from llamalite.engine.result import TokenLogprobs
from llamalite.engine.sequence import Sequence
from llamalite.errors import ConstraintError

END = 99


class _Vocab:
    def is_eog(self, token: int) -> bool:
        return token == END

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return b"<%d>" % token


class _Native:
    is_over = False

    def close(self) -> None:
        pass


class _Slow(_Native):
    @property
    def is_over(self) -> bool:  # type: ignore[override]
        raise ConstraintError("too many readings")


def sequence(matcher: Any = None, **more: Any) -> Sequence:
    request = GenerationRequest([1, 2], **more)
    picker: Any = _Native()
    vocab: Any = _Vocab()
    sink: Any = None
    return Sequence(
        1, 0, request, np.array([1, 2], np.int32), 10, picker, matcher, vocab, sink, 0.0
    )


def test_a_token_after_which_the_constraint_gives_up_is_not_lost() -> None:
    logprobs = TokenLogprobs(5, -1.0, ())
    delta = sequence(_Slow()).take(Picked(5, logprobs), 1.0)
    assert (delta.finish_reason, delta.text, delta.tokens) == ("constraint", "<5>", (5,))
    assert delta.logprobs == (logprobs,)


@pytest.mark.parametrize("tokens", [[END], [5, END], [5, 6, END]])
def test_log_probabilities_of_the_prompt_are_told_once(tokens: list[int]) -> None:
    one = sequence(prompt_logprobs=0)
    one.prompt_logprobs.append(TokenLogprobs(2, -1.0, ()))
    deltas = [one.take(Picked(token), 1.0) for token in tokens]
    assert [delta.prompt_logprobs is not None for delta in deltas] == [True] + [False] * (
        len(tokens) - 1
    )
