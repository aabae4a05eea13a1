"""What the settings classes hold, refuse, and give back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from llamalite.config import LLMConfig, ModelConfig, SamplingConfig, ServerConfig
from llamalite.config.settings import known_keys
from llamalite.errors import InvalidParameter
from llamalite.llm import LLM
from llamalite.models.names.safety import check_name

FULL = ModelConfig(
    model="owner/repo:Q4_0",
    n_ctx=4096,
    n_gpu_layers=-1,
    chat_template="chatml",
    system_prompt="",
    sampling={"temperature": 0, "stop": "END", "logit_bias": {7: -math.inf}, "seed": None},
    adapters=(("a.gguf", 0.5), ("b.gguf", 1)),
    messages=(("user", "hi"), ("assistant", "")),
    license="MIT",
)


def test_importing_config_loads_little() -> None:
    code = "import sys, llamalite.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "llamalite.config.places" in loaded
    assert not loaded & {"dataclasses", "tomllib", "tomlkit", "json", "llamalite.config.layers"}


def test_every_setting_has_a_meaning_and_a_range() -> None:
    keys = {**known_keys(LLMConfig), **known_keys(ModelConfig)}
    assert {"n_ctx", "sampling.temperature", "server.port", "adapters"} <= set(keys)
    for key, spec in keys.items():
        assert spec.metadata["doc"], key
        if spec.metadata["kind"] in {"whole", "number"}:
            assert spec.metadata["low"] < spec.metadata["high"], key


def test_what_opencode_forbids_real_models_is_allowed() -> None:
    made = LLMConfig(n_ctx=1_000_000, n_gpu_layers=-1, sampling=SamplingConfig(max_tokens=100_000))
    assert (made.n_ctx, made.n_gpu_layers, made.sampling.max_tokens) == (1_000_000, -1, 100_000)


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (ServerConfig, "port", 65536), (ServerConfig, "port", "8080"), (ServerConfig, "host", ""),
        (ServerConfig, "timeout_s", 0), (ServerConfig, "api_keys", ("",)),
        (ServerConfig, "cors_origins", {"a": 1}), (ModelConfig, "n_ctx", -1),
        (ModelConfig, "n_ctx", 2**32), (ModelConfig, "model", ""),
        (ModelConfig, "n_batch", 0), (ModelConfig, "n_batch", True),
        (ModelConfig, "n_threads", 513),
        (ModelConfig, "n_gpu_layers", -2), (ModelConfig, "chat_template", ""),
        (ModelConfig, "system_prompt", "a\0b"), (ModelConfig, "sampling", 5),
        (ModelConfig, "adapters", 5), (ModelConfig, "adapters", ("a.gguf",)),
        (ModelConfig, "adapters", (("a.gguf", math.nan),)), (ModelConfig, "adapters", ((1, 1),)),
        (ModelConfig, "messages", (("", "hi"),)), (ModelConfig, "messages", (("user",),)),
        (ModelConfig, "license", 5), (LLMConfig, "n_batch", None), (LLMConfig, "models_dir", 5),
        (LLMConfig, "models_dir", ""), (LLMConfig, "default_model", ""),
        (LLMConfig, "sampling", {}), (LLMConfig, "server", None), (LLMConfig, "aliases", 5),
        (LLMConfig, "aliases", {"a": ""}), (LLMConfig, "aliases", {"a\n": "b"}),
        (LLMConfig, "aliases", {"../a": "b"}), (LLMConfig, "aliases", {"C:\\a": "b"}),
        (LLMConfig, "models", {"a": {}}), (LLMConfig, "models", {"": ModelConfig()}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(cls: type, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=name) as caught:
        cls(**{name: value})
    assert caught.value.param == name
    assert "\n" not in str(caught.value)


def test_a_number_too_long_to_write_is_one_short_line() -> None:
    with pytest.raises(InvalidParameter, match="n_ctx is a number of thousands of digits"):
        ModelConfig(n_ctx=10**5000)


def test_settings_are_frozen_through_and_through() -> None:
    aliases = {"a": "b"}
    made = LLMConfig(aliases=aliases, models={"m": FULL}, models_dir="~/m")  # type: ignore[arg-type]
    aliases["c"] = "d"
    assert dict(made.aliases) == {"a": "b"}
    assert made.models_dir == Path("~/m").expanduser()
    with pytest.raises(FrozenInstanceError):
        made.n_ctx = 5  # type: ignore[misc]
    for table in (made.aliases, made.models, FULL.sampling):
        with pytest.raises(TypeError):
            table["x"] = 1  # type: ignore[index]


def test_a_models_sampling_holds_only_what_is_said() -> None:
    assert set(FULL.sampling) == {"temperature", "stop", "logit_bias", "seed"}
    assert FULL.sampling["stop"] == ("END",)
    with pytest.raises(InvalidParameter, match=r"top_p is 2, outside \[0, 1\]"):
        ModelConfig(sampling={"top_p": 2})
    with pytest.raises(InvalidParameter, match="topk"):
        ModelConfig(sampling={"topk": 2})


def test_a_model_config_survives_json() -> None:
    assert ModelConfig().to_dict() == {}
    written = json.dumps(FULL.to_dict(), allow_nan=False)
    assert ModelConfig.from_dict(json.loads(written), "presets/x.json") == FULL
    only = ModelConfig(n_ctx=0).to_dict()
    assert only == {"n_ctx": 0}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], "it must be a table"),
        ({"num_ctx": 5}, "there is no setting 'num_ctx': did you mean n_ctx?"),
        ({"temperature": 1}, "there is no setting 'temperature': did you mean sampling.temp"),
        ({"sampling": {"temprature": 1}}, "'sampling.temprature': did you mean sampling.temp"),
        ({"sampling": 5}, "sampling must be a table"),
        ({"n_ctx": "5"}, "n_ctx must be a whole number, not '5'"),
        ({"messages": [{"role": "user"}]}, "messages must be tables of role and content"),
        ({"adapters": [{"path": "x", "scal": 1}]}, "adapters must be tables of path and scale"),
    ],
)
def test_what_a_file_says_wrongly_names_the_file(said: Any, reason: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        ModelConfig.from_dict(said, "x.json")
    assert str(caught.value).startswith("x.json: ")
    assert reason in str(caught.value)


def test_an_adapters_scale_may_be_left_out() -> None:
    assert ModelConfig.from_dict({"adapters": [{"path": "a"}]}, "x").adapters == (("a", 1.0),)


def test_defaults_are_the_documented_ones() -> None:
    made = LLMConfig()
    assert (made.default_model, made.n_batch, made.n_ubatch) == ("smollm2:135m", 2048, 512)
    assert (made.server.host, made.server.port) == ("127.0.0.1", 8080)
    assert made.server.cors_origins == ()  # closed
    assert all(getattr(ModelConfig(), spec.name) in (None, (), {}) for spec in fields(ModelConfig))


@pytest.mark.parametrize("name", ["-x", "a b", "x.gguf", "nul", "C:x", "hf:x", "x.", "x" * 101])
def test_an_alias_is_a_name_that_the_store_would_take(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"aliases: the name .*choose another"):
        LLMConfig(aliases={name: "m"})
    with pytest.raises(InvalidParameter):
        check_name(name, "the name")


@pytest.mark.parametrize("adapters", [[("x",)], [("x", 1, 2)], ["ab"], "ab", 5, [("a\0", 1)]])
def test_adapters_are_paths_with_scales(adapters: Any) -> None:
    with pytest.raises(InvalidParameter, match="adapters must be paths with scales") as caught:
        LLM(loras=adapters)
    assert str(caught.value).isprintable()


def test_adapters_may_be_paths_of_any_kind(tmp_path: Path) -> None:
    with os.scandir(tmp_path.parent) as entries:
        place = next(entries)
    assert ModelConfig(adapters=((place, 1),)).adapters == ((place.path, 1.0),)
