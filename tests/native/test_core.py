"""Models, contexts, batches, memory and state on the real libllama."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.core.quantize import quantize
from llamalite.core.state import (
    load_sequence,
    load_sequence_file,
    load_state,
    save_sequence,
    save_sequence_file,
    save_state,
)
from llamalite.errors import (
    DoesNotFit,
    EngineClosed,
    EngineError,
    InvalidBatch,
    InvalidParameter,
    ModelError,
    ModelLoadError,
    ModelNotFound,
    NoKVSlot,
    SymbolMissing,
    TokenizeError,
)
from llamalite.ffi.library import Library

ONE = {"n_threads": 1, "n_threads_batch": 1}
TEXT = "The quick brown fox jumps over the lazy dog."


def prefill(context: Context, text: str = TEXT, seq_id: int = 0) -> np.ndarray:
    vocab = context.model.vocab
    batch = Batch(context.n_batch, vocab.n_tokens, context.n_seq_max)
    tokens = vocab.as_array(vocab.tokenize(text))
    batch.extend(tokens, 0, seq_id, outputs="last")
    context.decode(batch)
    return tokens


def step(context: Context, token: int, pos: int, seq_id: int = 0) -> np.ndarray:
    batch = Batch(1, context.model.vocab.n_tokens, context.n_seq_max)
    batch.add(token, pos, (seq_id,), output=True)
    context.decode(batch)
    return context.logits().copy()


def test_model_tells_what_it_is(model: Model) -> None:
    assert model.n_layer == 30
    assert model.n_embd == 576
    assert model.n_ctx_train == 8192
    assert model.vocab.n_tokens == 49152
    assert model.metadata["general.architecture"] == "llama"
    assert "<|im_start|>" in (model.chat_template() or "")
    assert model.has_decoder
    assert not model.is_recurrent


def test_tokens_round_trip(model: Model) -> None:
    vocab = model.vocab
    for text in (TEXT, "naïve café – 日本語 🙂\n\ttabs", "", " leading", "nul\0inside"):
        assert vocab.detokenize(vocab.tokenize(text)) == text
        pieces = b"".join(vocab.piece(token) for token in vocab.tokenize(text))
        assert pieces.decode() == text


def test_special_tokens(model: Model) -> None:
    vocab = model.vocab
    assert vocab.text_of("eos") == "<|im_end|>"
    assert vocab.is_eog(vocab.special_tokens["eos"])
    assert vocab.special_tokens["eos"] in vocab.eog_tokens
    assert len(vocab.tokenize("<|im_end|>", parse_special=True)) == 1
    assert len(vocab.tokenize("<|im_end|>", parse_special=False)) > 1
    assert vocab.piece(vocab.special_tokens["eos"]) == b""
    assert vocab.piece(vocab.special_tokens["eos"], special=True) == b"<|im_end|>"


@pytest.mark.parametrize("token", [-1, 49152, 2**31])
def test_token_ids_are_checked(model: Model, token: int) -> None:
    with pytest.raises(InvalidParameter, match="not in the vocabulary"):
        model.vocab.piece(token)
    with pytest.raises(InvalidParameter, match="not in the vocabulary"):
        model.vocab.is_eog(token)
    with pytest.raises(InvalidParameter, match="not in the vocabulary"):
        model.vocab.detokenize([token])
    with pytest.raises(InvalidBatch, match="not in the vocabulary"):
        Batch(4, model.vocab.n_tokens).add(token, 0)


def test_lone_surrogates_are_refused(model: Model) -> None:
    with pytest.raises(TokenizeError, match="character 1"):
        model.vocab.tokenize("a\ud800b")


def test_batches_are_checked(context: Context) -> None:
    batch = Batch(4, context.model.vocab.n_tokens)
    with pytest.raises(InvalidBatch, match="0 tokens"):
        context.decode(batch)
    with pytest.raises(InvalidBatch, match="sequence 1"):
        batch.add(1, 0, (1,))
    for pos in range(4):
        batch.add(1, pos)
    with pytest.raises(InvalidBatch, match="full"):
        batch.add(1, 4)
    with pytest.raises(InvalidBatch, match="don't fit"):
        batch.extend(np.zeros(1, np.int32), 4)
    huge = Batch(context.n_batch + 1, context.model.vocab.n_tokens)
    huge.extend(np.ones(context.n_batch + 1, np.int32), 0)
    with pytest.raises(InvalidBatch, match="not within"):
        context.decode(huge)


def test_full_memory_is_an_error_and_not_the_end(model: Model) -> None:
    with Context(model, n_ctx=32, n_batch=32, **ONE) as context:
        size = context.n_ctx
        batch = Batch(context.n_batch, model.vocab.n_tokens)
        batch.extend(np.ones(32, np.int32), 0)
        for pos in range(0, size, 32):
            batch.pos[:32] = np.arange(pos, pos + 32)
            context.decode(batch)
        batch.clear()
        batch.add(1, size, output=True)
        with pytest.raises(NoKVSlot, match="larger context"):
            context.decode(batch)
        context.memory.clear()
        prefill(context)
        assert np.isfinite(context.logits()).all()


def test_logits_are_a_view_with_a_row_for_each_output(context: Context) -> None:
    tokens = context.model.vocab.as_array(context.model.vocab.tokenize(TEXT))
    batch = Batch(64, context.model.vocab.n_tokens)
    batch.extend(tokens, 0, outputs="all")
    context.decode(batch)
    last = context.logits(-1)
    assert last.dtype == np.float32
    assert last.shape == (49152,)
    assert np.shares_memory(last, context.logits(len(tokens) - 1))
    assert not np.array_equal(context.logits(0), last)
    for row in (len(tokens), -len(tokens) - 1):
        with pytest.raises(InvalidParameter, match="no output"):
            context.logits(row)


def need_kv_unified(model: Model) -> None:
    if not model.library.context_layout.has("kv_unified"):
        pytest.skip(f"{model.library.release} has no kv_unified")


def test_memory_by_sequence(model: Model) -> None:
    need_kv_unified(model)
    with Context(model, n_ctx=512, n_seq_max=2, kv_unified=True, **ONE) as context:
        tokens = prefill(context)
        memory = context.memory
        assert memory.seq_pos_max(0) == len(tokens) - 1
        assert memory.seq_pos_max(1) == -1
        memory.seq_cp(0, 1)
        assert memory.seq_pos_max(1) == len(tokens) - 1
        assert memory.seq_rm(1, 3)
        assert memory.seq_pos_max(1) == 2
        same = step(context, int(tokens[3]), 3, 1)
        memory.seq_keep(1)
        assert memory.seq_pos_max(0) == -1
        memory.clear()
        fresh = Batch(8, model.vocab.n_tokens)
        fresh.extend(tokens[:4], 0, outputs="last")
        context.decode(fresh)
        assert np.abs(context.logits() - same).max() < 0.05
        with pytest.raises(InvalidParameter, match="sequence 2"):
            memory.seq_rm(2)


def test_partial_copy_between_streams_is_refused(model: Model) -> None:
    need_kv_unified(model)
    with Context(model, n_ctx=512, n_seq_max=2, kv_unified=False, **ONE) as context:
        prefill(context)
        with pytest.raises(InvalidParameter, match="whole sequences"):
            context.memory.seq_cp(0, 1, 0, 3)
        context.memory.seq_cp(0, 1)
        assert context.memory.seq_rm(1, 3)
        assert context.memory.seq_pos_max(1) == 2


def test_state_continues_where_it_was_saved(model: Model, tmp_path: Path) -> None:
    with Context(model, n_ctx=512, **ONE) as context:
        tokens = prefill(context)
        whole, one = save_state(context), save_sequence(context, 0)
        path = tmp_path / "session.bin"
        assert save_sequence_file(context, 0, path, tokens.tolist()) > 0
        expected = step(context, 42, len(tokens))
        restores = (
            lambda: load_state(context, whole),
            lambda: load_sequence(context, 0, one),
            lambda: load_sequence_file(context, 0, path),
        )
        for restore in restores:
            context.memory.clear()
            restore()
            assert context.memory.seq_pos_max(0) == len(tokens) - 1
            assert np.array_equal(step(context, 42, len(tokens)), expected)
        assert load_sequence_file(context, 0, path) == tokens.tolist()


@pytest.mark.parametrize("state", [b"", b"\0" * 8, b"not a state at all" * 100])
def test_foreign_states_are_refused(context: Context, state: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="doesn't belong"):
        load_sequence(context, 0, state)
    with pytest.raises(InvalidParameter, match="doesn't belong"):
        load_state(context, state)
    path = tmp_path / "state.bin"
    path.write_bytes(state)
    with pytest.raises(InvalidParameter, match="doesn't belong"):
        load_sequence_file(context, 0, path)
    with pytest.raises(InvalidParameter, match="can't be read"):
        load_sequence_file(context, 0, tmp_path / "absent")


def test_damaged_and_misplaced_states_are_refused(context: Context, model: Model) -> None:
    prefill(context)
    whole, one = save_state(context), save_sequence(context, 0)
    for state, load in ((whole, load_state), (one, lambda c, s: load_sequence(c, 0, s))):
        for at in (len(state) // 2, len(state) - 1, 20):
            damaged = bytearray(state)
            damaged[at] ^= 1
            with pytest.raises(InvalidParameter, match="damaged"):
                load(context, bytes(damaged))
        with pytest.raises(InvalidParameter, match="damaged"):
            load(context, state[:-1])
    with pytest.raises(InvalidParameter, match="damaged"):
        load_sequence(context, 0, whole)
    with Context(model, n_ctx=1024, **ONE) as larger:
        with pytest.raises(InvalidParameter, match="doesn't belong"):
            load_state(larger, whole)
        load_sequence(larger, 0, one)
        assert larger.memory.seq_pos_max(0) == context.memory.seq_pos_max(0)


def test_bad_files_are_errors_with_a_reason(library: Library, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        Model(library, tmp_path / "absent.gguf")
    text = tmp_path / "text.gguf"
    text.write_text("this is no model")
    with pytest.raises(ModelLoadError, match=r"text\.gguf"):
        Model(library, text)


def test_parameters_this_build_lacks_are_named(library: Library, smollm2: Path) -> None:
    with pytest.raises(SymbolMissing, match="no_such_field"):
        Model(library, smollm2, no_such_field=1)


@pytest.mark.parametrize(
    "params", [{"n_seq_max": 0}, {"n_seq_max": 10**6}, {"n_batch": 0}, {"n_threads": 0}]
)
def test_context_sizes_are_checked(model: Model, params: dict[str, int]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(params))):
        Context(model, **params)


def test_a_context_that_is_too_large_is_an_error(model: Model) -> None:
    with pytest.raises(DoesNotFit, match=r"2147483392 tokens needs .* GiB .* has"):
        Context(model, n_ctx=2**31 - 256, **ONE)


def test_load_can_be_interrupted(library: Library, smollm2: Path) -> None:
    def stop(_fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Model(library, smollm2, on_progress=stop)


SLOW_PREFILL = """
import signal, sys
from llamalite import LLM
llm = LLM(sys.argv[1], n_ctx=4096, n_threads=1, say=lambda line: None)
tokens = llm.tokenize("word " * 3500)

def handler(signum, frame):
    if sys.argv[2] == "close":
        llm.close()
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    llm.generate(tokens)
except BaseException as error:
    print(type(error).__name__)
llm.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")
@pytest.mark.parametrize(
    ("action", "raised"), [("raise", "KeyboardInterrupt"), ("close", "EngineClosed")]
)
def test_signals_stop_a_prefill_cleanly(smollm2: Path, action: str, raised: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOW_PREFILL, str(smollm2), action],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{raised}\n", "")


def test_closing_waits_for_other_threads(library: Library, smollm2: Path) -> None:
    model = Model(library, smollm2)
    text = "word " * 20_000
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(model.vocab.tokenize(text))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while not model._native.users:
        time.sleep(0.001)
    model.close()
    for thread in threads:
        thread.join()
    assert counts
    with pytest.raises(EngineClosed):
        model.vocab.tokenize("x")


def test_closing_from_within_is_refused(context: Context) -> None:
    with context.in_use(), pytest.raises(EngineError, match="from within"):
        context.model.close()
    assert not context.closed


def test_closing_twice_and_in_any_order(library: Library, stories: Path) -> None:
    model = Model(library, stories)
    context = Context(model, n_ctx=64, **ONE)
    model.close()
    assert context.closed
    context.close()
    model.close()
    with pytest.raises(EngineClosed, match="closed"):
        context.memory.clear()
    with pytest.raises(EngineClosed):
        model.vocab.tokenize("x")


FIFTY_LOADS = """
import ctypes, gc, sys, psutil
from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.ffi.library import open_library
from llamalite.libs.find import find_library

library = open_library(find_library())

def cycle():
    with Model(library, sys.argv[1]) as model:
        with Context(model, n_ctx=256, n_threads=1, n_threads_batch=1) as context:
            batch = Batch(8, model.vocab.n_tokens)
            batch.extend(model.vocab.as_array(model.vocab.tokenize("Hello")), 0, outputs="last")
            context.decode(batch)
            context.logits()

def rss(cycles):
    for _ in range(cycles):
        cycle()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # the allocator keeps what was freed
    return psutil.Process().memory_info().rss

rss(10)
print(rss(1), rss(50))
"""


def test_fifty_loads_leak_nothing(library: Library, smollm2: Path) -> None:
    # A process of its own: this one's heap depends on the tests before.
    done = subprocess.run(
        [sys.executable, "-c", FIFTY_LOADS, str(smollm2)],
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # or what is kept depends on the threads
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    before, after = map(int, done.stdout.split())
    assert after < before * 1.01


def test_nothing_is_printed_at_exit(smollm2: Path) -> None:
    code = f"""
from llamalite import LLM
llm = LLM({str(smollm2)!r}, n_ctx=256, say=lambda line: None)
stream = llm.stream("Hello")
next(stream)
other = LLM({str(smollm2)!r}, n_ctx=256, say=lambda line: None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quantize_makes_a_smaller_model_that_runs(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    # Not Q8_0: builds before about b8000 refuse rows that are no multiple of 32.
    small = quantize(library, stories, tmp_path / "f16.gguf", "f16", nthread=1)
    assert small.stat().st_size < stories.stat().st_size * 0.6
    with Model(library, small) as model, Context(model, n_ctx=64, **ONE) as context:
        prefill(context, "Once upon a time")
        assert np.isfinite(context.logits()).all()
    assert list(tmp_path.iterdir()) == [small]


def test_quantize_refuses_what_it_cannot_do(
    library: Library, stories: Path, smollm2: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameter, match="Q9_9"):
        quantize(library, stories, tmp_path / "x.gguf", "Q9_9")
    with pytest.raises(ModelNotFound):
        quantize(library, tmp_path / "absent.gguf", tmp_path / "x.gguf", "Q8_0")
    with pytest.raises(ModelError, match="quantized"):
        quantize(library, smollm2, tmp_path / "x.gguf", "Q8_0")  # requantizing needs a flag
    assert list(tmp_path.iterdir()) == []
