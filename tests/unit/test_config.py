"""Sampling parameters and settings are checked when they are made."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from llamalite import config
from llamalite.config import SamplingConfig
from llamalite.errors import InvalidParameter


def test_defaults_are_valid_and_llama_cpps() -> None:
    made = SamplingConfig()
    assert (made.temperature, made.top_k, made.top_p, made.min_p) == (0.8, 40, 0.95, 0.05)
    assert made.seed is None
    assert made.max_tokens is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", math.nan), ("temperature", "hot"),
        ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_p", 1.01), ("min_p", -0.1),
        ("repeat_penalty", 0), ("mirostat", 3), ("seed", -1), ("seed", 2**32),
        ("max_tokens", -1), ("repeat_last_n", -2), ("stop", ("",)), ("stop", (1,)),
        ("samplers", ("top_k", "nonsense")), ("logit_bias", {"a": 1.0}),
        ("logit_bias", {1: math.inf}), ("logit_bias", {1: "x"}), ("grammar", 5),
        ("grammar", "a\0b"), ("ignore_eos", 1), ("adaptive_decay", 1.0),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=name) as caught:
        SamplingConfig(**{name: value})
    assert caught.value.param == name
    assert "\n" not in str(caught.value)


def test_every_number_has_a_range_and_a_meaning() -> None:
    numbers = [spec for spec in fields(SamplingConfig) if "low" in spec.metadata]
    assert len(numbers) >= 25
    for spec in numbers:
        assert spec.metadata["low"] < spec.metadata["high"]
        assert spec.metadata["doc"]


def test_it_is_frozen_and_copies_with_changes() -> None:
    made = SamplingConfig(stop="END", logit_bias={3: -1})
    assert made.stop == ("END",)
    assert made.replace(top_k=1).top_k == 1
    assert made.replace(top_k=1).stop == ("END",)
    with pytest.raises(FrozenInstanceError):
        made.top_k = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.logit_bias[4] = 1.0  # type: ignore[index]
    with pytest.raises(InvalidParameter, match="topk"):
        made.replace(topk=1)


def test_home_and_library_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.setenv("LLAMALITE_LIB", "~/lib")
    assert config.home() == tmp_path
    assert config.library_override() == Path("~/lib").expanduser()
    monkeypatch.delenv("LLAMALITE_HOME")
    monkeypatch.delenv("LLAMALITE_LIB")
    assert config.home().name == "llamalite"
    assert config.library_override() is None


@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False)]
)
def test_offline(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("LLAMALITE_OFFLINE", value)
    assert config.is_offline() is offline


def test_a_home_that_cannot_be_told_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", "~nobody99/x")
    with pytest.raises(InvalidParameter, match=r"LLAMALITE_HOME: .*~nobody99/x"):
        config.home()
    with pytest.raises(InvalidParameter, match=r"--dest: .*~nobody99"):
        config.user_path("~nobody99", "--dest")
    assert config.user_path("./~nobody99", "--dest") == Path("~nobody99")
    monkeypatch.delenv("LLAMALITE_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", str)  # no HOME, and nothing known of the user
    with pytest.raises(InvalidParameter, match="set LLAMALITE_HOME"):
        config.home()
