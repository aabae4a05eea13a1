"""What would abort or crash the process is refused in Python; what can't be undone is not done."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamalite import LLM
from llamalite.core.batch import Batch
from llamalite.core.candidates import CANDIDATE
from llamalite.core.context import Context
from llamalite.core.grammar import GrammarMatcher
from llamalite.core.model import Model
from llamalite.core.quantize import quantize
from llamalite.core.sampler import SamplerChain
from llamalite.core.state import save_sequence_file
from llamalite.errors import (
    BadField,
    ConstraintError,
    InvalidBatch,
    InvalidParameter,
    ModelError,
)
from llamalite.ffi.library import Library, open_library
from llamalite.gguf import edit_metadata


@pytest.mark.parametrize(
    "params",
    [
        {"type_k": 999}, {"type_k": -1}, {"type_k": 5}, {"type_v": 26}, {"flash_attn_type": 7},
        {"pooling_type": 77}, {"pooling_type": -5}, {"rope_scaling_type": 99}, {"cb_eval": 1},
        {"n_ctx": 1, "n_seq_max": 2}, {"n_ctx": True}, {"n_threads": "1"}, {"n_batch": 1.5},
        {"rope_freq_base": math.nan},
    ],
)  # fmt: skip
def test_context_parameters(model: Model, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(params))):
        Context(model, **params)


@pytest.mark.parametrize("params", [{"no_alloc": True}, {"load_mode": 77}, {"kv_overrides": 1}])
def test_model_parameters(library: Library, stories: Path, params: dict[str, Any]) -> None:
    name = next(iter(params))
    if not library.model_layout.has(name):
        pytest.skip(f"{library.release} has no {name}")
    with pytest.raises(InvalidParameter):
        Model(library, stories, **params)


def test_a_model_without_weights_makes_no_context(library: Library, stories: Path) -> None:
    with Model(library, stories, vocab_only=True) as model:
        assert model.vocab.tokenize("Once")
        with pytest.raises(InvalidParameter, match="vocabulary alone"):
            Context(model)


def test_calls_on_a_context_of_the_wrong_kind(library: Library, stories: Path) -> None:
    with (
        Model(library, stories) as model,
        Context(model, n_ctx=256, n_batch=64, n_ubatch=16, n_threads=1) as context,
    ):
        batch = Batch(64, model.vocab.n_tokens)
        batch.extend(np.ones(32, np.int32), 0)
        with pytest.raises(InvalidParameter, match="no encoder"):
            context.encode(batch)
        context.set_causal(False)
        with pytest.raises(InvalidBatch, match="n_ubatch"):
            context.decode(batch)
        for call in (
            lambda: context.memory.seq_div(0, 0, -1, 2**32),
            lambda: context.memory.seq_add(0, 0, -1, 2**40),
            lambda: context.memory.seq_rm(0, 2**40),
        ):
            with pytest.raises(InvalidParameter, match="32 bits"):
                call()


def test_grammars_are_checked_in_core_too(model: Model) -> None:
    with pytest.raises(ConstraintError):
        GrammarMatcher(model.vocab, 'root ::= "a"{5,1}')


@pytest.mark.parametrize(
    "rows",
    [np.zeros(4), np.zeros((2, 2), CANDIDATE), np.zeros(8, CANDIDATE)[::2],
     np.array([(10**6, 1.0, 0.0)], CANDIDATE)],
)  # fmt: skip
def test_candidates(model: Model, rows: np.ndarray) -> None:
    with pytest.raises(InvalidParameter):
        SamplerChain(model.vocab).top_k(3).infill().apply(rows)


def test_a_chain_of_another_model(context: Context, library: Library, stories: Path) -> None:
    with Model(library, stories) as other, pytest.raises(InvalidParameter, match="another model"):
        SamplerChain(other.vocab).greedy().sample(context)


def test_dropped_objects_are_freed_children_first(
    library: Library, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[str] = []

    def spy(name: str) -> None:
        native = getattr(library, name)
        monkeypatch.setattr(library, name, lambda handle: (freed.append(name), native(handle)))

    for name in ("llama_model_free", "llama_free", "llama_sampler_free"):
        spy(name)
    llm = LLM(stories, n_threads=1, say=lambda line: None)
    stream = llm.stream("Once", grammar='root ::= "a"')
    next(stream)
    llm.embed("hi")
    del llm, stream
    gc.collect()
    assert freed[-1] == "llama_model_free"
    assert freed.count("llama_free") == 2
    assert freed.count("llama_sampler_free") == 3  # the chain, the grammar and its trial


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("llama.block_count", 0, "claims 0 layers"),
        ("llama.block_count", 2**31, "claims 2147483648 layers"),
        ("llama.attention.layer_norm_rms_epsilon", math.nan, "epsilon is nan"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, r"epsilon is -1\.0"),
    ],
)
def test_damaged_headers(
    stories: Path, tmp_path: Path, key: str, value: float, complaint: str
) -> None:
    damaged = tmp_path / "damaged.gguf"
    edit_metadata(stories, damaged, set={key: value})
    with pytest.raises(BadField, match=complaint):
        LLM(damaged, say=lambda line: None)


def test_damaged_weight_types(stories: Path, tmp_path: Path) -> None:
    content = bytearray(stories.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8
    assert content[at : at + 4] == b"\0\0\0\0"
    content[at] = 26
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)
    with pytest.raises(BadField, match=r"attn_q\.weight has type I32"):
        LLM(damaged, say=lambda line: None)


def test_what_cannot_be_written_is_an_error(
    library: Library, stories: Path, context: Context, tmp_path: Path
) -> None:
    kept = tmp_path / "folder"
    kept.mkdir()
    with Model(library, stories) as model:
        for target in (kept, tmp_path / "absent" / "x.gguf", "/dev/null"):
            with pytest.raises(ModelError, match=r"written|regular"):
                model.save(target)
            with pytest.raises(ModelError, match=r"written|regular"):
                quantize(library, stories, target, "F16")
            with pytest.raises(ModelError, match=r"written|regular"):
                save_sequence_file(context, 0, target, [1])
        model.save(tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").stat().st_size > 1_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.gguf", "folder"]
    if sys.platform != "win32":
        assert not Path("/dev/null").is_file()


INTERRUPTED = """
import signal, sys
from llamalite.core.quantize import quantize
from llamalite.ffi.library import open_library
from llamalite.libs.find import find_library

def handler(signum, frame):
    raise KeyboardInterrupt

library = open_library(find_library())
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    quantize(library, sys.argv[1], sys.argv[2], "q8_0", allow_requantize=True, nthread=1)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")
def test_ctrl_c_is_never_lost_in_a_log_line(smollm2: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(smollm2), str(tmp_path / "out.gguf")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert list(tmp_path.iterdir()) == []


def test_unknown_layout_names(library: Library) -> None:
    code = (
        "from llamalite.ffi.library import open_library\n"
        "from llamalite.libs.find import find_library\n"
        "open_library(find_library())"
    )
    for name in ("foo", "M99"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "LLAMALITE_LAYOUT": name},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert f"asks for '{name}', which is none of M1" in done.stderr
    assert open_library(library.files) is library
