"""What crosses between processes comes out as it went in, and nothing else comes in."""

from __future__ import annotations

import io
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_engine import FACTS

from llamalite import errors
from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.engine.process import wire
from llamalite.engine.process.crossing import (
    array_of,
    embed_message,
    embedding_request_of,
    error_of,
    problem_of,
    request_of,
    rows_of,
    submit_message,
)
from llamalite.engine.process.wire import FromEngine, Messages, Step, Submit, ToEngine, frame
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.result import Delta, Timings, TokenLogprobs, Usage
from llamalite.engine.stats import EngineStats, Histogram
from llamalite.errors import InvalidParameter, LlamaliteError


def crossed(message: wire.Message, kinds: Any) -> Any:
    return Messages(io.BytesIO(frame(message)), kinds).read()


def sent(request: GenerationRequest) -> GenerationRequest:
    message = crossed(submit_message(7, request), ToEngine)
    assert message.id == 7
    return request_of(message)


def test_a_request_crosses_with_all_that_was_set() -> None:
    request = GenerationRequest(
        [1, 2, 3],
        SamplingConfig(
            temperature=0,
            top_k=7,
            seed=5,
            stop=("a", "b"),
            samplers=("top_k", "temperature"),
            logit_bias={3: -math.inf, 4: 1.5},
            max_tokens=9,
            ignore_eos=True,
        ),
        n=3,
        constraint=Constraint("regex", "[a-z]+"),
        think_end="</think>",
        stop_tokens=(4, 5),
        logprobs=2,
        prompt_logprobs=0,
        priority=-3,
        salt="tenant",
        cache=False,
        time_limit_s=2.5,
        special=True,
    )
    came = sent(request)
    assert list(came.prompt) == [1, 2, 3]
    for name in vars(request):
        if name != "prompt":
            assert getattr(came, name) == getattr(request, name), name


def test_only_what_differs_from_the_defaults_is_sent() -> None:
    assert submit_message(1, GenerationRequest([1])).fields == {"sampling": {}}


@pytest.mark.parametrize(
    "prompt", [[2**31 - 1, 0, -1], np.arange(5, dtype=np.int32), np.arange(5, dtype=np.uint64), ()]
)
def test_prompts_cross_in_any_form(prompt: Any) -> None:
    assert list(sent(GenerationRequest(prompt)).prompt) == list(prompt)


@pytest.mark.parametrize("prompt", [[2**31], [1.5], ["a"], [[1, 2]], [True, "x"], [2**70]])
def test_what_is_no_prompt_is_refused_before_it_is_sent(prompt: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        submit_message(1, GenerationRequest(prompt))
    assert caught.value.param == "prompt"


def test_numbers_of_numpy_cross_as_numbers() -> None:
    sampling = SamplingConfig(logit_bias={np.int64(3): np.float32(0.5)})  # type: ignore[dict-item]
    request = GenerationRequest([1], sampling, stop_tokens=(np.int32(7),))  # type: ignore[arg-type]
    came = sent(request)
    assert came.stop_tokens == (7,)
    assert came.sampling.logit_bias == {3: 0.5}


def test_what_cannot_be_sent_is_an_error_of_the_request() -> None:
    with pytest.raises(InvalidParameter, match="can't be sent"):
        frame(submit_message(1, GenerationRequest([1], stop_tokens=(object(),))))  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter) as caught:
        submit_message(1, GenerationRequest([1], processors=(lambda _tokens, _row: None,)))
    assert caught.value.param == "processors"


def test_a_request_is_checked_on_arrival_too() -> None:
    for fields in (
        {"n": 0},
        {"colour": 1},
        {"sampling": {"top_p": 7}},
        {"constraint": {"kind": "x"}},
    ):
        with pytest.raises(errors.RequestError):
            request_of(Submit(1, b"\1\0\0\0", fields))
    with pytest.raises(InvalidParameter):
        request_of(Submit(1, b"\1\0\0", {}))


def test_texts_to_embed_and_embeddings_cross() -> None:
    message = crossed(embed_message(3, EmbeddingRequest([[1, 2], [], [3]], "cls", 4)), ToEngine)
    came = embedding_request_of(message)
    assert [list(prompt) for prompt in came.prompts] == [[1, 2], [], [3]]
    assert (came.pooling, came.priority) == ("cls", 4)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    step = crossed(Step(embeddings=[(3, rows_of(rows))]), FromEngine)
    np.testing.assert_array_equal(array_of(step.embeddings[0][1]), rows)
    assert array_of(rows_of(np.empty((0, 3), np.float32))).shape[0] == 0


def test_a_step_crosses_whole() -> None:
    shown = TokenLogprobs(5, -0.25, ((5, -0.25), (6, -math.inf)))
    last = Delta(
        2, "é", (5,), (shown,), (shown,), "stop", "\n", Usage(3, 1, 2), Timings(ttft_s=0.5)
    )
    step = Step([(1, Delta(text="a", tokens=(1, 2))), (1, last)], [(2, problem_of(KeyError("x")))])
    assert crossed(step, FromEngine) == step


def test_facts_and_stats_cross() -> None:
    stats = EngineStats(finished={"stop": 2}, gaps_s=Histogram((1,) * 14, 2.5), n_restarts=3)
    assert crossed(wire.Stats(1, stats), FromEngine).stats == stats
    assert crossed(wire.Welcome(FACTS), FromEngine).facts == FACTS


def every_error() -> list[LlamaliteError]:
    made: list[LlamaliteError] = []
    for kind in vars(errors).values():
        if not (isinstance(kind, type) and issubclass(kind, LlamaliteError)):
            continue
        if kind is errors.ContextLengthExceeded:
            made.append(kind(5, 4, param="texts"))
        elif kind is errors.Incomplete:
            made.append(kind("m", 99, path="f.gguf", offset=3))
        elif issubclass(kind, errors.GGUFError):
            made.append(kind("m", path="f.gguf", offset=3))
        elif issubclass(kind, errors.DecodeError):
            made.append(kind("m", code=-3))
        elif issubclass(kind, errors.RequestError):
            made.append(kind("m", param="n"))
        else:
            made.append(kind("m"))
    return made


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_errors_cross_with_class_message_and_fields(error: LlamaliteError) -> None:
    came = error_of(crossed(Step(problems=[(1, problem_of(error))]), FromEngine).problems[0][1])
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert vars(came) == vars(error)


def test_other_exceptions_come_as_errors_of_ours() -> None:
    class Own(errors.ConstraintError):
        pass

    assert type(error_of(problem_of(Own("m", param="p")))) is errors.ConstraintError
    came = error_of(problem_of(ZeroDivisionError("a\nb")))
    assert type(came) is errors.EngineError
    assert "\n" not in str(came)
    assert type(error_of(wire.Problem("os", "m"))) is errors.EngineError


@given(st.binary(max_size=200))
def test_what_is_no_message_is_a_broken_connection(content: bytes) -> None:
    messages = Messages(io.BytesIO(content), ToEngine)
    try:
        while messages.read() is not None:
            pass
    except ConnectionError:
        pass


@given(st.integers(0, 60), st.binary(min_size=1, max_size=3))
def test_a_damaged_message_is_a_message_or_a_broken_connection(place: int, other: bytes) -> None:
    whole = frame(submit_message(1, GenerationRequest([1, 2], SamplingConfig(top_k=3))))
    damaged = whole[:place] + other + whole[place + len(other) :]
    try:
        message = Messages(io.BytesIO(damaged), ToEngine).read()
        if isinstance(message, Submit):
            request_of(message)
    except (ConnectionError, errors.RequestError):
        pass


def test_messages_break_off_or_end() -> None:
    content = frame(wire.Cancel(5))
    messages = Messages(io.BytesIO(content * 2), ToEngine)
    assert messages.read() == messages.read() == wire.Cancel(5)
    assert messages.read() is None
    for length in range(1, len(content)):
        with pytest.raises(ConnectionError):
            Messages(io.BytesIO(content[:length]), ToEngine).read()


def test_a_message_of_another_direction_is_refused() -> None:
    with pytest.raises(ConnectionError):
        crossed(wire.Stop(), ToEngine)


def test_too_long_messages_are_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    content = frame(submit_message(1, GenerationRequest(range(100))))
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 50)
    with pytest.raises(InvalidParameter, match="too long"):
        frame(submit_message(1, GenerationRequest(range(100))))
    with pytest.raises(ConnectionError, match="too many"):
        Messages(io.BytesIO(content), ToEngine).read()


def test_nothing_is_pickled() -> None:
    for message in (submit_message(1, GenerationRequest([1])), Step([(1, Delta(text="x"))])):
        msgspec.msgpack.decode(frame(message)[4:])
