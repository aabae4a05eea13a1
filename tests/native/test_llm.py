"""The Python API on a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamalite import LLM, SamplingConfig
from llamalite.errors import (
    AdapterError,
    ConstraintError,
    ContextLengthExceeded,
    InvalidParameter,
    ModelLoadError,
    TemplateError,
)

PROMPT = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
GREEDY = SamplingConfig(temperature=0, max_tokens=16)
TEXT = "The sky blue is a result of the Earth's atmosphere scattering sunlight in a specific"


def test_greedy_generation(llm: LLM) -> None:
    result = llm.generate(PROMPT, GREEDY)
    assert result.text == TEXT
    assert len(result.tokens) == 16
    assert result.finish_reason == "length"
    assert result.usage.prompt_tokens == len(llm.tokenize(PROMPT))
    assert result.usage.completion_tokens == 16
    assert result.usage.total_tokens == result.usage.prompt_tokens + 16
    timings = result.timings
    assert 0 < timings.prefill_s <= timings.ttft_s
    assert timings.decode_s > 0
    assert timings.decode_tokens_per_s == pytest.approx(15 / timings.decode_s)


def test_stream_gives_the_same_text_in_pieces(llm: LLM) -> None:
    stream = llm.stream(PROMPT, GREEDY)
    pieces = list(stream)
    assert len(pieces) > 8
    assert "".join(pieces) == TEXT == stream.result.text


def test_generation_ends_by_itself(llm: LLM) -> None:
    result = llm.chat([{"role": "user", "content": "Say only: yes"}], temperature=0, max_tokens=200)
    assert result.finish_reason == "stop"
    assert "<|im_end|>" not in result.text
    assert result.tokens


def test_same_seed_same_text_and_no_seed_other_texts(llm: LLM) -> None:
    def text(seed: int | None) -> str:
        return llm.generate("Once", max_tokens=12, temperature=1.5, seed=seed).text

    assert text(5) == text(5)
    assert text(5) != text(6)
    assert len({text(None) for _ in range(4)}) > 1


@pytest.mark.parametrize("stop", [" atmosphere", "mosph", "Earth's atmosphere scattering"])
def test_stop_strings_end_it_and_never_show(llm: LLM, stop: str) -> None:
    stream = llm.stream(PROMPT, GREEDY, stop=(stop,))
    text = "".join(stream)
    assert text == TEXT[: TEXT.index(stop)]
    assert stream.result.finish_reason == "stop"


def test_emoji_are_never_split(llm: LLM) -> None:
    wanted = "🙂👩‍🚀日本"
    grammar = f'root ::= "{wanted}"'
    pieces = list(llm.stream("Emoji:", temperature=0, grammar=grammar, max_tokens=60))
    assert "".join(pieces) == wanted
    assert len(llm.tokenize(wanted)) > len(wanted)
    assert all("\ufffd" not in piece for piece in pieces)


def test_grammar(llm: LLM) -> None:
    result = llm.generate("Is water wet?", grammar='root ::= "yes" | "no"', seed=1)
    assert result.text in {"yes", "no"}
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("grammar", ['root ::= "', "root ::= missing", "root ::= root", "", "🙂"])
def test_faulty_grammars_are_errors(llm: LLM, grammar: str) -> None:
    with pytest.raises(ConstraintError):
        llm.generate("x", grammar=grammar)


def test_ignore_eos_runs_on(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Say only: yes"}]
    result = llm.chat(messages, temperature=0, max_tokens=60, ignore_eos=True)
    assert result.finish_reason == "length"
    assert result.usage.completion_tokens == 60


def test_prompt_longer_than_the_context(llm: LLM) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        llm.generate([1] * 5000)
    assert (caught.value.n_prompt, caught.value.n_ctx) == (5000, 1024)
    assert "5000" in str(caught.value)
    assert "1024" in str(caught.value)


def test_full_context_ends_with_length(smollm2: Path) -> None:
    with LLM(smollm2, n_ctx=256, n_threads=1) as small:
        result = small.generate([1] * 250, temperature=0, ignore_eos=True)
    assert result.finish_reason == "length"
    assert result.usage.total_tokens == 256


def test_long_prompts_in_chunks_equal_the_whole(llm: LLM) -> None:
    words = llm.tokenize("a b c d e f g h i j " * 60)[:600]
    result = llm.generate(words, GREEDY)
    assert result.usage.prompt_tokens == 600
    assert len(result.tokens) == 16


def test_empty_prompt_and_bad_parameters(llm: LLM) -> None:
    with pytest.raises(InvalidParameter, match="empty"):
        llm.generate("")
    with pytest.raises(InvalidParameter, match="top_p"):
        llm.generate("x", top_p=2)
    with pytest.raises(InvalidParameter, match="no_such"):
        llm.generate("x", no_such=1)
    with pytest.raises(InvalidParameter, match="vocabulary"):
        llm.generate([10**9])
    for prompt in (b"abc", {1: 2}, None, [[1], 2], [1.5], 5):
        with pytest.raises(InvalidParameter, match="flat list"):
            llm.generate(prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [{"n_ctx": -1}, {"n_ctx": "5"}, {"n_batch": 0}, {"n_threads": 0}, {"n_threads": 1.5},
     {"n_gpu_layers": -2}, {"pooling": "x"}, {"chat_template": ""}],
)  # fmt: skip
def test_arguments_are_checked_before_anything_is_loaded(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(arguments))):
        LLM("/nonexistent.gguf", **arguments)


def test_streams_at_once_take_turns(llm: LLM) -> None:
    first = llm.stream(PROMPT, GREEDY)
    begun = next(first)
    assert llm.generate(PROMPT, GREEDY).text == TEXT
    assert begun + "".join(first) == TEXT
    assert first.result.finish_reason == "length"


def test_several_at_once_and_shared_beginnings(smollm2: Path) -> None:
    with LLM(smollm2, n_ctx=512, n_threads=1, n_parallel=2) as llm:
        streams = [llm.stream(PROMPT, GREEDY) for _ in range(2)]
        texts = ["".join(pieces) for pieces in zip(*streams, strict=True)]
        assert "".join(texts[0])
        assert [stream.result.text for stream in streams] == [TEXT, TEXT]
        assert llm.generate(PROMPT * 3, GREEDY).usage.cached_tokens < 30
        assert llm.generate(PROMPT * 3, GREEDY).usage.cached_tokens > 40


def test_closing_a_stream_stops_it(llm: LLM) -> None:
    stream = llm.stream(PROMPT, GREEDY)
    next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.result.finish_reason == "cancelled"
    assert 0 < stream.result.usage.completion_tokens < 16


def test_chat_uses_the_models_own_template(llm: LLM) -> None:
    text = llm.render_chat(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    )
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chosen_and_missing_templates_are_said(smollm2: Path, stories: Path) -> None:
    with LLM(smollm2, n_ctx=256, chat_template="gemma") as llm:
        assert "<start_of_turn>user" in llm.render_chat([{"role": "user", "content": "Hi"}])
    said: list[str] = []
    with LLM(stories, say=said.append) as llm:
        llm.render_chat([{"role": "user", "content": "Hi"}])
    assert any("template" in line for line in said)
    with pytest.raises(TemplateError):
        LLM(smollm2, chat_template="no-such-template")


def test_exactly_one_bos(stories: Path) -> None:
    with LLM(stories, n_threads=1, say=lambda line: None) as llm:
        bos = llm.tokenize("", add_special=True)
        assert len(bos) == 1
        for template in ("llama2", "chatml", "mistral", "gemma"):
            with LLM(stories, chat_template=template, say=lambda line: None) as other:
                tokens = other.tokenize_chat([{"role": "user", "content": "Hi"}])
            assert tokens.count(bos[0]) == 1
            assert tokens[0] == bos[0]


def test_embeddings_are_normalised_and_mean_something(llm: LLM) -> None:
    rows = llm.embed(["A cat sat on the mat.", "A kitten lay on the rug.", "Stock prices fell."])
    assert rows.shape == (3, 576)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    with pytest.raises(InvalidParameter, match="empty"):
        llm.embed("")
    with pytest.raises(ContextLengthExceeded, match="one batch of 1024: split"):
        llm.embed("word " * 1100)


def test_gpu_layers_without_a_gpu_are_refused(llm: LLM, smollm2: Path) -> None:
    if any(device.is_gpu for device in llm.library.devices()):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelLoadError, match="--backend"):
        LLM(smollm2, n_gpu_layers=10)


def test_a_missing_adapter_is_an_error(smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="absent"):
        LLM(smollm2, n_ctx=256, loras=[(tmp_path / "absent.gguf", 1.0)])
