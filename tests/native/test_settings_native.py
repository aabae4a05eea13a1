"""What is configured for a model or said by a preset reaches generation; what doesn't fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamalite import LLM
from llamalite.config import ModelConfig
from llamalite.core.adapter import LoraAdapter
from llamalite.engine import loading
from llamalite.errors import AdapterError, DoesNotFit, ModelError
from llamalite.ffi.library import Library
from llamalite.gguf import GGMLType
from llamalite.models.fit.machine import Machine, Ram
from llamalite.models.store.importing import import_model
from llamalite.models.store.in_use import is_held
from llamalite.models.store.named import write_named
from llamalite.models.store.records import read_record
from llamalite.models.store.removal import remove

QUESTION = [{"role": "user", "content": "Where do you live?"}]
PIRATE = [
    {"role": "system", "content": "You are a pirate."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "Arr, a pirate."},
]


@pytest.fixture(autouse=True)
def home(
    library: Library, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A home of its own, in which the model is imported as `small`."""
    monkeypatch.setenv("LLAMALITE_LIB", str(library.files.folder))
    monkeypatch.setenv("LLAMALITE_SELFTEST", "0")
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LLAMALITE_N_THREADS", "1")
    import_model(smollm2, alias="small", mode="link")
    return tmp_path


def preset(**said: object) -> None:
    sampling = {"temperature": 0.0, "max_tokens": 6}
    write_named(
        "pirate", ModelConfig(**{"model": "small", "sampling": sampling, **said}), replace=True
    )  # type: ignore[arg-type]


def test_a_preset_is_what_the_same_said_by_hand_is(llm: LLM) -> None:
    messages = tuple((message["role"], message["content"]) for message in PIRATE[1:])
    preset(n_ctx=512, system_prompt="You are a pirate.", messages=messages)
    with LLM("pirate") as pirate:
        result = pirate.chat(QUESTION)
        assert pirate.n_ctx == 512
    by_hand = llm.chat([*PIRATE, *QUESTION], temperature=0, max_tokens=6)
    assert result.text == by_hand.text
    assert result.usage.prompt_tokens == by_hand.usage.prompt_tokens


def test_a_conversation_with_a_system_message_keeps_its_own(llm: LLM) -> None:
    preset(n_ctx=512, system_prompt="You are a pirate.")
    own = [{"role": "system", "content": "Be brief."}, *QUESTION]
    with LLM("pirate") as pirate:
        assert pirate.chat(own).usage.prompt_tokens == len(llm.tokenize_chat(own))


def test_call_beats_environment_beats_file_on_the_model_beats_preset(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset(n_ctx=256, n_batch=64)
    with LLM("pirate") as pirate:
        assert (pirate.n_ctx, pirate.sampling.max_tokens) == (256, 6)
    (home / "config.toml").write_text(
        'default_model = "pirate"\nn_ctx = 768\n'
        "[models.pirate]\nn_ctx = 512\nsampling.max_tokens = 5\n"
    )
    with LLM() as pirate:
        assert (pirate.n_ctx, pirate.sampling.max_tokens) == (512, 5)
    monkeypatch.setenv("LLAMALITE_N_CTX", "1024")
    monkeypatch.setenv("LLAMALITE_SAMPLING_MAX_TOKENS", "4")
    with LLM("pirate") as pirate:
        assert (pirate.n_ctx, pirate.sampling.max_tokens) == (1024, 4)
        assert len(pirate.chat(QUESTION, max_tokens=3).tokens) == 3
    with LLM("pirate", n_ctx=256) as pirate:
        assert pirate.n_ctx == 256


def test_an_adapter_of_a_preset_is_loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def refuse(_model: object, path: str) -> LoraAdapter:
        asked.append((path, 0.5))
        raise ModelError("seen")

    monkeypatch.setattr("llamalite.engine.loading.LoraAdapter", refuse)
    preset(adapters=((str(home / "a.gguf"), 0.5),), n_ctx=256)
    with pytest.raises(ModelError, match="seen"):
        LLM("pirate")
    assert asked == [(str(home / "a.gguf"), 0.5)]


def test_what_is_loaded_is_not_removed_and_its_use_is_remembered(home: Path, stories: Path) -> None:
    path = import_model(stories, mode="copy").path
    with LLM(path.stem, n_ctx=256):
        with pytest.raises(ModelError, match="loaded by a running program"):
            remove([path.stem])
        record = read_record(path)
        assert record is not None
        assert record.last_used
    remove([path.stem])
    assert not path.exists()


def test_a_load_that_fails_holds_nothing(home: Path, stories: Path) -> None:
    path = import_model(stories, mode="copy").path
    with pytest.raises(AdapterError):
        LLM(path, n_ctx=256, loras=[(home / "none.gguf", 1.0)])
    assert not is_held(path)


def test_what_does_not_fit_is_refused_with_both_numbers_unless_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowded = Machine(Ram(50_000_000, 24_000_000_000))
    monkeypatch.setattr(loading, "this_machine", lambda *_, **__: crowded)
    with pytest.raises(DoesNotFit, match=r"\d MB of RAM .50.0 MB free.*--force"):
        LLM("small", n_ctx=256)
    with LLM("small", n_ctx=256, force=True) as forced:
        assert forced.generate("Hi", max_tokens=1).tokens


def test_the_types_of_the_cache_are_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_CACHE_TYPE_K", "q8_0")
    with LLM("small", n_ctx=256, cache_type_v="f32") as small:
        assert small._engine._context.cache_key[:2] == (GGMLType.Q8_0, GGMLType.F32)
