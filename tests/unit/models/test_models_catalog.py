from __future__ import annotations

import pytest

from llamalite.models.names.catalog import (
    ALIASES,
    CATALOG,
    DEFAULT_MODEL,
    catalog_models,
    find_entry,
    find_unlisted,
    nearest_names,
    short_name,
)


@pytest.mark.parametrize("name", ["smollm2:135m", "SmolLM2:135M", " smollm2 ", "smollm2:latest"])
def test_short_names_and_aliases_are_found_whatever_their_case(name: str) -> None:
    entry = find_entry(name)
    assert entry is not None
    assert entry.name == DEFAULT_MODEL


@pytest.mark.parametrize(
    ("name", "expected", "quant"),
    [
        ("llama3.2:1b", "llama3.2:1b", "Q4_K_M"),
        ("llama3.2:1b-q8_0", "llama3.2:1b-q8_0", "Q8_0"),
        ("LLAMA3.2:1B-Q4_K_M", "llama3.2:1b", "Q4_K_M"),
        ("qwen3:30b-a3b", "qwen3:30b-a3b", "Q4_K_M"),
        ("qwen3:0.6b", "qwen3:0.6b", "Q8_0"),
        ("smollm2:135m-q4_1", "smollm2:135m", "Q4_1"),
        ("smollm2:135m-q4_k_m", "smollm2:135m-q4_k_m", "Q4_K_M"),
        ("tinyllama", "tinyllama:1.1b", "Q4_K_M"),
    ],
)
def test_a_name_may_say_the_quantization(name: str, expected: str, quant: str) -> None:
    entry = find_entry(name)
    assert entry is not None
    assert (entry.name, entry.quant) == (expected, quant)
    assert short_name(entry.repo.upper(), entry.file) == expected


def test_quantizations_the_catalog_does_not_list_are_read_too() -> None:
    assert find_entry("qwen3:8b-ud-iq2_m") is None
    unlisted = find_unlisted("Qwen3:8b-ud-iq2_m")
    assert unlisted is not None
    assert (unlisted[0].name, unlisted[1]) == ("qwen3:8b", "UD-IQ2_M")
    assert find_unlisted("qwen3:8b-q4") is not None
    for name in ("qwen3:8b", "qwen3:30b-a3b", "qwen3:8b-nonsense", "zzz-q4_0", "qwen3-q4_0"):
        assert find_unlisted(name) is None


def test_only_what_the_catalog_lists_has_a_short_name() -> None:
    assert short_name("Qwen/Qwen3-8B-GGUF", "Qwen3-8B-Q2_K.gguf") is None
    assert short_name("Qwen/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", 5) == "qwen3:8b"
    pinned = find_entry(DEFAULT_MODEL)
    assert pinned is not None
    assert short_name(pinned.repo, pinned.file, pinned.n_bytes) == DEFAULT_MODEL
    assert short_name(pinned.repo, pinned.file, 5) is None
    assert short_name("other/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf") is None


def test_the_catalog_by_model_says_which_quantization_a_name_means() -> None:
    models = {model.name: model for model in catalog_models()}
    assert len(models) == sum(entry.is_default for entry in CATALOG)
    for model in models.values():
        assert model.default in model.quantizations
        entry = find_entry(model.also or model.name)
        assert entry is not None
        assert (entry.name, entry.quant, entry.repo) == (model.name, model.default, model.repo)
    assert sorted(m.also for m in models.values() if m.also) == sorted(ALIASES)
    assert models["smollm2:135m"].default == "Q4_1"


def test_the_default_model_stays_what_it_was() -> None:
    entry = find_entry(DEFAULT_MODEL)
    assert entry is not None
    assert entry.wheel is not None
    assert (entry.is_pinned, entry.n_bytes, entry.sha256) == (
        True,
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
    assert [e.name for e in CATALOG if e.is_pinned] == [DEFAULT_MODEL]


def test_other_names_are_not_found_but_near_ones_are_suggested() -> None:
    assert find_entry("smolm2:135m") is None
    assert nearest_names("smolm2:135m")[0] == "smollm2:135m"
    assert nearest_names("zzz") == []


def test_names_stand_for_one_file_each() -> None:
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    assert len({(entry.repo, entry.file) for entry in CATALOG}) == len(CATALOG)
    assert set(ALIASES.values()) <= {entry.name for entry in CATALOG if entry.is_default}
    assert {entry.name.partition(":")[0] for entry in CATALOG} == set(ALIASES)
    for entry in CATALOG:
        assert entry.name == entry.name.lower()
        assert find_entry(entry.name) is entry
