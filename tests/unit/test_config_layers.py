"""The order of what is said, who said it, and where models lie."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from llamalite import config
from llamalite.config import LLMConfig, ModelConfig, layers
from llamalite.errors import InvalidParameter


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, which isn't there yet, and an environment without settings."""
    for name in list(os.environ):
        if name.startswith("LLAMALITE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    return tmp_path / "config.toml"


def test_without_file_and_variables_defaults_hold(tmp_path: Path) -> None:
    assert config.load_config() == LLMConfig()
    assert config.models_dir() == tmp_path / "models"
    made = config.effective({})
    assert made.settings == {"n_batch": 2048, "n_ubatch": 512}
    assert made.sampling == config.SamplingConfig()
    assert set(made.origins.values()) == {"default"}


def test_each_layer_wins_over_the_ones_below(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["n_ctx = 1", "[sampling]", "top_k = 1", "seed = 1", '[models."A:b"]', "n_ctx = 3"]
    preset = ModelConfig(n_ctx=2, sampling={"top_k": 2}, system_prompt="preset's")

    def n_ctx_and_origin(given: dict[str, Any], *names: str) -> tuple[int, str]:
        made = config.effective(given, names, preset)
        return made.settings["n_ctx"], made.origins["n_ctx"]

    assert n_ctx_and_origin({}, "x") == (2, "preset x")
    file.write_text("\n".join(lines))
    assert n_ctx_and_origin({}, "x") == (2, "preset x")
    assert n_ctx_and_origin({}, "x", "a:B") == (3, "model A:b")  # names have no case
    monkeypatch.setenv("LLAMALITE_N_CTX", "4")
    assert n_ctx_and_origin({}, "a:B") == (4, "environment LLAMALITE_N_CTX")
    assert n_ctx_and_origin({"n_ctx": 5}, "a:B") == (5, "command line")
    made = config.effective({"sampling.seed": None}, ["x"], preset)
    assert (made.sampling.top_k, made.sampling.seed) == (2, None)
    assert made.origins["sampling.seed"] == "command line"
    assert made.system_prompt == "preset's"
    assert config.effective({}).origins["sampling.seed"] == f"file {file}"


def test_the_first_name_is_the_strongest(file: Path) -> None:
    file.write_text("models.typed.n_ctx = 1\nmodels.meant.n_ctx = 2\nmodels.meant.n_batch = 3")
    made = config.effective({}, ["typed", "meant"])
    assert (made.settings["n_ctx"], made.settings["n_batch"]) == (1, 3)


def test_messages_and_adapters_come_from_the_strongest_that_has_some(file: Path) -> None:
    file.write_text('models.m.adapters = [{path = "a.gguf"}, {path = "/b.gguf", scale = 2}]')
    preset = ModelConfig(adapters=(("c", 1),), messages=(("user", "hi"),), license="L", model="x")
    made = config.effective({}, ["m"], preset)
    assert made.adapters == ((str(file.parent / "a.gguf"), 1.0), ("/b.gguf", 2.0))
    assert made.messages == (("user", "hi"),)
    assert config.effective({"adapters": (("d", 1),)}, ["m"], preset).adapters == (("d", 1.0),)


def test_the_command_line_is_checked_without_an_origin() -> None:
    with pytest.raises(InvalidParameter, match=r"^n_ctx is -1") as caught:
        config.effective({"n_ctx": -1})
    assert caught.value.param == "n_ctx"
    with pytest.raises(InvalidParameter, match=r"did you mean n_ctx\?"):
        config.effective({"ctx_size": 1})


@pytest.mark.parametrize(
    ("variable", "written", "read"),
    [
        ("LLAMALITE_SAMPLING_TEMPERATURE", "0", lambda c: c.sampling.temperature == 0),
        ("LLAMALITE_SAMPLING_SEED", "-1", lambda c: c.sampling.seed is None),
        ("LLAMALITE_SAMPLING_STOP", "END", lambda c: c.sampling.stop == ("END",)),
        ("LLAMALITE_SAMPLING_STOP", '["a", "b"]', lambda c: c.sampling.stop == ("a", "b")),
        ("LLAMALITE_SAMPLING_LOGIT_BIAS", '{"5": "-inf"}', lambda c: 5 in c.sampling.logit_bias),
        ("LLAMALITE_SAMPLING_IGNORE_EOS", "yes", lambda c: c.sampling.ignore_eos is True),
        ("LLAMALITE_SERVER_PORT", "81", lambda c: c.server.port == 81),
        ("LLAMALITE_DEFAULT_MODEL", "m", lambda c: c.default_model == "m"),
        ("LLAMALITE_N_CTX", "", lambda c: c.n_ctx is None),
        ("LLAMALITE_NOT_OURS", "x", lambda c: c == LLMConfig()),
    ],
)
def test_variables_are_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, written: str, read: Any
) -> None:
    monkeypatch.setenv(variable, written)
    assert read(config.load_config())


@pytest.mark.parametrize(
    ("variable", "written"),
    [
        ("LLAMALITE_N_CTX", "4k"), ("LLAMALITE_N_CTX", "1_000"), ("LLAMALITE_N_CTX", "9" * 5000),
        ("LLAMALITE_N_BATCH", "0"), ("LLAMALITE_SAMPLING_TOP_P", "nan"),
        ("LLAMALITE_SAMPLING_IGNORE_EOS", "maybe"), ("LLAMALITE_SAMPLING_STOP", "[a"),
        ("LLAMALITE_SAMPLING_LOGIT_BIAS", "5"), ("LLAMALITE_SAMPLING_SAMPLERS", "top_q"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, written: str
) -> None:
    monkeypatch.setenv(variable, written)
    with pytest.raises(InvalidParameter, match=f"^{variable}: ") as caught:
        config.load_config()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_error_shows_no_keys(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('server.api_keys = ["sk-1", 5]')
    with pytest.raises(InvalidParameter, match="api_keys must be") as in_file:
        config.load_config()
    monkeypatch.setenv("LLAMALITE_SERVER_API_KEYS", "[sk-1")
    file.unlink()
    with pytest.raises(InvalidParameter, match="LLAMALITE_SERVER_API_KEYS: ") as in_variable:
        config.load_config()
    assert "sk-1" not in str(in_file.value) + str(in_variable.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("context_size = 1", "there is no setting 'context_size': did you mean n_ctx?"),
        ("temp = 1", "did you mean sampling.temperature?"),
        ("[serverr]", "did you mean server?"),
        ("[server]\nprot = 1", "'server.prot': did you mean server.port?"),
        ("[models.x]\ngpu_layers = 1", "models.x: there is no setting 'gpu_layers': did you mean"),
        ("[models.x]\nmodel = 'y'", "models.x: model has no place here: give a name"),
        ("[models.x]\nn_ctx = 'y'", "models.x: n_ctx must be a whole number"),
        ("models = 5", "models must be a table"),
        ("aliases.x = 5", "aliases.x must be the name of a model, not 5"),
        ("sampling = 5", "sampling must be a table"),
        ("[sampling]\ntop_p = 1.5", "sampling.top_p is 1.5, outside [0, 1]"),
        ("n_ctx = 2020-01-01", "n_ctx must be a whole number"),
        ("n_ctx =", "not valid TOML"),
        ("n_ctx = " + "9" * 5000, "not valid TOML"),
    ],
)
def test_a_fault_in_the_file_names_file_and_key(file: Path, content: str, reason: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidParameter, match=f"^{re.escape(str(file))}") as caught:
        config.load_config()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidParameter):
        config.models_dir()


def test_models_dir_is_the_strongest_word(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("n_ctx = 1")
    assert config.models_dir() == file.parent / "models"
    file.write_text('models_dir = "gguf"')
    assert config.models_dir() == file.parent / "gguf"  # relative to the file
    monkeypatch.setenv("LLAMALITE_MODELS_DIR", "~/models")
    assert config.models_dir() == Path("~/models").expanduser()
    assert config.load_config().models_dir == config.models_dir()


def test_another_file_can_be_named_but_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.toml"
    monkeypatch.setenv("LLAMALITE_CONFIG", str(other))
    with pytest.raises(InvalidParameter, match=r"LLAMALITE_CONFIG: there is no file .*other\.toml"):
        config.load_config()
    other.write_bytes(b"\xef\xbb\xbfn_ctx = 7\r\n")  # as Windows' editors write
    assert config.load_config().n_ctx == 7
    other.write_bytes(b"n_ctx = \xff")
    with pytest.raises(InvalidParameter, match=r"not valid UTF-8 \(byte 8\)"):
        config.load_config()
    monkeypatch.setenv("LLAMALITE_CONFIG", str(tmp_path))
    with pytest.raises(InvalidParameter, match="is no regular file"):
        config.load_config()


def test_everything_says_who_said_it(file: Path) -> None:
    file.write_text('[aliases]\nt = "m"\n[models."a.b:c"]\nsampling.top_k = 4')
    said = layers.everything()
    assert said["aliases.t"] == ("m", f"file {file}")
    assert said["models.a.b:c.sampling.top_k"].value == 4
    assert said["server.port"] == (8080, "default")


def test_the_doctor_tells_of_a_faulty_configuration(file: Path) -> None:
    from llamalite.doctor.folders import folder_problem

    assert folder_problem() is None
    file.write_text("ctx_size = 5")
    problem = folder_problem()
    assert problem is not None
    assert problem.is_fatal
    assert "did you mean n_ctx?" in problem.what
