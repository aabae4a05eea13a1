"""The engine on real models: many requests at once give what each would give alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.engine import stepper
from llamalite.engine.embedding import Embedder
from llamalite.engine.engine import Engine
from llamalite.engine.handle import Generation
from llamalite.engine.request import EmbeddingRequest, EngineOptions, GenerationRequest
from llamalite.errors import (
    ContextLengthExceeded,
    EngineClosed,
    EngineError,
    FatalDecode,
    InvalidParameter,
    QueueFull,
    RequestError,
)
from llamalite.ffi.library import Library

GREEDY = SamplingConfig(temperature=0, ignore_eos=True, max_tokens=12)


def silent(line: str) -> None:
    """Take a notice and drop it."""


def open_engine(path: Path, n_parallel: int = 1, n_ctx: int = 512, **options: Any) -> Engine:
    return Engine.load(
        path, EngineOptions(n_parallel=n_parallel, **options), n_ctx=n_ctx, n_threads=1, say=silent
    )


class Judge:
    """Says whether tokens are what a model alone would choose, up to rounding."""

    def __init__(self, library: Library, path: Path) -> None:
        self.model = Model(library, path)
        self.context = Context(self.model, n_ctx=1024, n_threads=1, n_threads_batch=1)
        self.batch = Batch(1024, self.model.vocab.n_tokens)

    def worst(self, prompt: list[int], tokens: list[int]) -> float:
        """Return how far below the likeliest token the least likely chosen one lies (logits)."""
        ids = self.model.vocab.as_array([*prompt, *tokens])
        self.context.memory.clear()
        self.batch.clear()
        self.batch.extend(ids, 0, outputs="all")
        self.context.decode(self.batch)
        below = 0.0
        for row, token in enumerate(tokens, len(prompt) - 1):
            logits = self.context.logits(row)
            below = max(below, float(logits.max() - logits[token]))
        return below


@pytest.fixture(scope="module")
def judge(library: Library, stories: Path) -> Iterator[Judge]:
    judge = Judge(library, stories)
    yield judge
    judge.model.close()


def words(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(300, 500) for _ in range(n)]


def drive(engine: Engine, generations: list[Generation]) -> None:
    while not all(g.done for g in generations):
        for generation in generations:
            if not generation.done:
                generation.next(60)


def test_64_requests_give_exactly_what_each_gives_alone(smollm2: Path) -> None:
    """One stream for each sequence, no reuse: not a bit differs, however steps are cut."""
    rng = random.Random(1)
    prompts = [[rng.randrange(1000, 40000) for _ in range(rng.randrange(2, 16))] for _ in range(64)]
    sampling = GREEDY.replace(max_tokens=6)
    with open_engine(smollm2, reuse="off", adapt_threads=False) as alone:
        wanted = [alone.submit(GenerationRequest(p, sampling)).result().tokens for p in prompts]
    options = {"reuse": "off", "adapt_threads": False, "kv_unified": False}
    with open_engine(smollm2, 8, 256, **options) as engine:
        generations = []
        for prompt in prompts:
            generations.append(engine.submit(GenerationRequest(prompt, sampling)))
            for _ in range(rng.randrange(3)):
                engine.step()
        extra = [engine.submit(GenerationRequest(p, sampling)) for p in prompts[:8]]
        for generation in extra:
            generation.cancel()
        got = [generation.result().tokens for generation in generations]
        assert {generation.result().finish_reason for generation in extra} == {"cancelled"}
    assert got == wanted


@pytest.mark.parametrize(
    "options",
    [
        {"kv_unified": False},
        {"kv_unified": True},
        {"kv_unified": True, "n_cells": 512, "n_cached": 4},
        {"kv_unified": False, "n_cached": 3, "step_budget_s": 0.002},
    ],
    ids=["streams", "pool", "tiny pool", "small steps"],
)
def test_nothing_foreign_with_reuse_preemption_and_cancels(
    stories: Path, judge: Judge, options: dict[str, Any]
) -> None:
    rng = random.Random(7)
    heads = [words(rng, 40), words(rng, 90), []]
    prompts = [rng.choice(heads) + words(rng, rng.randrange(2, 60)) for _ in range(64)]
    with open_engine(stories, 6, 256, **options) as engine:
        running: list[tuple[list[int], Generation]] = []
        for number, prompt in enumerate(prompts):
            sampling = GREEDY.replace(max_tokens=rng.randrange(1, 90))
            generation = engine.submit(GenerationRequest(prompt, sampling))
            running.append((prompt, generation))
            for _ in range(rng.randrange(4)):
                engine.step()
            if number % 5 == 4:
                running[rng.randrange(len(running))][1].cancel()
        results = [(prompt, generation.result()) for prompt, generation in running]
        stats = engine.stats()
        assert stats.n_running == stats.n_waiting == 0
        if "n_cells" in options:
            assert stats.n_preempted > 0
        assert stats.cached_tokens > 0
    reasons = {result.finish_reason for _, result in results}
    assert reasons <= {"length", "cancelled"}
    for prompt, result in results:
        if result.tokens:
            assert judge.worst(prompt, result.tokens) < 0.01


def test_a_shared_prompt_is_computed_once(stories: Path) -> None:
    rng = random.Random(3)
    head = words(rng, 300)
    tails = [words(rng, 8) for _ in range(16)]
    for unified in (False, True):
        with open_engine(stories, 16, 512, kv_unified=unified) as engine:
            generations = [engine.submit(GenerationRequest(head + t, GREEDY)) for t in tails]
            for generation in generations:
                generation.result()
            assert engine.stats().prefill_rows <= 1.1 * (300 + 16 * 8)


def test_n_answers_share_their_prompt_and_differ_by_seed(stories: Path) -> None:
    prompt = words(random.Random(4), 200)
    sampling = SamplingConfig(temperature=2.0, top_k=0, seed=5, max_tokens=10, ignore_eos=True)
    with open_engine(stories, 4) as engine:
        results = engine.submit(GenerationRequest(prompt, sampling, n=4)).results()
        assert engine.stats().prefill_rows < 230
        assert len({tuple(result.tokens) for result in results}) == 4
        third = engine.submit(GenerationRequest(prompt, sampling.replace(seed=7))).result()
    assert third.tokens == results[2].tokens


def test_cached_equals_fresh_200_times(stories: Path) -> None:
    """On a single sequence, whatever was computed before; reuse="exact"."""
    rng = random.Random(11)
    heads = [words(rng, n) for n in (20, 70, 150)]
    with open_engine(stories, reuse="exact") as cached, open_engine(stories, reuse="off") as fresh:
        n_cached, last = 0, words(rng, 5)
        for case in range(200):
            prompt = rng.choice([*heads, last[:200]]) + words(rng, rng.randrange(1, 30))
            request = GenerationRequest(prompt, GREEDY.replace(max_tokens=8))
            one, two = cached.submit(request).result(), fresh.submit(request).result()
            assert one.tokens == two.tokens, case
            n_cached += one.usage.cached_tokens
            last = prompt + one.tokens
    assert n_cached > 5000


def test_salts_keep_prompts_apart(stories: Path) -> None:
    prompt = words(random.Random(5), 100)
    with open_engine(stories, 4) as engine:

        def cached(salt: str, **more: Any) -> int:
            request = GenerationRequest(prompt, GREEDY, salt=salt, **more)
            return engine.submit(request).result().usage.cached_tokens

        assert cached("a") == 0
        assert cached("b") == 0
        assert cached("a") >= 98
        assert cached("a", cache=False) == 0


def test_a_full_queue_refuses_and_forgets(stories: Path) -> None:
    prompt = words(random.Random(6), 10)
    with open_engine(stories, 2, n_queue=3) as engine:
        taken = [engine.submit(GenerationRequest(prompt, GREEDY)) for _ in range(5)]
        with pytest.raises(QueueFull, match="5 answers"):
            engine.submit(GenerationRequest(prompt, GREEDY))
        assert all(g.result().finish_reason == "length" for g in taken)
        assert engine.submit(GenerationRequest(prompt, GREEDY)).result().tokens


def test_priorities_go_first(stories: Path) -> None:
    prompt = words(random.Random(6), 10)
    with open_engine(stories, 1) as engine:
        slow = [engine.submit(GenerationRequest(prompt, GREEDY)) for _ in range(3)]
        urgent = engine.submit(GenerationRequest(prompt, GREEDY, priority=1))
        urgent.result()
        assert engine.stats().finished == {"length": 1}
        assert [g.result().finish_reason for g in slow] == ["length"] * 3


def test_cancel_frees_the_slot_within_a_step(stories: Path) -> None:
    rng = random.Random(8)
    with open_engine(stories, 1, 2048, step_budget_s=0.001) as engine:
        long = engine.submit(GenerationRequest(words(rng, 1500), GREEDY))
        engine.step()
        assert engine.stats().n_running == 1
        assert 0 < engine.stats().prefill_rows < 1500  # in the middle of its prompt
        long.cancel()
        engine.step()
        assert engine.stats().n_running == 0
        assert long.result().finish_reason == "cancelled"
        assert engine.submit(GenerationRequest(words(rng, 5), GREEDY)).result().tokens


def test_time_limit_stop_tokens_and_limits(stories: Path) -> None:
    prompt = words(random.Random(9), 10)
    with open_engine(stories, 2) as engine:

        def run(sampling: SamplingConfig = GREEDY, **more: Any) -> Any:
            return engine.submit(GenerationRequest(prompt, sampling, **more)).result()

        endless = GREEDY.replace(max_tokens=None)
        assert run(endless, time_limit_s=0.05).finish_reason == "time_limit"
        whole = run()
        stop = whole.tokens[4]
        ended = run(stop_tokens=(stop,))
        assert (ended.finish_reason, ended.stop) == ("stop", stop)
        assert ended.tokens == whole.tokens[: whole.tokens.index(stop)]
        nothing = run(GREEDY.replace(max_tokens=0))
        assert (nothing.finish_reason, nothing.tokens) == ("length", [])
        full = run(endless)
        assert len(full.tokens) == 512 - 10
        for bad, error in (([], InvalidParameter), ([10**6], InvalidParameter),
                           ([1] * 512, ContextLengthExceeded)):  # fmt: skip
            with pytest.raises(error):
                engine.submit(GenerationRequest(bad, GREEDY))
        with pytest.raises(InvalidParameter):
            run(stop_tokens=(10**6,))


def test_log_probabilities_of_answer_and_prompt(stories: Path, judge: Judge) -> None:
    prompt = words(random.Random(10), 12)
    with open_engine(stories, 2) as engine:
        request = GenerationRequest(prompt, GREEDY, logprobs=3, prompt_logprobs=2)
        engine.submit(request).result()
        result = engine.submit(request).result()  # nothing of it comes from the cache
    assert len(result.logprobs) == len(result.tokens) == 12
    assert result.prompt_logprobs is not None
    assert len(result.prompt_logprobs) == 11
    assert [item.token for item in result.prompt_logprobs] == prompt[1:]
    ids = judge.model.vocab.as_array([*prompt, *result.tokens])
    judge.context.memory.clear()
    judge.batch.clear()
    judge.batch.extend(ids, 0, outputs="all")
    judge.context.decode(judge.batch)
    for row, item in enumerate([*result.prompt_logprobs, *result.logprobs]):
        logits = judge.context.logits(row).astype(np.float64)
        logits -= np.logaddexp.reduce(logits)
        assert item.logprob == pytest.approx(logits[item.token], abs=0.02)
        best = np.sort(logits)[::-1]
        assert [value for _, value in item.top] == pytest.approx(best[: len(item.top)], abs=0.02)
    assert len(result.logprobs[0].top) == 3
    assert result.logprobs[0].top[0][0] == result.tokens[0]


def test_processors_choose_and_their_failure_is_theirs_alone(stories: Path) -> None:
    prompt = words(random.Random(12), 5)
    seen: list[list[int]] = []

    def only_400(tokens: Any, logits: Any) -> None:
        seen.append(list(tokens))
        logits[:400] = logits[401:] = -np.inf

    def fails(tokens: Any, logits: Any) -> None:
        raise ValueError("no")

    with open_engine(stories, 2) as engine:
        good = GenerationRequest(prompt, GREEDY.replace(max_tokens=3), processors=(only_400,))
        bad = GenerationRequest(prompt, GREEDY, processors=(fails,))
        one, two = engine.submit(good), engine.submit(bad)
        assert one.result().tokens == [400, 400, 400]
        with pytest.raises(RequestError, match="no"):
            two.result()
        assert seen[2] == [*prompt, 400, 400]
        assert engine.stats().n_running == 0


def test_a_constraint_that_cannot_be_met_says_so(stories: Path) -> None:
    with open_engine(stories, 2) as engine:
        sampling = GREEDY.replace(logit_bias=dict.fromkeys(range(3, 512), float("-inf")))
        request = GenerationRequest([1, 300], sampling, constraint=Constraint("regex", "[a-z]+"))
        assert engine.submit(request).result().finish_reason == "constraint"


def test_with_a_thread_of_its_own(stories: Path) -> None:
    rng = random.Random(13)
    with open_engine(stories, 4) as engine:
        engine.start()
        prompts = [words(rng, 20) for _ in range(12)]
        results: dict[int, list[int]] = {}

        def ask(number: int) -> None:
            request = GenerationRequest(prompts[number], GREEDY)
            results[number] = engine.submit(request).result().tokens

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(results) == 12
        rows = engine.embed(EmbeddingRequest(prompts)).result(60)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        endless = engine.submit(GenerationRequest(prompts[0], GREEDY.replace(max_tokens=None)))
        assert not engine.drain(0.0)
        with pytest.raises(EngineClosed, match="no more"):
            engine.submit(GenerationRequest(prompts[0], GREEDY))
        assert engine.drain(60)
        assert endless.result().finish_reason == "length"
    assert not any(t.name == "llamalite-engine" for t in threading.enumerate())


def test_closing_ends_what_runs_with_an_error(stories: Path) -> None:
    engine = open_engine(stories, 1)
    engine.start()
    generation = engine.submit(GenerationRequest([1, 300], GREEDY.replace(max_tokens=400)))
    generation.next(30)
    engine.close()
    with pytest.raises(EngineClosed):
        generation.result()
    with pytest.raises(EngineClosed):
        engine.submit(GenerationRequest([1, 300], GREEDY))
    engine.close()


def test_ctrl_c_in_a_step_leaves_a_working_engine(stories: Path) -> None:
    prompt = words(random.Random(14), 30)
    with open_engine(stories, 2) as engine:
        first = engine.submit(GenerationRequest(prompt, GREEDY)).result().tokens

        def interrupt(tokens: Any, logits: Any) -> None:
            raise KeyboardInterrupt

        bad = engine.submit(GenerationRequest(prompt, GREEDY, processors=(interrupt,)))
        waiting = engine.submit(GenerationRequest(prompt, GREEDY))
        with pytest.raises(KeyboardInterrupt):
            bad.result()
        assert bad.result().finish_reason == "cancelled"
        assert waiting.result().finish_reason in {"cancelled", "length"}
        assert engine.submit(GenerationRequest(prompt, GREEDY)).result().tokens == first


def test_embeddings_are_batched_and_equal_those_alone(stories: Path) -> None:
    rng = random.Random(15)
    prompts = [words(rng, rng.randrange(1, 40)) for _ in range(70)]
    with open_engine(stories, 2) as engine:
        together = engine.embed(EmbeddingRequest(prompts)).result()
        for i in (0, 33, 69):
            alone = engine.embed(EmbeddingRequest([prompts[i]])).result()
            assert np.allclose(alone[0], together[i], atol=1e-4)
        last = engine.embed(EmbeddingRequest(prompts[:3], pooling="last")).result()
        assert not np.allclose(last, together[:3], atol=1e-2)
        assert engine.embed(EmbeddingRequest([])).result().shape == (0, engine.facts.n_embd_out)
        with pytest.raises(InvalidParameter, match="pooling"):
            engine.embed(EmbeddingRequest(prompts, pooling="x"))


def test_stats_and_facts(stories: Path) -> None:
    with open_engine(stories, 3, kv_unified=False) as engine:
        facts = engine.facts
        assert (facts.n_parallel, facts.n_slots, facts.n_ctx, facts.n_cells) == (3, 3, 512, 1536)
        assert not facts.kv_unified
        started = time.perf_counter()
        engine.submit(GenerationRequest([1, 300, 301], GREEDY, n=3)).results()
        took = time.perf_counter() - started
        stats = engine.stats()
    assert stats.finished == {"length": 3}
    assert stats.completion_tokens == 36
    assert stats.prompt_tokens == 9
    assert stats.ttft_s.count == stats.queue_s.count == 3
    assert stats.gaps_s.count == 33
    assert stats.decode_rows == 33
    assert 0 < stats.decode_s + stats.prefill_s <= took


# -- what fails, fails alone ----------------------------------------------------------------------


def test_a_prompt_whose_rows_are_no_numbers_fails_alone(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> Any:
        raise FatalDecode("no numbers")

    monkeypatch.setattr(stepper, "logprobs_of", damaged)
    with open_engine(stories, 3) as engine:
        bad = engine.submit(GenerationRequest([1, 300, 301], GREEDY, n=2, prompt_logprobs=1))
        good = engine.submit(GenerationRequest([1, 310, 301], GREEDY))
        assert good.result().finish_reason == "length"
        with pytest.raises(FatalDecode):
            bad.result()
        assert engine.stats().n_running == engine.stats().n_waiting == 0


def failing_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, failed = engine._stepper._plan, []

    def fail() -> Any:
        if failed or not engine._stepper.running:
            return plan()
        failed.append(True)
        raise ValueError("a bug")

    monkeypatch.setattr(engine._stepper, "_plan", fail)


def test_a_step_that_fails_ends_its_answers_with_an_error(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(stories, 1) as engine:
        taken = [engine.submit(GenerationRequest([1, 300], GREEDY)) for _ in range(2)]
        failing_once(engine, monkeypatch)
        for generation in taken:
            with pytest.raises(EngineError, match="a bug"):
                generation.result()
        assert engine.stats().n_waiting == 0
        assert engine.submit(GenerationRequest([1, 300], GREEDY)).result().tokens


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_died_takes_nothing(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(stories, 1) as engine:
        failing_once(engine, monkeypatch)
        taken = [engine.submit(GenerationRequest([1, 300], GREEDY)) for _ in range(2)]
        engine.start()
        for generation in taken:
            with pytest.raises(EngineError, match="a bug"):
                generation.result()
        assert engine._thread is not None
        engine._thread.join(10)
        with pytest.raises(EngineClosed, match="has failed"):
            engine.submit(GenerationRequest([1, 300], GREEDY))
        with pytest.raises(EngineClosed, match="has failed"):
            engine.embed(EmbeddingRequest([[1, 300]]))
        assert engine.drain(5)


def test_a_sink_that_raises_costs_only_itself(stories: Path) -> None:
    class Bad:
        def put(self, request_id: int, item: Any) -> None:
            raise ValueError("put")

        def flush(self) -> None:
            raise ValueError("flush")

    with open_engine(stories, 2) as engine:
        engine.submit(GenerationRequest([1, 300], GREEDY), Bad())
        engine.embed(EmbeddingRequest([[1, 300]]), Bad())
        assert engine.submit(GenerationRequest([1, 310], GREEDY)).result().tokens
        assert engine.drain(10)


def test_embeddings_that_fail_fail_alone(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, failed = Embedder.advance, []

    def fail(self: Embedder, *args: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ValueError("a bug")
        return advance(self, *args)

    monkeypatch.setattr(Embedder, "advance", fail)
    with open_engine(stories, 1) as engine:
        generation = engine.submit(GenerationRequest([1, 300], GREEDY))
        first, second = (engine.embed(EmbeddingRequest([[1, 300]])) for _ in range(2))
        with pytest.raises(EngineError, match="a bug"):
            first.result()
        assert len(second.result()) == 1
        assert generation.result().finish_reason == "length"


def test_embeddings_are_cancelled_drained_and_counted(stories: Path) -> None:
    with open_engine(stories, 1, n_queue=1) as engine:
        first, second = (engine.embed(EmbeddingRequest([[1, 300]])) for _ in range(2))
        with pytest.raises(QueueFull):
            engine.embed(EmbeddingRequest([[1, 300]]))
        with pytest.raises(QueueFull):
            engine.submit(GenerationRequest([1, 300], GREEDY))
        engine.cancel(first.id)
        with pytest.raises(EngineError, match="was cancelled"):
            first.result(10)
        assert engine.drain(10)
        assert len(second._inbox._items) == 1


def test_no_place_is_told_before_anything_is_computed(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(stories, 1, n_queue=1) as engine:
        monkeypatch.setattr("llamalite.engine.engine.compile_constraint", pytest.fail)
        with pytest.raises(InvalidParameter, match="3 answers") as raised:
            engine.submit(GenerationRequest([1, 300], GREEDY, n=3))
        assert raised.value.param == "n"
        monkeypatch.undo()
        taken = engine.submit(GenerationRequest([1, 300], GREEDY, n=2))
        monkeypatch.setattr("llamalite.engine.engine.compile_constraint", pytest.fail)
        with pytest.raises(QueueFull):
            engine.submit(GenerationRequest([1, 300], GREEDY))
        monkeypatch.undo()
        assert len(taken.results()) == 2
        for _ in range(3):  # places of what couldn't be made are given back
            with pytest.raises(InvalidParameter):
                engine.submit(GenerationRequest([], GREEDY))
        assert len(engine.submit(GenerationRequest([1, 300], GREEDY, n=2)).results()) == 2


def test_the_time_limit_counts_from_the_call(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> None:
        time.sleep(0.2)

    monkeypatch.setattr("llamalite.engine.engine.compile_constraint", slow)
    with open_engine(stories, 1) as engine:
        request = GenerationRequest([1, 300], GREEDY, time_limit_s=0.1)
        assert engine.submit(request).result().finish_reason == "time_limit"


def test_closing_waits_for_who_submits(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(stories, 1)
    began, model_was_there = threading.Event(), []

    def slow(*_: Any) -> None:
        began.set()
        time.sleep(0.3)
        model_was_there.append(not engine.loaded.model.closed)

    monkeypatch.setattr("llamalite.engine.engine.compile_constraint", slow)
    closer = threading.Thread(target=lambda: (began.wait(10), engine.close()))
    closer.start()
    with pytest.raises(EngineClosed):
        engine.submit(GenerationRequest([1, 300], GREEDY))
    closer.join(10)
    assert model_was_there == [True]


@pytest.mark.parametrize("think_end", [None, "x"])
def test_a_grammar_is_read_once_for_all_answers(
    stories: Path, monkeypatch: pytest.MonkeyPatch, think_end: str | None
) -> None:
    checked: list[str] = []
    monkeypatch.setattr("llamalite.core.grammar.check_grammar", lambda *a: checked.append(a[0]))
    grammar = Constraint("gbnf", 'root ::= "yes" | "no"')

    def to_x(tokens: Any, logits: Any) -> None:
        if len(tokens) == 2:
            logits[:x] = logits[x + 1 :] = -np.inf

    with open_engine(stories, 2) as engine:
        x = engine.loaded.model.vocab.tokenize("x", add_special=False)[-1]
        request = GenerationRequest(
            [1, 300], SamplingConfig(seed=3, max_tokens=20), n=3, constraint=grammar,
            think_end=think_end, processors=(to_x,) if think_end else (),
        )  # fmt: skip
        results = engine.submit(request).results()
    assert [r.finish_reason for r in results] == ["stop"] * 3
    assert {r.text.partition("x")[2] or r.text for r in results} <= {"yes", "no"}
    assert len(checked) == 1
